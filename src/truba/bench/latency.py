"""How long operations took: a count for each whole microsecond. Pure.

Memory is bounded by what was measured, not by how often: with c clients during s seconds all durations together are
c * s seconds at most, so no more than sqrt(2 * c * s * 1e6) of them can differ: 70,000 for 256 clients in ten seconds,
a few thousand in practice.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from itertools import accumulate

Counts = Mapping[int, int]
"""Microseconds, cut to whole ones -> how many operations took that long."""


def counting() -> defaultdict[int, int]:
    """Counts to add to: `counts[microseconds] += 1` is the whole price of one operation."""
    return defaultdict(int)


def merged(many: Iterable[Counts]) -> Counts:
    total: Counter[int] = Counter()
    for counts in many:
        total.update(counts)
    return total


def percentiles(counts: Counts, percents: Sequence[float]) -> list[int]:
    """The shortest time, in microseconds, within which so many percent of the operations were done (nearest rank).

    ValueError when nothing was counted, or a percentage is not above 0 and up to 100.
    """
    if not counts or not all(0 < percent <= 100 for percent in percents):
        raise ValueError(f"no percentiles {percents} of {len(counts)} different times")
    times = sorted(counts)
    running = list(accumulate(counts[time] for time in times))
    found = []
    for percent in percents:
        rank = percent * running[-1] / 100
        found.append(next(time for time, reached in zip(times, running, strict=True) if reached >= rank))
    return found
