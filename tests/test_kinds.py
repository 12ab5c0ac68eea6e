"""A kind's policy, as values."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from truba.codec.batch import encode_batch
from truba.errors import ConfigError
from truba.kinds import TIME_S_MAX, Backoff, Breaker, Kind
from truba.machine.events import Stored
from truba.types import Cause


@pytest.mark.parametrize(
    ("tries", "ceiling_s"), [(0, 1), (1, 1), (2, 2), (3, 4), (10, 512), (11, 600), (12, 600), (10_000, 600)]
)
def test_backoff_doubles_up_to_its_cap(tries: int, ceiling_s: float) -> None:
    backoff = Backoff(base_s=1, factor=2, cap_s=600)
    assert backoff.delay_s(tries, 1.0) == ceiling_s
    assert backoff.delay_s(tries, 0.5) == ceiling_s / 2
    assert backoff.delay_s(tries, 0.0) == 0


@pytest.mark.parametrize("time_s", [TIME_S_MAX * 1.001, 1e300, float("inf"), float("nan"), -1.0])
@pytest.mark.parametrize(
    "make",
    [
        lambda time_s: Kind(7, "transfer", "played:", recovery_delay_s=time_s),
        lambda time_s: Kind(7, "transfer", "played:", jitter_s=time_s),
        lambda time_s: Kind(7, "transfer", "played:", max_age_s=time_s),
        lambda time_s: Kind(7, "transfer", "played:", handler_timeout_s=time_s),
        lambda time_s: Kind(7, "transfer", "played:", idle_timeout_s=time_s),
        lambda time_s: Backoff(base_s=time_s),
        lambda time_s: Backoff(cap_s=time_s),
        lambda time_s: Breaker(open_for_s=time_s),
        lambda time_s: Breaker(cap_s=time_s),
    ],
)
def test_a_time_that_no_due_time_has_room_for_is_refused(make: Callable[[float], object], time_s: float) -> None:
    """Else the pipe ends at the first session that is to be due then, and at each start."""
    make(TIME_S_MAX)
    with pytest.raises(ConfigError):
        make(time_s)


def test_the_longest_times_fit_into_an_event() -> None:
    kind = Kind(7, "transfer", "local:a:b", recovery_delay_s=TIME_S_MAX, jitter_s=TIME_S_MAX)
    now_ms = 2**42
    due_ms = now_ms + round((kind.recovery_delay_s + kind.jitter_s) * 1000)
    assert encode_batch([Stored(2, due_ms, Cause.LOST)])
    assert due_ms < 2**63
