"""A stream that was lost, and a pipe that was alone: both become a cluster again, with real servers and nodes."""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path

import pytest

import truba
from truba.streams.jetstream import JetStream
from truba.testing.nats import NatsServers
from truba.testing.nodes import KIND, Nodes


async def run_truba(*args: str) -> tuple[int, str, str]:
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "truba", *args, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
    )
    out, err = await asyncio.wait_for(process.communicate(), 60)
    assert process.returncode is not None
    return process.returncode, out.decode(), err.decode()


async def records_of(nodes: Nodes) -> dict[str, list[bytes]]:
    """All sessions with their records, as the leader shows them."""
    found: dict[str, list[bytes]] = {}
    async with truba.connect(nodes.urls, connect_timeout_s=30) as pipe:
        _, sessions = await pipe.request(b"LS", read=True)
        for session in sessions:
            fields = dict(zip(session[::2], session[1::2], strict=True))
            shown = await pipe.request(b"SHOW", fields[b"id"], read=True)
            shown = dict(zip(shown[::2], shown[1::2], strict=True))
            found[fields[b"id"].decode()] = shown[b"records"]
    return found


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
