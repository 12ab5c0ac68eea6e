"""What a node refuses to start on, and what it says then."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest

from tests.clustered.support import run_truba, until
from truba.streams.jetstream import JetStream, stream_config
from truba.testing.nats import NatsConfig, NatsServers
from truba.testing.nodes import Nodes

pytestmark = pytest.mark.timeout(60)


def change(nodes: Nodes, old: str, new: str) -> None:
    """The configuration of node a."""
    text = nodes.config("a").read_text()
    assert old in text
    nodes.config("a").write_text(text.replace(old, new))


async def refused(nodes: Nodes, expected: int = 2) -> str:
    """What node a says as it refuses, with that exit code: 2 for its surroundings, 7 for its own data."""
    code, out, err = await run_truba("serve", "--json", "--config", str(nodes.config("a")))
    assert code == expected, (code, out, err)
    return out + err


async def test_servers_that_are_too_weak(tmp_path: Path) -> None:
    config = NatsConfig(sync="2m", max_payload="8MB")
    async with (
        await NatsServers.start(tmp_path / "nats", 1, config) as servers,
        Nodes(tmp_path / "nodes", servers, ["a"]) as nodes,
    ):
        said = await refused(nodes)
        assert "it acknowledges before it has synced (sync_interval is 120 s)" in said
        assert "sync_interval: always" in said
        assert "max_payload lets" in said
        assert "max_payload: 64MB" in said


async def test_what_is_configured_wrongly_and_a_directory_of_another_cluster(tmp_path: Path) -> None:
    async with (
        await NatsServers.start(tmp_path / "nats", 1) as servers,
        Nodes(tmp_path / "nodes", servers, ["a"]) as nodes,
    ):
        password = nodes.directory / "nats.secret"
        right = password.read_text()
        password.write_text("wrong")
        assert "uthorization" in await refused(nodes)
        password.write_text(right)

        system_user = 'system_user = "sys"\nsystem_password_file = "sys.secret"\n'
        change(nodes, system_user, "")
        said = await refused(nodes)
        assert "whether they sync what they store cannot be seen" in said
        assert "trust_servers = true" in said
        change(nodes, 'user = "truba"\n', 'trust_servers = true\nuser = "truba"\n')

        await nodes.start()  # with that it does start: nothing of what was refused has left a trace
        assert await nodes.stop("a") == 0
        stream = await JetStream.connect(servers.settings())
        await stream.remove()
        said = await refused(nodes, 7)
        assert "LOG_REGRESSION" in said
        assert "truba cluster reseed" in said

        await stream.create(bytes(range(16)))
        await stream.close()
        assert "000102030405060708090a0b0c0d0e0f" in await refused(nodes, 7)


async def test_a_stream_that_somebody_else_made_or_changed(tmp_path: Path) -> None:
    async with (
        await NatsServers.start(tmp_path / "nats", 3) as servers,
        Nodes(tmp_path / "nodes", servers, ["a"]) as nodes,
    ):
        settings = servers.settings()

        async def make(**changes: object) -> None:
            answer = await servers.ask("STREAM.CREATE.truba", stream_config(settings, bytes(16)) | changes)
            assert "error" not in answer, answer
            await servers.leader("truba")

        await make(num_replicas=1)
        said = await refused(nodes)
        assert "it has 1 replicas" in said
        assert "set its replicas to 3" in said
        assert (await servers.ask("STREAM.DELETE.truba"))["success"]

        await make(discard="old", max_age=3_600_000_000_000, allow_direct=True)
        said = await refused(nodes)
        assert "discard is 'old'" in said
        assert "max_age is 3600000000000" in said
        assert "allow_direct is True" in said
        assert (await servers.ask("STREAM.DELETE.truba"))["success"]

        await make(metadata={})
        assert "was not made by truba" in await refused(nodes)
        assert not any(nodes.data("a").glob("log/segment-*")), "nothing was begun"


async def test_a_node_that_waits_for_its_servers_can_be_stopped(tmp_path: Path) -> None:
    async with (
        await NatsServers.start(tmp_path / "nats", 1) as servers,
        Nodes(tmp_path / "nodes", servers, ["a"]) as nodes,
    ):
        await servers.stop("n1")
        nodes.launch("a")

        async def waiting() -> bool:
            return "waiting for NATS" in nodes.log("a")

        await until(waiting, 20)
        nodes.signal("a", signal.SIGTERM)
        assert await nodes.wait("a", 5) == 0
        assert "told to, before it was ready" in nodes.log("a")
