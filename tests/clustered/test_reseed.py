"""A stream that was lost, and a pipe that was alone: both become a cluster again, with real servers and nodes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import truba
from tests.clustered.support import records_of, run_truba
from truba.streams.jetstream import JetStream
from truba.testing.nats import NatsServers
from truba.testing.nodes import KIND, Nodes


@pytest.mark.timeout(240)
async def test_g1_a_stream_that_was_deleted_is_made_anew_with_all_that_was_acknowledged(tmp_path: Path) -> None:
    async with (
        await NatsServers.start(tmp_path / "nats", 3) as servers,
        Nodes(tmp_path / "nodes", servers, cluster='keep = "1MiB"') as nodes,
    ):
        await nodes.start()
        known: dict[str, list[bytes]] = {}
        async with truba.connect(nodes.urls, connect_timeout_s=30) as pipe:
            for n in range(50):
                session = await pipe.new(7, b"%d" % n)
                await session.append(b"more")
                await session.store(3600)
                known[str(session.id)] = [b"%d" % n, b"more"]
        await nodes.agree()
        stream = await JetStream.connect(servers.settings())
        await stream.remove()
        await stream.close()
        for name in nodes.names:
            assert await nodes.wait(name, 60) == 70
            assert "LOG_REGRESSION" in nodes.log(name)
        code, out, err = await run_truba("cluster", "reseed", "--yes", "--json", "-c", str(nodes.config("b")))
        assert code == 0, err
        assert json.loads(out)["messages"] > 1
        for name in ("b", "a", "c"):
            nodes.launch(name)
        await nodes.leader()
        await nodes.agree()
        assert await records_of(nodes) == known


@pytest.mark.timeout(240)
async def test_a_pipe_that_was_alone_becomes_a_cluster(tmp_path: Path) -> None:
    kind = truba.Kind(7, "transfer", handler="truba://127.0.0.1:1")
    known: dict[str, list[bytes]] = {}
    async with truba.open(tmp_path / "alone", kinds=[kind]) as pipe:
        for n in range(20):
            session = await pipe.new(7, b"%d" % n)
            if n % 2:
                await session.delete()
            else:
                await session.store(3600)
                known[str(session.id)] = [b"%d" % n]
    async with (
        await NatsServers.start(tmp_path / "nats", 3) as servers,
        Nodes(tmp_path / "nodes", servers, kinds=KIND) as nodes,
    ):
        config = str(nodes.config("a"))
        code, out, err = await run_truba("cluster", "import", str(tmp_path / "alone"), "-c", config, "--json")
        assert code == 0, err
        assert json.loads(out)["tail"].startswith("1-")
        code, _, err = await run_truba("cluster", "import", str(tmp_path / "alone"), "-c", config)
        assert code != 0
        assert "not empty" in err
        nodes.launch("a")
        await nodes.leader()
        nodes.launch("b")
        nodes.launch("c")
        await nodes.agree()
        assert await records_of(nodes) == known
        async with truba.connect(nodes.urls) as pipe:
            session = await pipe.new(7, b"goes on")
            assert session.id.term > 1
        assert (await nodes.agree()).seq > 40
