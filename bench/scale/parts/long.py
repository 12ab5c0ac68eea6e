"""One session with very many records: is an append ever dearer, and how long does its hand-over take?"""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

import truba
from bench.scale.child import say_result
from bench.scale.pipes import LOCAL, RECORD, kinds, pipe
from bench.scale.results import Long

PARTS = 10


async def measure(data: str, records: int) -> None:
    got: asyncio.Future[tuple[int, float]] = asyncio.get_running_loop().create_future()

    async def handle(repeat: truba.RepeatData) -> None:
        got.set_result((len(repeat.records), time.perf_counter()))

    async with pipe(Path(data), kinds(local=handle)) as one:
        session = await one.new(LOCAL)
        per_s = []
        for _ in range(PARTS):
            began_s = time.perf_counter()
            for _ in range(records // PARTS):
                await session.append(RECORD)
            per_s.append(records // PARTS / (time.perf_counter() - began_s))
            await one.node.checkpoint()  # so that its records lie in as many chunks
        began_s = time.perf_counter()
        await session.store(0)
        count, at_s = await got
        assert count == records // PARTS * PARTS, count
        found = Long(count, tuple(per_s), (at_s - began_s) * 1e3)
    say_result(found)
