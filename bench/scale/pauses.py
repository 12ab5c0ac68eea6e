"""How late a loop is: a timer each millisecond, and by how much it came late. Pure but for `Pauses`.

A task that waits for anything waits at least that long more, so these are the pauses that every client sees.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from typing import Self

import msgspec

EVERY_S = 0.001
PERCENTS = (50.0, 99.0, 99.9)


class Late(msgspec.Struct, frozen=True):
    """Milliseconds that timers came late."""

    count: int
    p50_ms: float
    p99_ms: float
    p999_ms: float
    max_ms: float


class Moment(msgspec.Struct, frozen=True, array_like=True):
    """The longest pause of a short time, and whether a checkpoint was under way."""

    at_s: float
    late_ms: float
    checkpoint: bool


def percentile(ordered: Sequence[float], percent: float) -> float:
    """The least of `ordered` values that so many percent do not exceed (nearest rank)."""
    if not ordered:
        raise ValueError("no percentile of nothing")
    rank = -(-percent * len(ordered) // 100)  # rounded up
    return ordered[max(0, int(rank) - 1)]


def summed_up(late_s: Sequence[float]) -> Late:
    ordered = sorted(each * 1e3 for each in late_s)
    p50, p99, p999 = (percentile(ordered, percent) for percent in PERCENTS)
    return Late(len(ordered), p50, p99, p999, ordered[-1])


def moments(samples: Sequence[tuple[float, float, bool]], width_s: float) -> list[Moment]:
    """Samples (when, how late, during a checkpoint) gathered by times of `width_s`; the worst of each counts."""
    found: dict[int, Moment] = {}
    for at_s, late_s, checkpoint in samples:
        place = int(at_s / width_s)
        before = found.get(place)
        late_ms = late_s * 1e3
        if before is not None:
            late_ms, checkpoint = max(before.late_ms, late_ms), before.checkpoint or checkpoint
        found[place] = Moment(place * width_s, late_ms, checkpoint)
    return [found[place] for place in sorted(found)]


class Pauses:
    """`with Pauses() as pauses:` on a running loop; then `pauses.late`, `pauses.samples`."""

    def __init__(self) -> None:
        self.samples: list[tuple[float, float, bool]] = []
        self.checkpoint = False  # told by who knows
        self._loop = asyncio.get_running_loop()
        self._timer: asyncio.TimerHandle | None = None
        self._began_s = self._due_s = 0.0

    def __enter__(self) -> Self:
        self._began_s = time.perf_counter()
        self._arm()
        return self

    def __exit__(self, *_: object) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._sample()  # what held the loop to the very end

    @property
    def late(self) -> Late:
        return summed_up([late_s for _, late_s, _ in self.samples])

    def _arm(self) -> None:
        self._due_s = time.perf_counter() + EVERY_S
        self._timer = self._loop.call_later(EVERY_S, self._ring)

    def _ring(self) -> None:
        self._sample()
        self._arm()

    def _sample(self) -> None:
        now_s = time.perf_counter()
        self.samples.append((self._due_s - self._began_s, max(0.0, now_s - self._due_s), self.checkpoint))
