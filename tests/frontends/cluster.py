"""One client address that changes its role, real nodes in memory, and plain clients on streams."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from types import TracebackType
from typing import Any

import hiredis

from tests.client.inprocess import SEVEN, NoRoute
from truba.address import Address
from truba.frontends.listening import Listen, Listening, bind
from truba.frontends.relay import RelayFrontend
from truba.frontends.resp import RespFrontend
from truba.log.memory import MemoryLog
from truba.node.node import Node
from truba.store.memory import MemoryStore
from truba.tls import Contexts
from truba.wire.connection import WireSettings


class Place:
    """A client address that is bound once; leads, follows, or neither."""

    def __init__(
        self, listening: Listening, settings: WireSettings | None = None, relays: Contexts | None = None
    ) -> None:
        """`relays`: how its relay dials the others, if they speak TLS."""
        assert listening.bound is not None
        self.listening = listening
        self.address = Address(*listening.bound)
        self.url = f"truba://{self.address}"
        self.resp = RespFrontend(listening, settings or WireSettings())
        guarded = settings is not None and settings.authenticator is not None
        self.relay = RelayFrontend(listening, guarded=guarded, tls=relays)
        self.node: Node | None = None
        self._following = False

    async def lead(self, log: MemoryLog | None = None, store: MemoryStore | None = None) -> Node:
        """With a state of its own, or what another one has left."""
        await self.rest()
        node_log, node_store = log or MemoryLog(), store or MemoryStore()
        self.node = Node(node_log, node_store, [SEVEN], {7: NoRoute()})  # type: ignore[dict-item]
        await self.node.start()
        await self.resp.start(self.node)
        return self.node

    async def follow(self, leader: Address | None) -> None:
        if self._following:
            self.relay.follow(leader)
            return
        await self.rest()
        await self.relay.start(leader)
        self._following = True

    async def rest(self) -> None:
        if self._following:
            self._following = False
            await self.relay.stop()
        if self.node is not None:
            node, self.node = self.node, None
            await self.resp.stop()
            await node.stop()

    async def die(self) -> None:
        """As kill -9 would look from outside: no farewell, and nobody listens any more."""
        self.listening.close()
        if self.node is not None:
            self.node.give_up(RuntimeError("killed"))
            for connection in self.resp.connections:
                if connection.transport is not None:
                    connection.transport.abort()
        await self.rest()


@asynccontextmanager
async def place(*, connections_max: int = 10_000, unix: Path | None = None) -> AsyncIterator[Place]:
    made = Place(await bind(Listen("127.0.0.1:0", unix, connections_max)))
    try:
        yield made
    finally:
        made.listening.close()
        await made.rest()


class Talk:
    """One plain connection."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter

    def __init__(self, address: Address) -> None:
        self._address = address
        self._replies = hiredis.Reader()

    def send(self, *words: bytes) -> None:
        self.writer.write(b"*%d\r\n" % len(words) + b"".join([b"$%d\r\n%b\r\n" % (len(word), word) for word in words]))

    async def answer(self) -> Any:
        """The next one; an error as its text. EOFError at the end of the stream."""
        async with asyncio.timeout(20):
            while (found := self._replies.gets()) is False:
                data = await self.reader.read(1 << 16)
                if not data:
                    raise EOFError
                self._replies.feed(data)
        return str(found) if isinstance(found, hiredis.ReplyError) else found

    async def ask(self, *words: bytes) -> Any:
        self.send(*words)
        return await self.answer()

    async def said_something(self, within_s: float = 0.05) -> bool:
        """Whether an answer comes so soon, which is kept."""
        try:
            async with asyncio.timeout(within_s):
                data = await self.reader.read(1 << 16)
        except TimeoutError:
            return False
        self._replies.feed(data)
        return True

    async def ended(self) -> bool:
        """Nothing more is said, and the stream ends."""
        async with asyncio.timeout(20):
            try:
                return await self.reader.read(1) == b""
            except ConnectionError:
                return True

    async def __aenter__(self) -> Talk:
        self.reader, self.writer = await asyncio.open_connection(*self._address)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.writer.transport.abort()
        await asyncio.sleep(0)
