"""A kind's policy, as values."""

from __future__ import annotations

import math
import sys
from dataclasses import replace

import pytest

from truba.codec.batch import encode_batch
from truba.errors import ConfigError
from truba.kinds import SECONDS_MAX, Backoff, Kind
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


@pytest.mark.parametrize("seconds", [math.inf, math.nan, sys.maxsize, math.nextafter(SECONDS_MAX, math.inf)])
@pytest.mark.parametrize(
    "what", ["recovery_delay_s", "jitter_s", "max_age_s", "handler_timeout_s", "idle_timeout_s", "cap_s"]
)
def test_a_time_that_no_event_could_hold_is_refused(what: str, seconds: float) -> None:
    """Else the pipe ends at the first session that is to be due then, and at each start."""
    kind = Kind(7, "transfer", "local:a:b")
    with pytest.raises(ConfigError):
        replace(kind, backoff=Backoff(cap_s=seconds)) if what == "cap_s" else replace(kind, **{what: seconds})


def test_the_longest_times_fit_into_an_event() -> None:
    kind = Kind(7, "transfer", "local:a:b", recovery_delay_s=SECONDS_MAX, jitter_s=SECONDS_MAX)
    now_ms = 2**42
    due_ms = now_ms + round((kind.recovery_delay_s + kind.jitter_s) * 1000)
    assert encode_batch([Stored(2, due_ms, Cause.LOST)])
    assert due_ms < 2**63
