"""The token bucket as a value."""

from __future__ import annotations

import random
from bisect import bisect_left

import pytest

from truba.node.rate import PACE_MS, TokenBucket


def taken(bucket: TokenBucket, now_ms: int) -> int:
    """As many as there are."""
    count = 0
    while bucket.wait_ms(now_ms) == 0:
        bucket.take(now_ms)
        count += 1
    return count


def test_a_full_bucket_has_one_seconds_worth_and_a_rest_does_not_make_it_more() -> None:
    bucket = TokenBucket(100)
    assert taken(bucket, 0) == 100
    assert taken(bucket, 50) == 5
    assert taken(bucket, 86_400_000) == 100


@pytest.mark.parametrize(("rate_per_s", "each_ms"), [(0.5, 2_000), (1 / 60, 60_000), (1, 1_000)])
def test_a_slow_one_has_one_at_a_time(rate_per_s: float, each_ms: int) -> None:
    bucket = TokenBucket(rate_per_s)
    assert taken(bucket, 0) == 1
    assert bucket.wait_ms(0) == each_ms
    assert taken(bucket, each_ms - 1) == 0
    assert taken(bucket, each_ms) == 1
    assert taken(bucket, 10 * each_ms) == 1


def test_whoever_waits_as_long_as_it_says_gets_one_and_no_sooner_than_the_pace() -> None:
    bucket = TokenBucket(10_000)
    taken(bucket, 0)
    assert bucket.wait_ms(0) == PACE_MS
    assert taken(bucket, PACE_MS) == 10 * PACE_MS


@pytest.mark.parametrize("seed", range(20))
def test_never_more_than_the_rate_and_never_less_for_whoever_always_wants(seed: int) -> None:
    dice = random.Random(seed)
    rate_per_s = dice.choice((0.7, 3, 50, 999))
    bucket, now_ms, times = TokenBucket(rate_per_s), 0, list[int]()
    while now_ms < 60_000:
        times += [now_ms] * taken(bucket, now_ms)
        now_ms += bucket.wait_ms(now_ms)
    assert abs(len(times) - 60 * rate_per_s - max(1, rate_per_s)) <= 1 + rate_per_s * PACE_MS / 1000
    for at in range(0, len(times), 7):
        within = bisect_left(times, times[at] + 1_000) - at
        assert within <= max(1, rate_per_s) + rate_per_s + 1
