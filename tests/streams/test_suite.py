"""The contract of every stream, in memory and on JetStream."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from tests.streams.fresh import connected, emptied
from truba.ports.stream import Stream
from truba.streams.jetstream import JetStream
from truba.streams.memory import MemoryStream, Sea
from truba.testing.nats import NatsServers
from truba.testing.stream import StreamSuite


class TestMemoryStream(StreamSuite):
    @pytest.fixture
    def opener(self) -> Callable[[], Stream]:
        sea = Sea()
        return lambda: MemoryStream(sea)

    async def remove(self, stream: Stream) -> None:
        assert isinstance(stream, MemoryStream)
        stream.sea.gone = True


class TestJetStream(StreamSuite):
    @pytest.fixture
    def opener(self, server: NatsServers) -> Callable[[], Awaitable[Stream]]:
        asyncio.run(emptied(server))
        return lambda: connected(server)

    async def remove(self, stream: Stream) -> None:
        assert isinstance(stream, JetStream)
        await stream.remove()
