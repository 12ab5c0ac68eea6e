"""The worker that holds the pipe itself: tasks of one process, each doing one session after the other.

Clients and pipe share the process, so what the tasks themselves cost is in the figures.
"""

from __future__ import annotations

import asyncio
import sys
from collections import defaultdict
from time import perf_counter
from typing import TYPE_CHECKING

import msgspec

from truba.bench.latency import counting
from truba.bench.machine import busy_s, own_cpu
from truba.bench.worker import Measure, Order, answer, receive, trouble
from truba.errors import TrubaError

if TYPE_CHECKING:
    from truba.embedded import EmbeddedPipe
    from truba.session import RepeatData

APPENDS = 3


class Setup(msgspec.Struct, frozen=True):
    data: str  # directory of the pipe
    kind: int
    record_bytes: int


async def finish(repeat: RepeatData) -> None:
    """The handler of measured sessions: nothing is left to do for one that was cut short."""


class _Tasks:
    """Clients of one measurement."""

    def __init__(self, pipe: EmbeddedPipe, setup: Setup) -> None:
        self._pipe = pipe
        self._kind = setup.kind
        self._record = bytes(setup.record_bytes)
        self._going = True
        self._counts: defaultdict[int, int] = counting()

    async def _client(self) -> None:
        new, kind, record, counts, now = self._pipe.new, self._kind, self._record, self._counts, perf_counter
        while self._going:
            begun = now()
            session = await new(kind)
            ended = now()
            counts[int((ended - begun) * 1e6)] += 1
            for _ in range(APPENDS):
                begun = ended
                await session.append(record)
                ended = now()
                counts[int((ended - begun) * 1e6)] += 1
            begun = ended
            await session.delete()
            counts[int((now() - begun) * 1e6)] += 1

    async def measure(self, order: Order) -> Measure:
        """TrubaError: the first refusal of many."""
        try:
            return await self._measure(order)
        except ExceptionGroup as group:
            raise group.exceptions[0] from group

    async def _measure(self, order: Order) -> Measure:
        async with asyncio.TaskGroup() as group:
            for _ in range(order.clients):
                group.create_task(self._client())
            await asyncio.sleep(order.warm_s)
            self._counts.clear()
            begun, before, busy = perf_counter(), own_cpu(), busy_s()
            await asyncio.sleep(order.measure_s)
            seconds, used = perf_counter() - begun, own_cpu().since(before)
            busy = busy_s() - busy
            counts = dict(self._counts)
            self._going = False
        operations = max(1, sum(counts.values()))
        return Measure(
            seconds,
            counts,
            sum(used) / seconds,
            used.user_s / operations * 1e6,
            used.system_s / operations * 1e6,
            max(0.0, busy - sum(used)) / seconds,
        )


async def _work(setup: Setup) -> None:
    import truba

    kind = truba.Kind(setup.kind, "bench", handler=finish)
    async with truba.open(setup.data, kinds=[kind]) as pipe:
        while (order := await asyncio.to_thread(receive, Order)) is not None:
            answer(await _Tasks(pipe, setup).measure(order))


def main() -> int:
    import uvloop

    setup = receive(Setup)
    if setup is None:
        return 0
    try:
        uvloop.run(_work(setup))
    except (TrubaError, OSError) as error:
        answer(trouble(error))
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
