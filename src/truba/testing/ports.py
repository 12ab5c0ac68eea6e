"""Ports for a child that listens at the same address at each of its starts."""

from __future__ import annotations

import random
import socket
from pathlib import Path

EPHEMERAL_PORTS = Path("/proc/sys/net/ipv4/ip_local_port_range")


def free_ports(count: int) -> list[int]:
    """Ports of the loopback address that nobody listens at now, and that the kernel gives to nobody by itself: a
    connection, or a test beside, might have one while the child is down."""
    try:
        first_ephemeral = int(EPHEMERAL_PORTS.read_text().split()[0])
    except OSError:
        first_ephemeral = 32_768
    free: list[int] = []
    while len(free) < count:
        port = random.SystemRandom().randrange(10_000, max(first_ephemeral, 12_000))
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            if port not in free:
                free.append(port)
    return free
