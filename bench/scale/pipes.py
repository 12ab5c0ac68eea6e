"""Pipes to measure, the loads put on them, and what a process takes of memory."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Collection, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

from truba.compose import Parts, build, default_transports
from truba.embedded import EmbeddedPipe
from truba.kinds import Kind
from truba.node.node import Node
from truba.node.owners import Owner
from truba.ports.transport import Route

ASLEEP, LOCAL, SERVICE, WORK = 7, 8, 9, 10
"""Kinds: due in a year; due now, for a handler in the process, for a handler service; new work."""

RECORD_BYTES, RECORDS_EACH = 100, 3
RECORD = b"x" * RECORD_BYTES
CONCURRENCY = 256
CLIENTS = 64


class ClosedRoute:
    """Nobody there: what is due stays so."""

    def start(self, node: Node, wake: Callable[[], None]) -> None:
        pass

    def seat(self, kind: int) -> Owner | None:
        return None

    def state(self) -> str:
        return "closed"

    async def stop(self) -> None:
        pass


def _closed(address: str, kinds: Collection[Kind]) -> Route:
    return ClosedRoute()


def kinds(**handlers: object) -> list[Kind]:
    """All kinds; those named have a handler, the others none."""
    return [
        Kind(
            number,
            name,
            handlers.get(name, f"closed:{name}"),  # type: ignore[arg-type]
            concurrency=CONCURRENCY,
            max_age_s=0,
            session_records_max=1_000_000,
            recovery_delay_s=3600,
        )
        for number, name in ((ASLEEP, "asleep"), (LOCAL, "local"), (SERVICE, "service"), (WORK, "work"))
    ]


@asynccontextmanager
async def pipe(data: Path, of: Sequence[Kind] | None = None) -> AsyncIterator[EmbeddedPipe]:
    parts: Parts = build(data, of or kinds(), transports=default_transports() | {"closed": _closed})
    try:
        await parts.node.start()
        yield EmbeddedPipe(parts, data)
    finally:
        await parts.close()


async def work(on: EmbeddedPipe, seconds: float, keep_one_in: int = 0) -> int:
    """CLIENTS tasks that open, append twice and delete, one operation after the other; operations done.

    `keep_one_in`: of so many sessions one is stored for an hour instead of deleted.
    """
    until_s = time.perf_counter() + seconds
    done = 0

    async def client(number: int) -> None:
        nonlocal done
        at = number
        while time.perf_counter() < until_s:
            session = await on.new(WORK, RECORD)
            await session.append(RECORD)
            await session.append(RECORD)
            at += 1
            if keep_one_in and at % keep_one_in == 0:
                await session.store(3600)
            else:
                await session.delete()
            done += 4

    await asyncio.gather(*(client(number) for number in range(CLIENTS)))
    return done


def memory_mib(pid: int | str = "self") -> float:
    """Anonymous memory of a process that is resident: without files that the system caches."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("RssAnon"):
            return int(line.split()[1]) / 1024
    raise RuntimeError("the system does not tell what memory a process has")


def bytes_in(directory: Path) -> int:
    return sum(path.stat().st_size for path in directory.rglob("*") if path.is_file())
