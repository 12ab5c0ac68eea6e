"""A kind's policy, as values."""

from __future__ import annotations

import pytest

from truba.kinds import Backoff


@pytest.mark.parametrize(
    ("tries", "ceiling_s"), [(0, 1), (1, 1), (2, 2), (3, 4), (10, 512), (11, 600), (12, 600), (10_000, 600)]
)
def test_backoff_doubles_up_to_its_cap(tries: int, ceiling_s: float) -> None:
    backoff = Backoff(base_s=1, factor=2, cap_s=600)
    assert backoff.delay_s(tries, 1.0) == ceiling_s
    assert backoff.delay_s(tries, 0.5) == ceiling_s / 2
    assert backoff.delay_s(tries, 0.0) == 0
