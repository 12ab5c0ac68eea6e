"""The machine: what may happen to a session (`decide`), and what it changes when it does (`apply`). Pure."""
