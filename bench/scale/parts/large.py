"""Records of a mebibyte: how many a second, and is memory bounded?"""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

from bench.scale.child import say_result
from bench.scale.pipes import ASLEEP, memory_mib, pipe
from bench.scale.results import Large

RECORD_BYTES = 1 << 20
CLIENTS = 8
EACH = 16


async def measure(data: str, records: int) -> None:
    async with pipe(Path(data)) as one:
        began_mib = peak_mib = memory_mib()
        left = records

        async def client() -> None:
            nonlocal left, peak_mib
            while left > 0:
                session = await one.new(ASLEEP)
                for _ in range(EACH):
                    left -= 1
                    await session.append(bytes(RECORD_BYTES))
                    peak_mib = max(peak_mib, memory_mib())
                await session.store(86_400)

        began_s = time.perf_counter()
        await asyncio.gather(*(client() for _ in range(CLIENTS)))
        seconds = time.perf_counter() - began_s
        await one.node.checkpoint()
        grown_mib = max(peak_mib, memory_mib()) - began_mib
        written = records - left
        found = Large(RECORD_BYTES, written, written * RECORD_BYTES / 2**20 / seconds, grown_mib)
    say_result(found)
