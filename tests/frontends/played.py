"""A leader played by the test: says that it leads, and then whatever the test says."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from truba.address import Address
from truba.frontends.relay import LEADER, LEADS


class Leader:
    """`taken`: connections, with the question whether it leads already answered."""

    def __init__(self, says: bytes | None = LEADS) -> None:
        self.taken: asyncio.Queue[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = asyncio.Queue()
        self.connections = 0
        self._says = says
        self._writers: list[asyncio.StreamWriter] = []

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        self._writers.append(writer)
        assert await reader.readexactly(len(LEADER)) == LEADER
        if self._says is not None:
            writer.write(self._says)
            self.taken.put_nowait((reader, writer))

    async def accept(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        async with asyncio.timeout(20):
            return await self.taken.get()

    @asynccontextmanager
    async def running(self) -> AsyncIterator[Address]:
        server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        try:
            yield Address(*server.sockets[0].getsockname())
        finally:
            server.close()
            for writer in self._writers:
                writer.transport.abort()
            await asyncio.sleep(0)
