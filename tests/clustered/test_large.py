"""More than a message of the stream can hold, from many clients at once: it becomes several entries."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

import truba
from truba.testing.nats import NatsConfig, NatsServers
from truba.testing.nodes import Nodes

pytestmark = pytest.mark.timeout(120)

RECORD_BYTES = 1 << 20
CLIENTS, SESSIONS = 3, 14


async def test_what_gathers_while_the_servers_stand_still_is_cut_into_messages(tmp_path: Path) -> None:
    """42 MiB are under way while no server answers; the servers take messages of 26 MB."""
    async with (
        await NatsServers.start(tmp_path / "nats", 3, NatsConfig(max_payload="26MB")) as servers,
        Nodes(tmp_path / "nodes", servers) as nodes,
    ):
        await nodes.start()
        leader = await nodes.leader()
        url = f"truba://{nodes.clients[leader]}"
        pipes = [await truba.connect(url) for _ in range(CLIENTS)]
        try:
            sessions = [await pipe.new(7, b"first") for pipe in pipes for _ in range(SESSIONS)]
            records = [bytes([number]) * RECORD_BYTES for number in range(len(sessions))]
            for name in servers.names:
                servers.pause(name)
            appends = [asyncio.ensure_future(_append(*each)) for each in zip(sessions, records, strict=True)]
            await asyncio.sleep(1.0)  # they are on their way; more than that no test can see from outside
            assert not any(append.done() for append in appends)
            for name in servers.names:
                servers.resume(name)
            await asyncio.gather(*appends)
            await nodes.agree()
            assert await nodes.leader() == leader
            for session, record in zip(sessions, records, strict=True):
                shown = await pipes[0].request(b"SHOW", str(session.id).encode(), read=True)
                assert dict(zip(shown[::2], shown[1::2], strict=True))[b"records"] == [b"first", record]
        finally:
            for pipe in pipes:
                await pipe.close()


async def _append(session: truba.Session, record: bytes) -> None:
    await session.append(record)
