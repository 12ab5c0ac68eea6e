"""A host that is cut off from the others, with its nats-server and its node: what was acknowledged is there afterwards.

One client writes through all addresses, another one only through the node on the host in question. Both keep a model of
what they were told, and after the heal it is held against what the nodes have.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import TypeVar

import pytest

import truba
from tests.clustered.namespaces import Hosts, lacking
from tests.clustered.support import until
from truba.client.remote import RemotePipe
from truba.errors import NoSession, OperationError
from truba.testing.nats import NatsServers, Place
from truba.testing.nodes import Nodes

T = TypeVar("T")

ACKNOWLEDGED_S = 100.0
"""How long a client may have to wait, at most: JetStream elects a leader of its own, and a connection that was silent
for as long sends again that much later. A server that hears and is not heard keeps its routes for ten seconds and more,
and nats-server has taken over half a minute to elect then."""

LET_GO = "no entry was stored in the stream for 5 s"
"""What a leader says that has found out that it is cut off. One that only waits for JetStream waits for 15 s."""

FLAPPING_S = 15.0

pytestmark = pytest.mark.timeout(480)


@dataclass
class Writer:
    """Opens sessions, appends, stores some and deletes the others, one after another."""

    pipe: RemotePipe
    known: dict[str, list[bytes]] = field(default_factory=dict)
    """What was acknowledged of each session; it may have more if the last operation had no answer."""
    unsure: set[str] = field(default_factory=set)
    """Those whose last operation had no answer."""
    deleted: set[str] = field(default_factory=set)
    last_sent_s: float = 0.0
    """When the last operation that was acknowledged had been sent."""

    async def run(self) -> None:
        n = 0
        while True:
            n += 1
            try:
                await self._session(n)
            except OperationError as error:
                if error.happened == "no" and error.again == "never":
                    raise
                await asyncio.sleep(0.05)

    async def _session(self, n: int) -> None:
        session = await self._timed(self.pipe.new(7, b"%d" % n))
        key = str(session.id)
        self.known[key] = [b"%d" % n]
        self.unsure.add(key)
        await self._timed(session.append(b"second of %d" % n))
        self.known[key].append(b"second of %d" % n)
        if n % 5 == 0:
            await self._timed(session.store(86_400))
            self.unsure.remove(key)
            return
        del self.known[key]  # without an answer to the next one nobody knows whether it is there
        await self._timed(session.delete())
        self.unsure.remove(key)
        self.deleted.add(key)

    async def _timed(self, operation: Awaitable[T]) -> T:
        sent_s = time.monotonic()
        answer = await operation
        self.last_sent_s = sent_s
        return answer

    async def goes_on(self, after_s: float, timeout_s: float = ACKNOWLEDGED_S) -> None:
        """Until something is acknowledged that was sent later than that."""
        async with asyncio.timeout(timeout_s):
            while self.last_sent_s <= after_s:  # noqa: ASYNC110 there is one poll for thousands of operations
                await asyncio.sleep(0.02)

    async def look(self, pipe: RemotePipe) -> None:
        """Is everything as it was acknowledged?"""
        for key, records in self.known.items():
            shown = await pipe.request(b"SHOW", key.encode(), read=True)
            found = dict(zip(shown[::2], shown[1::2], strict=True))[b"records"]
            if key in self.unsure:
                assert found[: len(records)] == records, f"session {key}"
            else:
                assert found == records, f"session {key}"
        for key in self.deleted:
            with pytest.raises(NoSession):
                await pipe.request(b"SHOW", key.encode(), read=True)


@dataclass
class Cluster:
    """Node a and server n1 are on host 1, and so on."""

    hosts: Hosts
    servers: NatsServers
    nodes: Nodes

    async def leads(self) -> int:
        """The host of the node that leads."""
        return self.nodes.names.index(await self.nodes.leader()) + 1

    async def stream_leads(self) -> int:
        """The host of the server that leads the stream."""
        return self.servers.names.index(await self.servers.leader("truba")) + 1

    async def stream_to(self, host: int) -> None:
        """Have the server of that host lead the stream."""
        wanted = self.servers.names[host - 1]
        async with asyncio.timeout(30):
            while await self.servers.leader("truba") != wanted:
                await self.servers.step_down("truba", wanted)

    @asynccontextmanager
    async def written(self, host: int) -> AsyncIterator[tuple[Writer, Writer]]:
        """Two writers, through all nodes and through that host's alone. At the end the host is whole again, both go
        on, and what they know is what the nodes have."""
        nodes = self.nodes
        async with (
            truba.connect(nodes.urls, connect_timeout_s=30, timeout_s=120, insecure=True) as everywhere,
            truba.connect(nodes.urls[host - 1], connect_timeout_s=30, timeout_s=120, insecure=True) as here,
        ):
            writers = Writer(everywhere), Writer(here)
            writing = [asyncio.create_task(writer.run()) for writer in writers]
            try:
                for writer in writers:
                    await writer.goes_on(time.monotonic() + 0.5)
                try:
                    yield writers
                finally:
                    self.hosts.heal(host)
                healed_s = time.monotonic()
                await self.servers.ready()
                for writer in writers:
                    await writer.goes_on(healed_s)
            finally:
                for task in writing:
                    task.cancel()
                ended = await asyncio.gather(*writing, return_exceptions=True)
            assert all(isinstance(each, asyncio.CancelledError) for each in ended), ended
            await nodes.agree()
            for writer in writers:
                await writer.look(everywhere)

    async def survives(self, host: int, hurt: Callable[[int], None]) -> None:
        """That host alone is hurt until the others have gone on without it for a while."""
        led = host == await self.leads()
        name = self.nodes.names[host - 1]
        said = self.nodes.log(name).count(LET_GO)

        async def let_go() -> bool:
            return self.nodes.log(name).count(LET_GO) > said

        async with self.written(host) as (everywhere, here):
            hurt(host)
            hurt_s = time.monotonic()
            await everywhere.goes_on(hurt_s)
            await asyncio.sleep(3.0)
            if led:  # else that client was shown the way to the leader, and needs the host no more
                await until(let_go, 30)
                assert here.last_sent_s <= hurt_s, "a leader that is cut off acknowledged something"


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    if reason := lacking():
        pytest.skip(reason)
    directory = tmp_path_factory.mktemp("partitions")
    with Hosts(3) as hosts:
        places = [Place(hosts.address(host), hosts.address(host), hosts.run(host)) for host in hosts.numbers]
        servers = asyncio.run(NatsServers.start(directory / "nats", 3, places=places))
        try:
            names = dict(zip("abc", hosts.numbers, strict=True))
            nodes = Nodes(
                directory / "nodes",
                servers,
                hosts={name: hosts.address(host) for name, host in names.items()},
                run={name: hosts.run(host) for name, host in names.items()},
            )
            try:
                asyncio.run(nodes.start())
                yield Cluster(hosts, servers, nodes)
            finally:
                nodes.end()
        finally:
            servers.end()


async def test_the_host_of_the_leader_is_cut_off(cluster: Cluster) -> None:
    host = await cluster.leads()
    await cluster.stream_to(host % 3 + 1)
    await cluster.survives(host, cluster.hosts.cut)


async def test_the_host_of_the_streams_leader_is_cut_off(cluster: Cluster) -> None:
    host = await cluster.leads() % 3 + 1
    await cluster.stream_to(host)
    await cluster.survives(host, cluster.hosts.cut)


async def test_the_host_of_both_leaders_is_cut_off(cluster: Cluster) -> None:
    host = await cluster.leads()
    await cluster.stream_to(host)
    await cluster.survives(host, cluster.hosts.cut)


async def test_the_host_of_both_leaders_hears_and_is_not_heard(cluster: Cluster) -> None:
    host = await cluster.leads()
    await cluster.stream_to(host)
    await cluster.survives(host, cluster.hosts.mute)


async def test_the_link_of_the_leader_flaps(cluster: Cluster) -> None:
    host = await cluster.leads()
    dice = random.Random(5)
    async with cluster.written(host):
        until_s = time.monotonic() + FLAPPING_S
        while time.monotonic() < until_s:
            cluster.hosts.cut(host)
            await asyncio.sleep(dice.uniform(0.2, 2.5))
            cluster.hosts.heal(host)
            await asyncio.sleep(dice.uniform(0.2, 1.5))
