"""Bytes and back: the events of a batch. Pure."""
