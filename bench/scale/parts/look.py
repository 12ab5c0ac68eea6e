"""A pipe that has its sessions already: memory, new work against an empty directory, and finding the next due."""

from __future__ import annotations

import statistics
import time
from pathlib import Path

from bench.scale.child import say_result
from bench.scale.pauses import percentile
from bench.scale.pipes import ASLEEP, bytes_in, memory_mib, pipe, work
from truba.machine.due import DueQueue

DUES = 20_000


async def measure(data: str, empty: str, seconds: float, turns: int) -> None:
    began_mib = memory_mib()
    async with pipe(Path(data)) as full:
        took_ms = dues(DueQueue(ASLEEP, full.node.machine.layers))
        async with pipe(Path(empty)) as other:
            await work(full, seconds / 2)
            await work(other, seconds / 2)
            ratios, rates, loop_ratios = [], [], []
            for turn in range(turns):
                rate, loop_s = {}, {}
                for one in (full, other) if turn % 2 else (other, full):
                    began_s, loop_began_s = time.perf_counter(), time.thread_time()
                    done = await work(one, seconds)
                    loop_s[one] = (time.thread_time() - loop_began_s) / done
                    rate[one] = done / (time.perf_counter() - began_s)
                ratios.append(rate[full] / rate[other])
                rates.append(rate[full])
                loop_ratios.append(loop_s[full] / loop_s[other])
        said = {
            "rest_mib": memory_mib() - began_mib,
            "work_per_s": statistics.median(rates),
            "work_ratio": statistics.median(ratios),
            "loop_ratio": statistics.median(loop_ratios),
            "due_first_ms": took_ms[0] if took_ms else 0.0,
            "due_p999_ms": percentile(sorted(took_ms), 99.9) if took_ms else 0.0,
            "due_max_ms": max(took_ms, default=0.0),
            "log_bytes": bytes_in(Path(data) / "log"),
            "store_bytes": bytes_in(Path(data) / "store"),
        }
    say_result(said)


def dues(queue: DueQueue) -> list[float]:
    """Milliseconds that each of so many looks for the next due session takes, as if each one had been handed over."""
    took_ms = []
    for _ in range(DUES):
        began_s = time.perf_counter()
        key = queue.peek()
        took_ms.append((time.perf_counter() - began_s) * 1e3)
        if key is None:
            break
        if queue.page and queue.page[0] == key:
            queue.mark = queue.page.popleft()
        else:
            break  # young: not what is measured here
    return took_ms
