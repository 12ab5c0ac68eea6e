"""Transports: how unfinished sessions reach the handlers."""
