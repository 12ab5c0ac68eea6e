"""A token bucket: so many hand-overs a second, and at first, or after a rest, one second's worth of them at once.

Kept as one number, the time at which the bucket would be full again (GCRA, as in ATM networks). Pure: the time (steady
clock, milliseconds) is an argument.
"""

from __future__ import annotations

from math import ceil

PACE_MS = 5
"""The shortest wait that is asked for: what has gathered meanwhile is taken together, and not in a turn for each."""


class TokenBucket:
    """Full at first."""

    __slots__ = ("_each_ms", "_full_ms", "_spare_ms")

    def __init__(self, rate_per_s: float) -> None:
        self._each_ms = 1000 / rate_per_s
        self._spare_ms = max(1000.0, self._each_ms) - self._each_ms  # of a full bucket, without the token to be taken
        self._full_ms = 0.0

    def wait_ms(self, now_ms: int) -> int:
        """0: a token is there. Else how long to wait before asking again."""
        wait_ms = self._full_ms - now_ms - self._spare_ms
        return 0 if wait_ms <= 0 else max(PACE_MS, ceil(wait_ms))

    def take(self, now_ms: int) -> None:
        """Take the token that is there."""
        self._full_ms = max(self._full_ms, now_ms) + self._each_ms
