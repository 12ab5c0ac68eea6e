"""Three nodes on three nats-servers, all of them processes: clients and owners of a cluster whose leaders die.

One cluster for all tests of this file; each leaves it with all nodes running and in agreement.
"""

from __future__ import annotations

import asyncio
import json
import secrets
from collections.abc import Iterator
from dataclasses import dataclass, field

import pytest

import truba
from tests.clustered.support import Known, records_of, run_truba, told, write
from truba.testing.nats import NatsServers
from truba.testing.nodes import KIND, Nodes
from truba.testing.ports import free_ports

pytestmark = pytest.mark.timeout(120)

LOST = """
[kinds.lost]
number = 8
handler = "truba://{handler}"
recovery_delay = "0s"
"""


@dataclass
class Life:
    nodes: Nodes
    handler: str  # where kind 8 is handed over: "host:port"
    known: Known = field(default_factory=dict)  # everything acknowledged that is there to stay

    async def whole(self) -> None:
        """All nodes agree, and everything acknowledged is there, with its records."""
        for name in self.nodes.names:
            if not self.nodes.alive(name):
                self.nodes.launch(name)
        await self.nodes.leader()
        await self.nodes.agree()
        assert await records_of(self.nodes) == self.known

    async def followers(self) -> tuple[str, list[str]]:
        """The leader, and the others, which know it."""
        leader = await self.nodes.leader()
        others = [name for name in self.nodes.names if name != leader]
        for name in others:
            await told(self.nodes, name, lambda status: status.leader == leader)
        return leader, others


@pytest.fixture(scope="module")
def life(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Life]:
    directory = tmp_path_factory.mktemp("life")
    handler = f"127.0.0.1:{free_ports(1)[0]}"
    servers = asyncio.run(NatsServers.start(directory / "nats", 3))
    try:
        nodes = Nodes(directory / "nodes", servers, kinds=KIND + LOST.format(handler=handler))
        try:
            asyncio.run(nodes.start())
            yield Life(nodes, handler)
        finally:
            nodes.end()
    finally:
        servers.end()


async def test_any_node_takes_any_client(life: Life) -> None:
    leader, followers = await life.followers()
    for name in (leader, *followers):
        async with truba.connect(f"truba://{life.nodes.clients[name]}", connect_timeout_s=10) as pipe:
            session = await pipe.new(7, name.encode())
            await session.store(3600)
            life.known[str(session.id)] = [name.encode()]
    for name in followers:
        where = life.nodes.clients[name]
        reader, writer = await asyncio.open_connection(where.host, where.port)
        try:
            writer.write(b"PING\r\n*4\r\n$3\r\nNEW\r\n$1\r\n7\r\n$3\r\nraw\r\n$0\r\n\r\n")
            async with asyncio.timeout(10):
                assert await reader.readline() == b"+PONG\r\n"
                assert (await reader.readline()).startswith(b"$")
                session_id = (await reader.readline()).strip()
                writer.write(b"STORE %b 3600\r\n" % session_id)
                assert await reader.readline() == b"+OK\r\n"
            life.known[session_id.decode()] = [b"raw", b""]
        finally:
            writer.close()
            await writer.wait_closed()
        code, out, err = await run_truba("ls", "--all", "--json", "--url", f"truba://{where}")
        assert code == 0, err
        assert {json.loads(line)["id"] for line in out.splitlines()} == life.known.keys()
    await life.whole()


async def test_owners_find_their_sessions_on_the_next_leader(life: Life) -> None:
    token = secrets.token_bytes(32)
    async with truba.connect(life.nodes.urls, connect_timeout_s=10) as staying:
        going_on = await staying.new(7, b"before")
        first = await truba.connect(life.nodes.urls, token=token, grace_s=60, connect_timeout_s=10)
        left = await first.new(7, b"left", tag=5)
        await first.close()  # as a process that ends: its sessions are kept for it
        leader = await life.nodes.leader()
        await life.nodes.kill(leader)
        await going_on.append(b"after")
        assert await life.nodes.leader() != leader
        async with truba.connect(life.nodes.urls, token=token, grace_s=60, connect_timeout_s=30) as second:
            assert [(tag, one.id) for tag, one in second.held.items()] == [(5, left.id)]
            await second.held[5].append(b"found")
            await second.held[5].store(3600)
        await going_on.store(3600)
    life.known |= {str(going_on.id): [b"before", b"after"], str(left.id): [b"left", b"found"]}
    await life.whole()


async def test_owners_that_stay_away_lose_their_sessions_to_a_handler_of_the_leader(life: Life) -> None:
    repeats: list[tuple[list[bytes], truba.Cause, int]] = []
    came = asyncio.Event()

    async def handle(repeat: truba.RepeatData) -> None:
        repeats.append((list(repeat.records), repeat.cause, repeat.attempt))
        came.set()

    async def lose(record: bytes) -> None:
        pipe = await truba.connect(life.nodes.urls, grace_s=2, connect_timeout_s=30)
        await pipe.new(8, record)
        await pipe.close()

    async with truba.serve_handlers({8: handle}, life.handler) as service:
        await lose(b"from the first")
        await asyncio.wait_for(came.wait(), 20)
        assert len(service.links) == 1, "only the leader hands over"
        came.clear()
        # The owner is gone before the leader is: the next one must know by itself whom to wait for, and for how long.
        await lose(b"from the next")
        await life.nodes.kill(await life.nodes.leader())
        await asyncio.wait_for(came.wait(), 30)
        assert len(service.links) == 1, "only the leader hands over"
        await life.whole()  # the handler's Delete came, too: neither session is there any more
        assert repeats == [
            ([b"from the first"], truba.Cause.LOST, 1),
            ([b"from the next"], truba.Cause.RESTART, 1),
        ]


async def test_two_leaders_die_in_a_row(life: Life) -> None:
    async with truba.connect(life.nodes.urls, connect_timeout_s=10, timeout_s=60) as pipe:
        session = await pipe.new(7, b"0")
        first = await life.nodes.leader()
        await life.nodes.kill(first)
        await session.append(b"1")
        life.nodes.launch(first)
        second = await life.nodes.leader()
        assert second != first
        await life.nodes.kill(second)
        await session.append(b"2")
        await session.store(3600)
    life.known[str(session.id)] = [b"0", b"1", b"2"]
    await life.whole()


async def test_all_nodes_stop_cleanly_and_start_again(life: Life) -> None:
    life.known |= await write(life.nodes, 5)
    before = await life.nodes.agree()
    _, followers = await life.followers()
    assert await life.nodes.stop(followers[0]) == 0
    life.nodes.launch(followers[0])
    await life.nodes.agree()
    assert [await life.nodes.stop(name) for name in life.nodes.names] == [0, 0, 0]
    await life.whole()
    assert (await life.nodes.agree()).term > before.term
