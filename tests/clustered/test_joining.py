"""Nodes that were away: they catch up from the stream, or take a peer's checkpoint when the stream was trimmed."""

from __future__ import annotations

import os
import shutil
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from tests.clustered.holding import HoldingRelay
from tests.clustered.support import records_of, until, write
from truba.testing.nats import NatsServers
from truba.testing.nodes import Nodes

KEEP = 64 << 10
RECORD = bytes(50_000)
MIB = 1 << 20


@pytest.mark.timeout(150)
async def test_nodes_that_were_away_get_everything(tmp_path: Path) -> None:
    async with (
        await NatsServers.start(tmp_path / "nats", 3) as servers,
        Nodes(
            tmp_path / "nodes",
            servers,
            node='checkpoint = "64KiB"\nsegment = "64KiB"',
            cluster='keep = "64KiB"',
        ) as nodes,
    ):

        async def trimmed() -> bool:
            """The stream begins after everything written until now."""
            state = (await servers.ask("STREAM.INFO.truba"))["state"]
            return int(state["first_seq"]) > last and int(state["bytes"]) < 4 * KEEP

        await nodes.start()
        known = await write(nodes, 3)
        leader = await nodes.leader()
        away = next(name for name in nodes.names if name != leader)

        await nodes.kill(away)
        known |= await write(nodes, 5)
        nodes.launch(away)
        await nodes.agree()
        assert "checkpoint taken" not in nodes.log(away)

        await nodes.kill(away)
        known |= await write(nodes, 40, RECORD)
        last = int((await servers.ask("STREAM.INFO.truba"))["state"]["last_seq"]) - 5
        await until(trimmed)
        nodes.launch(away)
        await nodes.agree()
        assert nodes.log(away).count("checkpoint taken from a peer") == 1

        assert await nodes.stop(away) == 0
        shutil.rmtree(nodes.data(away))
        nodes.launch(away)
        await nodes.agree()
        assert nodes.log(away).count("checkpoint taken from a peer") == 2

        # What came so is as good as any other copy: it leads alone with one more, and the third comes back to it.
        await nodes.step_down(await nodes.leader(), away)
        assert await nodes.leader() == away
        known |= await write(nodes, 3)
        await nodes.agree()
        assert await records_of(nodes) == known


@pytest.mark.timeout(150)
async def test_a_node_that_dies_while_a_checkpoint_arrives_starts_over(tmp_path: Path) -> None:
    """Before anything of it has come, when some files are there, and when most of them are."""
    async with (
        await NatsServers.start(tmp_path / "nats", 3) as servers,
        Nodes(
            tmp_path / "nodes", servers, node='checkpoint = "1MiB"\nsegment = "1MiB"', cluster='keep = "64KiB"'
        ) as nodes,
        AsyncExitStack() as open_,
    ):

        async def trimmed() -> bool:
            return int((await servers.ask("STREAM.INFO.truba"))["state"]["first_seq"]) > 1

        await nodes.start()
        leader = await nodes.leader()
        away = next(name for name in nodes.names if name != leader)
        await nodes.kill(away)
        shutil.rmtree(nodes.data(away))
        known = await write(nodes, 60, os.urandom(400_000))
        await until(trimmed)

        relays: list[HoldingRelay] = []
        for name in set(nodes.names) - {away}:
            relays.append(await open_.enter_async_context(HoldingRelay(nodes.peers[name])))
            text = nodes.config(away).read_text()
            assert text.count(f'peers = "{nodes.peers[name]}"') == 1
            nodes.config(away).write_text(text.replace(str(nodes.peers[name]), str(relays[-1].address)))

        incoming = nodes.data(away) / "incoming"

        def arrived_bytes() -> int:
            return sum(path.stat().st_size for path in incoming.rglob("*") if path.is_file())

        for pass_bytes in (0, 3 * MIB, 20 * MIB):

            async def held(there_bytes: int = pass_bytes - 2 * MIB) -> bool:
                """What was let through has been written, but for a piece of at most 1 MiB, and what stands around."""
                return any(relay.holds for relay in relays) and incoming.exists() and arrived_bytes() >= there_bytes

            for relay in relays:
                relay.pass_bytes = pass_bytes
            nodes.launch(away)
            await until(held, 60)
            await nodes.kill(away)
            assert "checkpoint installed" not in nodes.log(away)
            assert (incoming / "store.part").exists() == (pass_bytes > 0)
            assert not (incoming / "store").exists()

        for relay in relays:
            relay.pass_bytes = None
        nodes.launch(away)
        await nodes.agree()
        assert nodes.log(away).count("checkpoint installed") == 1
        assert not incoming.exists()
        assert await records_of(nodes) == known
