"""Leaders of both layers die, and change by plan, while clients write: what was acknowledged stays as it was told.

One cluster for all tests of this file; each leaves it with all nodes and servers running.
"""

from __future__ import annotations

import asyncio
import json
import shutil
import signal
from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from tests.clustered.load import loaded
from tests.clustered.support import run_truba, told, until
from truba.testing.nats import NatsServers
from truba.testing.nodes import Nodes

pytestmark = pytest.mark.timeout(150)


@dataclass
class Pair:
    servers: NatsServers
    nodes: Nodes


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pair]:
    directory = tmp_path_factory.mktemp("load")
    servers = asyncio.run(NatsServers.start(directory / "nats", 3))
    try:
        nodes = Nodes(directory / "nodes", servers, node='checkpoint = "64KiB"\nsegment = "64KiB"')
        try:
            asyncio.run(nodes.start())
            asyncio.run(nodes.agree())  # all of them have started
            yield Pair(servers, nodes)
        finally:
            nodes.end()
    finally:
        servers.end()


async def test_leaders_are_killed(cluster: Pair) -> None:
    nodes = cluster.nodes
    async with loaded(nodes, seed=1) as load:
        for _ in range(3):
            leader = await nodes.leader()
            await nodes.kill(leader)
            await load.goes_on()
            nodes.launch(leader)
        await nodes.leader()


async def test_leaders_hand_over_by_plan(cluster: Pair) -> None:
    nodes = cluster.nodes
    async with loaded(nodes, seed=2) as load:
        for _ in range(4):
            leader = await nodes.leader()
            successor = nodes.names[(nodes.names.index(leader) + 1) % len(nodes.names)]
            code, out, err = await run_truba(
                "cluster", "step-down", "--to", successor, "--json", "-c", str(nodes.config("a"))
            )
            assert code == 0, err
            done = json.loads(out)
            assert (done["from"], done["to"]) == (leader, successor)
            await load.goes_on()


async def test_the_leader_of_the_stream_is_killed_and_then_both(cluster: Pair) -> None:
    nodes, servers = cluster.nodes, cluster.servers
    async with loaded(nodes, seed=3) as load:
        server = await servers.leader("truba")
        await servers.kill(server)
        await load.goes_on()
        servers.revive(server)
        await servers.ready()

        server, leader = await servers.leader("truba"), await nodes.leader()
        await servers.kill(server)
        await nodes.kill(leader)
        await load.goes_on()
        nodes.launch(leader)  # one server less is no reason not to start
        await told(nodes, leader, lambda status: status.leader)
        servers.revive(server)
        await servers.ready()


async def test_a_server_and_a_node_come_back_with_empty_disks(cluster: Pair) -> None:
    nodes, servers = cluster.nodes, cluster.servers

    async def whole() -> bool:
        replicas = (await servers.ask("STREAM.INFO.truba")).get("cluster", {}).get("replicas", ())
        return len(replicas) == 2 and all(peer["current"] for peer in replicas)

    async with loaded(nodes, seed=5) as load:
        server, leader = await servers.leader("truba"), await nodes.leader()
        other = next(name for name in servers.names if name != server)
        await servers.kill(other)
        await nodes.kill(leader)
        shutil.rmtree(servers.data(other))
        shutil.rmtree(nodes.data(leader))
        await load.goes_on()
        servers.revive(other)
        nodes.launch(leader)
        await servers.ready()
        await until(whole)
        await told(nodes, leader, lambda status: status.leader)
        await servers.kill(server)  # what came back counts
        await load.goes_on()
        servers.revive(server)
        await servers.ready()


async def test_a_leader_that_was_paused_wakes_up_deposed(cluster: Pair) -> None:
    """What it had sent may arrive, what it answers from then on may not be an acknowledgement."""
    nodes = cluster.nodes
    async with loaded(nodes, seed=4) as load:
        for _ in range(2):
            leader = await nodes.leader()
            nodes.signal(leader, signal.SIGSTOP)
            try:
                await nodes.leader(other_than=leader)
                await load.goes_on()
            finally:
                nodes.signal(leader, signal.SIGCONT)
            await told(nodes, leader, lambda status: status.role == "follower")
            await load.goes_on()
