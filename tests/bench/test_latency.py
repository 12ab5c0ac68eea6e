"""Percentiles of counted microseconds, against the plain definition on the whole list."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from truba.bench.latency import counting, merged, percentiles

times_us = st.lists(st.integers(0, 2000), min_size=1, max_size=300)


def counted(times: list[int]) -> dict[int, int]:
    counts = counting()
    for time in times:
        counts[time] += 1
    return counts


@given(times_us, st.sampled_from([1, 25, 50, 75, 99, 100]))
def test_nearest_rank(times: list[int], percent: int) -> None:
    assert percentiles(counted(times), [percent]) == [sorted(times)[math.ceil(percent * len(times) / 100) - 1]]


@given(times_us, times_us)
def test_merging_is_as_if_counted_together(some: list[int], more: list[int]) -> None:
    assert merged([counted(some), counted(more)]) == counted(some + more)


def test_a_long_run_weighs_more_than_a_short_one() -> None:
    assert percentiles(merged([{100: 99}, {900: 1}]), [50, 99, 100]) == [100, 100, 900]


@pytest.mark.parametrize(("counts", "percent"), [({}, 50), ({1: 1}, 0), ({1: 1}, 101)])
def test_nothing_to_tell(counts: dict[int, int], percent: float) -> None:
    with pytest.raises(ValueError, match="no percentiles"):
        percentiles(counts, [percent])
