"""An order in which the first few of many cases already lie far apart."""

from __future__ import annotations

from math import gcd


def spread(place: int, count: int) -> int:
    """A permutation of range(count) whose beginnings are spread evenly: steps of the golden section."""
    step = max(1, round(count * 0.618))
    while gcd(step, count) != 1:
        step += 1
    return (place + 1) * step % count
