"""The contracts between the core and the world. Adapters say only what differs; `truba.testing` holds their suites."""
