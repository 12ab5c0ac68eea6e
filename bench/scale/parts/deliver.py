"""Hand over all sessions of one kind that are due, from an old store: Repeated, the handler, Delete, all durable."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

import truba
from bench.scale.child import say_result
from bench.scale.pipes import LOCAL, RECORD_BYTES, RECORDS_EACH, SERVICE, kinds, memory_mib, pipe


async def handle(repeat: truba.RepeatData) -> None:
    assert [*map(len, repeat.records)] == [RECORD_BYTES] * RECORDS_EACH


async def measure(data: str, count: int, service: str = "") -> None:
    """`service`: the address of a handler service; else a handler in this process. `count`: how many there are."""
    number = SERVICE if service else LOCAL
    of = kinds(service=service) if service else kinds(local=handle)
    async with pipe(Path(data), of) as full:
        node = full.node
        while not node.dispatcher.deliveries:  # noqa: ASYNC110 - nobody tells
            await asyncio.sleep(0)
        before, began_s = node.dispatcher.deliveries, time.perf_counter()
        while any(kind == number for kind, _ in node.machine.counts):  # noqa: ASYNC110
            await asyncio.sleep(0.005)
        seconds = time.perf_counter() - began_s
        assert node.dispatcher.deliveries >= count, "some were not there"
        said = {"per_s": (node.dispatcher.deliveries - before) / seconds, "memory_mib": memory_mib()}
    say_result(said)
