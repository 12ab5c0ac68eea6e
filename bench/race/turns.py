"""Whose turn it is, and what many turns come to. Pure."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple


class Turn(NamedTuple):
    number: int  # of the round, from 1
    clients: int
    side: str


def turns(sides: Sequence[str], clients: Sequence[int], rounds: int) -> Iterator[Turn]:
    """Each round goes through all numbers of clients, and for each of them through all sides.

    A round begins with another side than the one before, so that none is always measured behind the same neighbour.
    """
    for number in range(1, rounds + 1):
        first = (number - 1) % len(sides) if sides else 0
        for count in clients:
            for side in (*sides[first:], *sides[:first]):
                yield Turn(number, count, side)


def median(values: Iterable[float]) -> float:
    """StatisticsError when there are none."""
    return statistics.median(values)


def ratio(rates: Mapping[int, float], marks: Mapping[int, float]) -> float | None:
    """The median, over the rounds that both were measured in, of how many times the mark's rate a rate is.

    Of two turns of one round, because what disturbs a machine for a while then disturbs both. None: no such round.
    """
    both = [rates[number] / marks[number] for number in rates if marks.get(number)]
    return statistics.median(both) if both else None
