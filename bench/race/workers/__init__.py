"""Clients and services of the workflow engines; each runs in a process of its own."""
