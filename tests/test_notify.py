"""What a service manager hears: READY when clients are served, STOPPING when asked to stop; nothing without one."""

from __future__ import annotations

import asyncio
import signal
import socket
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import structlog

from tests.service.process import PATIENCE_S, Child, Servers, kind, servers
from truba.notify import notify
from truba.testing.nats import NatsServers
from truba.testing.nodes import Nodes


class Manager:
    """The receiving end of NOTIFY_SOCKET."""

    def __init__(self, address: str) -> None:
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.settimeout(PATIENCE_S)
        self.socket.bind(address)

    def heard(self) -> list[str]:
        """The lines of the next message."""
        return self.socket.recv(4096).decode().split("\n")

    def wait_for(self, line: str) -> list[str]:
        while line not in (said := self.heard()):
            pass  # what it waits for comes before
        return said


@pytest.fixture
def manager(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Manager]:
    path = str(tmp_path / "notify")
    monkeypatch.setenv("NOTIFY_SOCKET", path)
    made = Manager(path)
    yield made
    made.socket.close()


@pytest.fixture
def pipes(tmp_path: Path) -> Iterator[Servers]:
    yield from servers(tmp_path)


def test_one_message_has_a_line_for_each_field(manager: Manager) -> None:
    notify(READY="1", STATUS="two\nlines, READY=0")
    assert manager.heard() == ["READY=1", "STATUS=two lines, READY=0"]


def test_an_abstract_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = Manager(f"\0{tmp_path}")
    monkeypatch.setenv("NOTIFY_SOCKET", f"@{tmp_path}")
    notify(STOPPING="1")
    assert made.heard() == ["STOPPING=1"]
    made.socket.close()


def test_without_a_manager_nothing_is_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NOTIFY_SOCKET", raising=False)
    with structlog.testing.capture_logs() as logged:
        notify(READY="1")
    assert logged == []


def test_a_manager_that_is_gone_is_told_in_the_log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "nobody"))
    with structlog.testing.capture_logs() as logged:
        notify(READY="1")
    assert [(entry["event"], entry["message"]) for entry in logged] == [
        ("the service manager was not told", "READY=1"),
    ]


def test_a_pipe_tells_when_it_serves_and_when_it_stops(manager: Manager, pipes: Servers) -> None:
    server = pipes.start()
    assert manager.heard() == ["READY=1", "STATUS=serving, term 1"]
    assert server.terminate() == 0
    assert manager.heard() == ["STOPPING=1"]


def test_a_node_tells_what_it_waits_for(manager: Manager, pipes: Servers) -> None:
    """Not ready, and not to be given up: NATS may come later than the node."""
    (pipes.directory / "secret").write_text("between the nodes only")
    config = pipes.configure(
        '[cluster]\nservers = ["nats://127.0.0.1:1"]\nsecret_file = "secret"\n'
        '[cluster.nodes]\na = { clients = "127.0.0.1:2", peers = "127.0.0.1:3" }\n' + kind(),
        node='name = "a"',
    )
    node = Child([sys.executable, "-m", "truba", "serve", "--config", str(config)])
    try:
        assert manager.heard()[0].startswith("STATUS=waiting for NATS: ")
        node.send(signal.SIGTERM)
        assert node.wait() == 0
        assert manager.heard() == ["STOPPING=1"]
    finally:
        node.kill()


async def test_a_node_tells_when_it_follows(manager: Manager, tmp_path: Path) -> None:
    async with (
        await NatsServers.start(tmp_path / "nats", 1) as nats,
        Nodes(tmp_path / "nodes", nats, ["a"]) as nodes,
    ):
        nodes.launch("a")
        assert "STATUS=node a; its role: truba cluster status" in await asyncio.to_thread(manager.wait_for, "READY=1")
