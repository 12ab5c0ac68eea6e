"""A peer that follows a script: for what a real pipe would not do, or not now."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import hiredis

Answer = Callable[[list[bytes]], bytes | None]
"""A request -> the bytes of its answer; None: silence."""


class Scripted:
    """Answers each request as `answer` says. `said` is all that was asked, in order."""

    def __init__(self, answer: Answer) -> None:
        self.answer = answer
        self.said: list[list[bytes]] = []
        self.chunks = 0  # reads, which are the client's writes
        self.connections = 0
        self.transports: set[asyncio.Transport] = set()

    async def __aenter__(self) -> Scripted:
        self._server = await asyncio.get_running_loop().create_server(lambda: _Peer(self), "127.0.0.1", 0)
        host, port = self._server.sockets[0].getsockname()
        self.url = f"truba://{host}:{port}"
        return self

    async def __aexit__(self, *error: object) -> None:
        self._server.close()
        self.cut()
        await asyncio.sleep(0)

    def cut(self) -> None:
        for transport in list(self.transports):
            transport.abort()


class _Peer(asyncio.Protocol):
    def __init__(self, script: Scripted) -> None:
        self._script = script
        self._reader = hiredis.Reader()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        self._script.transports.add(transport)
        self._script.connections += 1

    def connection_lost(self, error: Exception | None) -> None:
        self._script.transports.discard(self._transport)

    def data_received(self, data: bytes) -> None:
        self._script.chunks += 1
        self._reader.feed(data)
        while (request := self._reader.gets()) is not False:
            self._script.said.append(request)
            answer = self._script.answer(request)
            if answer is not None:
                self._transport.write(answer)


def pleased(request: list[bytes]) -> bytes:
    """A pipe that takes everything and holds nothing."""
    match request[0]:
        case b"LEADER":
            return b"$-1\r\n"
        case b"OWNER":
            return b"*0\r\n"
        case b"NEW":
            return b"$3\r\n1-1\r\n"
        case _:
            return b"+OK\r\n"
