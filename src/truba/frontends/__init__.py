"""Frontends: how clients reach the pipe."""
