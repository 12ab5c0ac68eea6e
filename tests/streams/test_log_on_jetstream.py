"""The contract of every log, kept by the log of a leader on real JetStream and a real disk."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from tests.cluster.logs import lead
from tests.log.support import FaultyDisk
from tests.streams.fresh import CLUSTER, connected, emptied
from truba.codec.chain import Chain
from truba.log.file import FileLog
from truba.ports.log import Log
from truba.streams.jetstream import JetStream
from truba.testing.log import LogSuite
from truba.testing.nats import NatsServers

Opener = Callable[[], Awaitable[Log]]


class OnJetStream(LogSuite):
    window = 4

    def opening(self, servers: NatsServers, directory: Path) -> Opener:
        asyncio.run(emptied(servers))
        self.disk = FaultyDisk()
        connections: list[JetStream] = []
        keepers: list[asyncio.Task[None]] = []

        async def open_again() -> Log:
            self.disk.fails = lambda name, number: None
            if not connections:  # one for the whole test: what a closed log had under way may still arrive on it
                connections.append(await connected(servers))
                keepers.append(asyncio.create_task(_keep(connections[0])))
            own = FileLog.open(directory / "log", reserve_bytes=0, disk=self.disk, log_id=CLUSTER)
            return await lead(connections[0], Chain(CLUSTER), own, window=self.window)

        return open_again

    def break_log(self, log: Log) -> None:
        self.disk.fails = lambda name, number: 5 if name == "fdatasync" else None


async def _keep(stream: JetStream) -> None:
    """Until the test's loop ends."""
    try:
        await asyncio.Event().wait()
    finally:
        await stream.close()


class TestOnOneServer(OnJetStream):
    @pytest.fixture
    def opener(self, server: NatsServers, tmp_path: Path) -> Opener:
        return self.opening(server, tmp_path)


class TestOneByOne(OnJetStream):
    window = 1

    @pytest.fixture
    def opener(self, server: NatsServers, tmp_path: Path) -> Opener:
        return self.opening(server, tmp_path)


class TestOnThreeServers(OnJetStream):
    @pytest.fixture
    def opener(self, trio: NatsServers, tmp_path: Path) -> Opener:
        return self.opening(trio, tmp_path)
