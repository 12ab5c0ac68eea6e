"""The one timer: it rings at the earliest time that was asked for, once, and again when it is asked again."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine

import pytest

from truba.node.alarm import Alarm
from truba.testing.jump import JumpClock


@pytest.mark.parametrize(
    ("asked_ms", "rings_ms"),
    [([700], [700]), ([700, 300], [300]), ([300, 700], [300]), ([700, 300, 500, 100], [100]), ([0], [0])],
)
def test_it_rings_once_at_the_earliest(
    jump: Callable[[Coroutine[object, object, None]], None],
    clock: JumpClock,
    asked_ms: list[int],
    rings_ms: list[int],
) -> None:
    async def main() -> None:
        began_ms = clock.steady_ms()
        rang: list[int] = []
        alarm = Alarm(lambda: rang.append(clock.steady_ms() - began_ms), clock)
        for at_ms in asked_ms:
            alarm.at(began_ms + at_ms)
        await asyncio.sleep(1)
        assert rang == rings_ms
        alarm.at(began_ms + 1_500)
        alarm.at(began_ms + 1_400)
        await asyncio.sleep(1)
        assert rang == [*rings_ms, 1_400]
        alarm.at(began_ms + 2_500)
        alarm.cancel()
        await asyncio.sleep(1)
        assert rang == [*rings_ms, 1_400]
        alarm.at(began_ms + 3_500)
        await asyncio.sleep(1)
        assert rang == [*rings_ms, 1_400, 3_500]

    jump(main())
