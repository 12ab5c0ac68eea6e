"""Nodes that were away: they catch up from the stream, or take a peer's checkpoint when the stream was trimmed."""

from __future__ import annotations

import asyncio
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.clustered.support import records_of, until, write
from truba.testing.nats import NatsServers
from truba.testing.nodes import Nodes

KEEP = 64 << 10
RECORD = bytes(50_000)


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
    async with (
        await NatsServers.start(tmp_path / "nats", 3) as servers,
        Nodes(
            tmp_path / "nodes", servers, node='checkpoint = "1MiB"\nsegment = "1MiB"', cluster='keep = "64KiB"'
        ) as nodes,
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
        incoming = nodes.data(away) / "incoming"

        def arriving() -> bool:
            return any(path.stat().st_size for path in (incoming / "store.part").glob("*"))

        async def dies_when(there: Callable[[], bool]) -> None:
            nodes.launch(away)
            async with asyncio.timeout(30):
                while not there():  # noqa: ASYNC110 a poll so short that the transfer is met
                    await asyncio.sleep(0.001)
            await nodes.kill(away)
            assert "checkpoint installed" not in nodes.log(away)

        await dies_when(incoming.exists)
        await dies_when(arriving)
        await dies_when(arriving)
        nodes.launch(away)
        await nodes.agree()
        assert nodes.log(away).count("checkpoint installed") == 1
        assert not incoming.exists()
        assert await records_of(nodes) == known
