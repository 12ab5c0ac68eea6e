"""Adapters of the stream that a cluster shares."""
