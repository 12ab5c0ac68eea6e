"""A real pipe in memory behind real sockets, and a proxy that cuts the wire where the test says."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from contextlib import asynccontextmanager

from truba.codec.batch import decode_batch
from truba.frontends.listening import Listen, bind
from truba.frontends.resp import RespFrontend
from truba.kinds import Backoff, Kind
from truba.log.memory import MemoryLog, Shelf
from truba.node.node import Node
from truba.ports.transport import Route
from truba.store.memory import MemoryStore
from truba.types import Phase
from truba.wire.connection import WireSettings

SEVEN = Kind(7, "seven", handler="played:", recovery_delay_s=0.0, jitter_s=0.0, backoff=Backoff(0.0, 1.0, 0.0))


class NoRoute:
    """A handler that is never there: unfinished sessions stay stored."""

    def start(self, node: object, wake: object) -> None: ...

    def seat(self, kind: int) -> None:
        return None

    def state(self) -> str:
        return "never there"

    async def stop(self) -> None: ...


class Served:
    """A pipe that survives `restart`: its log and store stay, its connections and its memory do not."""

    def __init__(self, kinds: Iterable[Kind], routes: Mapping[int, Route] | None, settings: WireSettings) -> None:
        self.kinds = tuple(kinds)
        self.routes = routes
        self.settings = settings
        self.shelf = Shelf()
        self.store = MemoryStore()
        self.listen = "127.0.0.1:0"

    async def start(self) -> None:
        self.log = MemoryLog(self.shelf)
        routes = {kind.number: NoRoute() for kind in self.kinds} | dict(self.routes or {})
        self.node = Node(self.log, self.store, self.kinds, routes)
        await self.node.start()
        self.listening = await bind(Listen(tcp=self.listen))
        self.frontend = RespFrontend(self.listening, self.settings)
        await self.frontend.start(self.node)
        assert self.listening.bound is not None
        self.listen = f"127.0.0.1:{self.listening.bound[1]}"

    async def stop(self) -> None:
        self.listening.close()
        await self.frontend.stop()
        await self.node.stop()

    async def kill(self) -> None:
        """As kill -9: what was not durable is gone, nobody was told anything."""
        self.node.give_up(RuntimeError("killed"))
        self.listening.close()
        for connection in self.frontend.connections:  # a killed process says no farewell
            if connection.transport is not None:
                connection.transport.abort()
        await self.frontend.stop()
        await self.node.checkpointer.close()

    @property
    def url(self) -> str:
        return f"truba://{self.listen}"

    async def events(self) -> Counter[str]:
        """How often each kind of event is in the log."""
        await self.node.sequencer.flush()
        return Counter(type(event).__name__ for batch, _ in self.log.read(0) for event in decode_batch(batch.body))

    async def sessions(self) -> list[tuple[Phase, list[bytes]]]:
        """Every session: its phase, its records."""
        await self.node.sequencer.flush()
        machine = self.node.machine
        return [(head.phase, list(machine.records(head.number))) for head in machine.scan(0)]


@asynccontextmanager
async def served(
    *kinds: Kind, routes: Mapping[int, Route] | None = None, settings: WireSettings | None = None
) -> AsyncIterator[Served]:
    pipe = Served(kinds or (SEVEN,), routes, settings or WireSettings())
    await pipe.start()
    try:
        yield pipe
    finally:
        await pipe.stop()


async def until(true: Callable[[], bool]) -> None:
    """For what another process, or the other end of a socket, does in its own time."""
    async with asyncio.timeout(20):
        while not true():  # noqa: ASYNC110 - nobody would set an event
            await asyncio.sleep(0.001)


class Proxy:
    """Passes bytes on, and cuts connections: the n-th one by the n-th cut, later ones never.

    A cut is `("up", k)`: the pipe gets exactly k bytes of the client and then the end, the client gets nothing more;
    or `("down", k)`: the client gets exactly k bytes of the pipe and then the end.
    """

    def __init__(self, target: str, cuts: Iterable[tuple[str, int]] = ()) -> None:
        self._host, port = target.split(":")
        self._port = int(port)
        self._cuts = iter(cuts)
        self.taken = 0  # connections so far
        self.up_bytes = self.down_bytes = 0  # of the first connection
        self.alive: set[asyncio.Transport] = set()
        self.open = True

    async def __aenter__(self) -> Proxy:
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(lambda: _Near(self), "127.0.0.1", 0)
        self.address = f"127.0.0.1:{self._server.sockets[0].getsockname()[1]}"
        return self

    async def __aexit__(self, *error: object) -> None:
        self._server.close()
        self.cut()
        await asyncio.sleep(0)

    @property
    def url(self) -> str:
        return f"truba://{self.address}"

    def cut(self) -> None:
        """Every connection, now."""
        for transport in list(self.alive):
            transport.abort()

    def next_cut(self) -> tuple[str, int]:
        self.taken += 1
        return next(self._cuts, ("", 0))

    async def connect_far(self, near: _Near) -> asyncio.Transport:
        loop = asyncio.get_running_loop()
        transport, _ = await loop.create_connection(lambda: _Far(near), self._host, self._port)
        return transport


class _Near(asyncio.Protocol):
    """The client's half."""

    def __init__(self, proxy: Proxy) -> None:
        self.proxy = proxy
        self.where, self.left = proxy.next_cut()
        self.first = proxy.taken == 1
        self.early = b""
        self.far: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport
        self.proxy.alive.add(transport)
        if not self.proxy.open:
            transport.abort()
            return
        self.task = asyncio.get_running_loop().create_task(self._join())

    async def _join(self) -> None:
        try:
            self.far = await self.proxy.connect_far(self)
        except OSError:
            self.transport.abort()
            return
        early, self.early = self.early, b""
        self._up(early)

    def data_received(self, data: bytes) -> None:
        if self.far is None:
            self.early += data
        else:
            self._up(data)

    def _up(self, data: bytes) -> None:
        assert self.far is not None
        if self.first:
            self.proxy.up_bytes += len(data)
        if self.where == "up":
            data = data[: self.left]
            self.left -= len(data)
            self.far.write(data)
            if not self.left:
                self.transport.abort()
        else:
            self.far.write(data)

    def down(self, data: bytes) -> None:
        if self.first:
            self.proxy.down_bytes += len(data)
        if self.transport.is_closing():
            return
        if self.where == "down":
            data = data[: self.left]
            self.left -= len(data)
            self.transport.write(data)
            if not self.left:
                self.transport.close()
        else:
            self.transport.write(data)

    def connection_lost(self, error: Exception | None) -> None:
        self.proxy.alive.discard(self.transport)
        if self.far is not None:
            self.far.close()


class _Far(asyncio.Protocol):
    """The pipe's half."""

    def __init__(self, near: _Near) -> None:
        self.near = near

    def data_received(self, data: bytes) -> None:
        self.near.down(data)

    def connection_lost(self, error: Exception | None) -> None:
        if not self.near.transport.is_closing():
            self.near.transport.close()


__all__ = ["SEVEN", "Proxy", "Served", "served", "until"]
