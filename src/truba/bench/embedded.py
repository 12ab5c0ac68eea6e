"""The load in-process: tasks on one loop with `truba.open`, in a process of its own.

Run as `python -m truba.bench.embedded DIR TASKS SECONDS RECORD_BYTES`. Prints one JSON document.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
import time
from array import array
from dataclasses import asdict
from pathlib import Path

import uvloop

import truba
from truba.bench.figures import make_round


async def run(directory: Path, tasks: int, seconds: float, record_bytes: int) -> dict[str, float]:
    """The figures of one round, warm-up left out. DataError, ConfigError, OperationError."""
    record = b"x" * record_bytes
    latencies_s = array("d")
    now = time.perf_counter
    until_s = 0.0

    async def job(pipe: truba.Pipe) -> None:
        t = now()
        while t < until_s:
            session = await pipe.new(7)
            t = _note(latencies_s, t, now())
            for _ in range(3):
                await session.append(record)
                t = _note(latencies_s, t, now())
            await session.delete()
            t = _note(latencies_s, t, now())

    async with truba.open(directory, kinds=[truba.Kind(7, "bench", handler=_nobody)]) as pipe:
        until_s = now() + min(0.3, seconds / 4)
        await asyncio.gather(*(job(pipe) for _ in range(tasks)))
        del latencies_s[:]
        cpu_before_s = sum(os.times()[:2])
        started_s = now()
        until_s = started_s + seconds
        await asyncio.gather(*(job(pipe) for _ in range(tasks)))
        return asdict(make_round(latencies_s, now() - started_s, sum(os.times()[:2]) - cpu_before_s))


def _note(latencies_s: array[float], before_s: float, after_s: float) -> float:
    latencies_s.append(after_s - before_s)
    return after_s


async def _nobody(repeat: truba.RepeatData) -> None:
    """No session is ever left behind here."""


def main(arguments: list[str]) -> int:
    directory, tasks, seconds, record_bytes = arguments
    try:
        figures = uvloop.run(run(Path(directory), int(tasks), float(seconds), int(record_bytes)))
    except (OSError, truba.TrubaError) as error:
        sys.stderr.write(f"{error}\n")
        return 1
    json.dump(figures, sys.stdout)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
