"""What became of an operation that was sent and not answered: every case of the table."""

from __future__ import annotations

import pytest

from truba.client.resume import Act, Verdict, in_time, judge, judge_new


@pytest.mark.parametrize(
    ("act", "applied", "within_grace", "verdict"),
    [
        ("write", 3, True, "send again"),
        ("write", 3, False, "send again"),  # still held: the count is the truth, however late
        ("write", 4, True, "happened"),
        ("write", 4, False, "happened"),
        ("write", 5, True, "unknown"),
        ("write", 2, True, "unknown"),
        ("write", None, True, "unknown"),
        ("write", None, False, "unknown"),
        ("end", 3, True, "send again"),
        ("end", 3, False, "send again"),
        ("end", None, True, "happened"),
        ("end", None, False, "unknown"),
        ("touch", 3, True, "send again"),
        ("touch", None, True, "gone"),
        ("touch", None, False, "gone"),
    ],
)
def test_operation(act: Act, applied: int | None, within_grace: bool, verdict: Verdict) -> None:
    assert judge(act, 3, applied, within_grace) == verdict


@pytest.mark.parametrize(
    ("listed", "within_grace", "verdict"),
    [(True, True, "happened"), (True, False, "happened"), (False, True, "send again"), (False, False, "unknown")],
)
def test_new(listed: bool, within_grace: bool, verdict: Verdict) -> None:
    assert judge_new(listed, within_grace) == verdict


def test_a_tenth_of_the_grace_is_not_trusted() -> None:
    assert in_time(108.9, 100.0, 10.0)
    assert not in_time(109.1, 100.0, 10.0)
    assert not in_time(0.0, 0.0, 0.0)
