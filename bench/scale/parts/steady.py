"""Pauses of a pipe's loop under full load, while checkpoints, compaction and recycling go on."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

from bench.scale.child import say_result
from bench.scale.pauses import Pauses, moments
from bench.scale.pipes import pipe, work
from bench.scale.results import Steady
from truba.node.sequencer import Batch

KEEP_ONE_IN = 2
MOMENT_S = 0.1


async def measure(data: str, seconds: float) -> None:
    async with pipe(Path(data)) as loaded:
        node = loaded.node
        await work(loaded, min(2.0, seconds / 4), KEEP_ONE_IN)
        done_before, begun_s = node.checkpointer.done, time.perf_counter()
        log_bytes = 0

        def sealed(batch: Batch, size: int, exact: bool) -> None:
            nonlocal log_bytes
            log_bytes += size
            node.checkpointer.sealed(batch, size, exact)

        node.sequencer.on_seal = sealed
        with Pauses() as pauses:

            async def watch() -> None:
                while True:
                    pauses.checkpoint = node.checkpointer.running
                    await asyncio.sleep(0.002)

            watcher = asyncio.create_task(watch())
            operations = await work(loaded, seconds, KEEP_ONE_IN)
            watcher.cancel()
        took_s = time.perf_counter() - begun_s
        found = Steady(
            seconds=took_s,
            operations_per_s=operations / took_s,
            stored=operations // 4 // KEEP_ONE_IN,
            checkpoints=node.checkpointer.done - done_before,
            log_bytes=log_bytes,
            late=pauses.late,
            moments=tuple(moments(pauses.samples, MOMENT_S)),
        )
    say_result(found)
