"""The embedded log: what is acknowledged is on stable storage, or the process stops.

`file` is the log on disk, `memory` the one for tests and simulations, `inspect` reads a log for people. Underneath:
`frame` and `segment` are the byte layouts, `recovery` decides what a crash left, `disk` is the door to the system.
"""
