"""One turn of a load written in Python, in the language that bench/race/load.py reads.

Of the standard library alone: it also runs in virtual environments that hold nothing of truba.
"""

from __future__ import annotations

import asyncio
import json
import resource
import sys
import time
from collections import Counter
from collections.abc import Awaitable, Callable


async def turn(session: Callable[[], Awaitable[None]], clients: int, warm_s: float, measure_s: float) -> None:
    """So many tasks do one session after the other. Raises the first error of any of them."""
    counts: Counter[int] = Counter()
    going = True

    async def client() -> None:
        while going:
            begun = time.perf_counter()
            await session()
            counts[int((time.perf_counter() - begun) * 1e6)] += 1

    async with asyncio.TaskGroup() as group:
        for _ in range(clients):
            group.create_task(client())
        await asyncio.sleep(warm_s)
        print("begin", flush=True)  # noqa: T201
        counts.clear()
        begun, before = time.perf_counter(), resource.getrusage(resource.RUSAGE_SELF)
        await asyncio.sleep(measure_s)
        seconds, after = time.perf_counter() - begun, resource.getrusage(resource.RUSAGE_SELF)
        result = {
            "seconds": seconds,
            "user_s": after.ru_utime - before.ru_utime,
            "system_s": after.ru_stime - before.ru_stime,
            "counts": sorted(counts.items()),
        }
        print(json.dumps(result), flush=True)  # noqa: T201
        await asyncio.to_thread(sys.stdin.read)
        going = False
