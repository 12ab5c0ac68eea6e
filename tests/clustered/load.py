"""Clients at work on a real cluster, and a model of what they were told, to be held against what is there."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import AsyncIterator, Awaitable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import TypeVar

import truba
from truba.client.admin import Admin
from truba.errors import OperationError
from truba.testing.nodes import Nodes
from truba.types import Index

T = TypeVar("T")

Sessions = dict[Index, tuple[bytes, ...]]
"""Their records."""

CLIENTS = 6
KIND = 7


async def sessions_of(nodes: Nodes) -> Sessions:
    """All sessions of the kind, as the leader shows them."""
    async with Admin.over(f"truba://{nodes.clients[await nodes.leader()]}") as admin:
        return {info.id: tuple((await admin.show(info.id))[1]) async for info in admin.ls(KIND)}


@dataclass
class Job:
    """What a client knows of its session."""

    records: tuple[bytes, ...]
    maybe: tuple[bytes, ...] | None = None  # its records, if the one operation that had no answer happened
    deleted: bool = False
    maybe_deleted: bool = False

    def fits(self, found: tuple[bytes, ...] | None) -> bool:
        """Can that be there, after what was told? None: no such session."""
        if found is None:
            return self.maybe_deleted
        return not self.deleted and found in (self.records, self.maybe)


@dataclass
class Load:
    """`jobs`: all that was acknowledged. `unknown_news`: sessions that may be there without anybody's knowing an id.
    `before`: what was there already, and is there to stay."""

    nodes: Nodes
    seed: int
    before: Sessions
    jobs: dict[Index, Job] = field(default_factory=dict)
    unknown_news: int = 0
    acknowledged: int = 0
    last_sent_s: float = 0.0  # when the latest operation that was acknowledged had been sent
    over: bool = False

    async def goes_on(self, timeout_s: float = 45.0) -> float:
        """Until something is acknowledged that is sent from now on; the seconds that took."""
        start_s = time.monotonic()
        async with asyncio.timeout(timeout_s):
            while self.last_sent_s <= start_s:  # noqa: ASYNC110 one poll for hundreds of operations
                await asyncio.sleep(0.01)
        return time.monotonic() - start_s

    async def client(self, n: int) -> None:
        """Each through another node first, and with a grace: its connections break again and again."""
        dice = random.Random(self.seed * 100 + n)
        urls = [*self.nodes.urls[n % len(self.nodes.names) :], *self.nodes.urls[: n % len(self.nodes.names)]]
        async with truba.connect(urls, connect_timeout_s=30, timeout_s=60, grace_s=60, insecure=True) as pipe:
            while not self.over:
                try:
                    await self._job(pipe, dice)
                except OperationError as error:
                    if error.happened == "no" and error.again == "never":
                        raise
                    await asyncio.sleep(0.05)

    async def _job(self, pipe: truba.Pipe, dice: random.Random) -> None:
        record = dice.randbytes(dice.randrange(1, 200))
        try:
            session = await self._told(pipe.new(KIND, record))
        except OperationError as error:
            self.unknown_news += error.happened != "no"
            raise
        job = self.jobs[session.id] = Job((record,))
        for _ in range(dice.randrange(4)):
            record = dice.randbytes(dice.randrange(1, 200))
            replaces = dice.random() < 0.2
            job.maybe = (record,) if replaces else (*job.records, record)
            await self._told(session.replace(record) if replaces else session.append(record))
            job.records, job.maybe = job.maybe, None
        if dice.random() < 0.2:
            await self._told(session.store(86_400))
        else:
            job.maybe_deleted = True
            await self._told(session.delete())
            job.deleted = True

    async def _told(self, operation: Awaitable[T]) -> T:
        sent_s = time.monotonic()
        answer = await operation
        self.last_sent_s = max(self.last_sent_s, sent_s)
        self.acknowledged += 1
        return answer

    async def check(self) -> None:
        """All nodes agree; all that was acknowledged is there, and nothing that nobody has written."""
        await self.nodes.agree()
        found = await sessions_of(self.nodes)
        wrong = {each: (job, found.get(each)) for each, job in self.jobs.items() if not job.fits(found.get(each))}
        assert wrong == {}
        others = {each: records for each, records in found.items() if each not in self.jobs}
        assert self.before.items() <= others.items()
        assert len(others) - len(self.before) <= self.unknown_news


@asynccontextmanager
async def loaded(nodes: Nodes, seed: int = 0) -> AsyncIterator[Load]:
    """Clients work; at the end they stop by themselves, and the model is held against the cluster."""
    load = Load(nodes, seed, await sessions_of(nodes))
    clients = [asyncio.create_task(load.client(n)) for n in range(CLIENTS)]
    try:
        await load.goes_on()
        yield load
        load.over = True
        async with asyncio.timeout(60):
            await asyncio.gather(*clients)
    finally:
        for each in clients:
            each.cancel()
        await asyncio.gather(*clients, return_exceptions=True)
    await load.check()
