"""Adapters of `truba.ports.parked`."""
