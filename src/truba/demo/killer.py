"""Who dies, when and where. All of it follows from a seed; nothing here kills anybody.

Two ways to die, for two kinds of doubt. Told points make sure that each gap between two steps is hit, in every run.
Blows from outside come at any time, in the middle of whatever happens then.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal, TypeVar

from truba.demo.transfers import Transfer
from truba.demo.worker import POINTS

T = TypeVar("T")

TRANSFERS_PER_DEATH = 50
BLOWS_APART_S = (0.15, 0.6)

HANDLER_DIES_AT = 0.3
PAUSES_AT = (0.15, 0.45, 0.75)
"""Shares of the transfers taken by then."""


Blow = Literal["node", "server", "step-down"]
"""node, server: the one that leads is killed. step-down: the node that leads is asked to hand over."""

BLOWS: dict[Blow, int] = {"node": 3, "server": 2, "step-down": 1}
BLOWS_SHORT: dict[Blow, int] = {"node": 1, "server": 1, "step-down": 1}
SHORT = 500
"""Fewer transfers than that are a short run."""


@dataclass(frozen=True, slots=True)
class Strike:
    """What befalls a cluster once this share of the transfers is taken, and so many seconds later."""

    blow: Blow
    at: float
    later_s: float


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

    def strikes(self, transfers: int) -> list[Strike]:
        """What a cluster has to bear in a run of so many transfers, evenly spread."""
        counts = BLOWS if transfers >= SHORT else BLOWS_SHORT
        blows: list[Blow] = [blow for blow, times in counts.items() for _ in range(times)]
        self._dice.shuffle(blows)
        return [
            Strike(blow, (number + 0.5) / len(blows), self._dice.uniform(*BLOWS_APART_S))
            for number, blow in enumerate(blows)
        ]

    def victim(self, candidates: Sequence[T]) -> T:
        return self._dice.choice(candidates)
