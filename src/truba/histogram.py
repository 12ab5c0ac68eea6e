"""A histogram that costs one addition a value: buckets are powers of two. Pure."""

from __future__ import annotations

BUCKETS = 40
"""The last one takes everything above: 2^39 us are six days."""


class Histogram:
    """Whole numbers; bucket k counts those below 2^k (and not below 2^(k-1)). The unit is the owner's to say."""

    __slots__ = ("counts", "sum")

    def __init__(self) -> None:
        self.counts = [0] * BUCKETS
        self.sum = 0

    def add(self, value: int, times: int = 1) -> None:
        """Negative ones, of clocks that jumped, count as zero."""
        value = max(value, 0)
        self.counts[min(value.bit_length(), BUCKETS - 1)] += times
        self.sum += value * times
