"""The same handler services on real sockets, for a pipe that is a process of its own."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from tests.hell.handlers import Id, Record, Service


class Guest(Record):
    """A record that knows nothing of what was written: for sessions that somebody else opens."""

    def __init__(self, kind: int, credit: int = 64) -> None:
        super().__init__(kind, random.Random(kind), lambda: round(time.time() * 1000), credit)

    def take(self, id_text: Id, epoch: int, attempt: int, records: list[bytes]) -> None:
        self.written.setdefault(id_text, [records[0]])
        super().take(id_text, epoch, attempt, records)


class Place:
    """Where a handler service listens. `make` may be changed at any time; `mend` also ends what is connected."""

    def __init__(self, record: Record, make: Callable[[Record], Service]) -> None:
        self.record = record
        self.make = make
        self.url = ""
        self.dials = 0
        self.peak = 0
        self._services: list[Service] = []

    def serve(self) -> Service:
        self._services = [service for service in self._services if service.up]
        service = self.make(self.record)
        self._services.append(service)
        self.dials += 1
        self.peak = max(self.peak, len(self._services))
        return service

    def mend(self, make: Callable[[Record], Service] = Service) -> None:
        self.make = make
        self.hang_up()

    def hang_up(self) -> None:
        for service in self._services:
            service.hang_up()


@asynccontextmanager
async def place(record: Record, make: Callable[[Record], Service], port: int = 0) -> AsyncIterator[Place]:
    there = Place(record, make)
    server = await asyncio.get_running_loop().create_server(there.serve, "127.0.0.1", port)
    there.url = f"truba://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    try:
        yield there
    finally:
        server.close()
        there.hang_up()
        await server.wait_closed()
        await asyncio.sleep(0)
