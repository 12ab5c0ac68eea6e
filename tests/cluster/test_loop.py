"""A process that stands still runs nothing, and misses nothing."""

from __future__ import annotations

import asyncio
from contextvars import Context, copy_context

import pytest

from tests.cluster.loop import PROCESS, StormLoop
from truba.testing.jump import JumpClock


def process(name: str) -> Context:
    context = copy_context()
    context.run(PROCESS.set, name)
    return context


async def ticking(name: str, told: list[tuple[str, float]], heard: asyncio.Queue[str]) -> None:
    loop = asyncio.get_running_loop()
    while True:
        try:
            async with asyncio.timeout(1):
                told.append((name + await heard.get(), loop.time()))
        except TimeoutError:
            told.append((name, loop.time()))


def test_a_frozen_process_stands_still_and_then_goes_on() -> None:
    clock = JumpClock()
    loop = StormLoop(clock)
    told: list[tuple[str, float]] = []

    async def main() -> None:
        queues = {name: asyncio.Queue[str]() for name in "ab"}
        tasks = [asyncio.create_task(ticking(name, told, queues[name]), context=process(name)) for name in "ab"]
        await asyncio.sleep(2.5)
        loop.freeze("a")
        queues["a"].put_nowait("!")
        queues["b"].put_nowait("!")
        await asyncio.sleep(3)
        loop.thaw("a")
        await asyncio.sleep(1.2)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    with asyncio.Runner(loop_factory=lambda: loop) as runner:
        runner.run(main())
    assert [(name, at - 1000) for name, at in told if name[0] == "b"] == [
        ("b", 1), ("b", 2), ("b!", 2.5), ("b", 3.5), ("b", 4.5), ("b", 5.5), ("b", 6.5),
    ]  # fmt: skip
    # Both had come meanwhile, the message first: it is what counts.
    assert [(name, at - 1000) for name, at in told if name[0] == "a"] == [
        ("a", 1), ("a", 2), ("a!", 5.5), ("a", 6.5),
    ]  # fmt: skip


def test_a_cancelled_timer_of_a_frozen_process_stays_cancelled() -> None:
    clock = JumpClock()
    loop = StormLoop(clock)
    rung: list[str] = []

    async def main() -> None:
        first = loop.call_later(1, rung.append, "first", context=process("a"))
        loop.call_later(1.5, rung.append, "second", context=process("a"))
        loop.call_later(9, rung.append, "third", context=process("a"))
        loop.freeze("a")
        await asyncio.sleep(2)
        first.cancel()
        loop.thaw("a")
        await asyncio.sleep(0.1)
        assert rung == ["second"]
        await asyncio.sleep(8)

    with asyncio.Runner(loop_factory=lambda: loop) as runner:
        runner.run(main())
    assert rung == ["second", "third"]


def test_who_waits_for_time_without_sleeping_is_found_out() -> None:
    clock = JumpClock()

    async def main() -> None:
        until_s = clock.steady_s + 1
        while clock.steady_s < until_s:  # noqa: ASYNC110 - that is what it is about
            await asyncio.sleep(0)

    with (
        asyncio.Runner(loop_factory=lambda: StormLoop(clock)) as runner,
        pytest.raises(RuntimeError, match="stands still"),
    ):
        runner.run(main())
