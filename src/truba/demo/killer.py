"""Who dies, when and where. All of it follows from a seed; nothing here kills anybody.

Two ways to die, for two kinds of doubt. Told points make sure that each gap between two steps is hit, in every run.
Blows from outside come at any time, in the middle of whatever happens then.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from typing import TypeVar

from truba.demo.transfers import Transfer
from truba.demo.worker import POINTS

T = TypeVar("T")

TRANSFERS_PER_DEATH = 50
BLOWS_APART_S = (0.15, 0.6)

HANDLER_DIES_AT = 0.3
PIPE_DIES_AT = 0.6
PAUSES_AT = (0.15, 0.45, 0.75)
"""Shares of the transfers taken by then."""


class Killer:
    def __init__(self, seed: int) -> None:
        self._dice = random.Random(seed)

    def deaths(self, transfers: Sequence[Transfer]) -> dict[str, str]:
        """Transfer -> the point at which whoever does it first dies. Each point comes about equally often."""
        rounds = max(1, len(transfers) // (TRANSFERS_PER_DEATH * len(POINTS)))
        points = list(POINTS) * rounds
        self._dice.shuffle(points)
        # Evenly over the run, so that they are not all over before the handler and the pipe die.
        stride = len(transfers) / len(points)
        return {transfers[int(stride * (at + self._dice.random()))].id: point for at, point in enumerate(points)}

    def blows(self) -> Iterator[float]:
        """Seconds to wait before each blow from outside, without end."""
        while True:
            yield self._dice.uniform(*BLOWS_APART_S)

    def victim(self, candidates: Sequence[T]) -> T:
        return self._dice.choice(candidates)
