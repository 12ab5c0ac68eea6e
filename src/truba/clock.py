"""Time and chance: the only place of the node that reads clocks and random sources."""

from __future__ import annotations

import random
import time
from typing import Protocol


class Clock(Protocol):
    """Clocks and dice, handed in so that tests and simulations can turn them."""

    def now_ms(self) -> int:
        """Wall clock, milliseconds since 1970; may jump either way."""

    def steady_ms(self) -> int:
        """Monotonic clock, milliseconds from an arbitrary start."""

    def chance(self) -> float:
        """Uniform in [0, 1)."""


class SystemClock:
    """The machine's own clocks."""

    def now_ms(self) -> int:
        return time.time_ns() // 1_000_000

    def steady_ms(self) -> int:
        return time.monotonic_ns() // 1_000_000

    def chance(self) -> float:
        return random.random()
