"""What is counted for operators where it happens, as cheaply as that can be; read when somebody asks.

A lane counts for each hand-over. The sequencer's counts are for each batch, and only while a meter is attached.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import TYPE_CHECKING

from truba.histogram import Histogram
from truba.machine.events import Event

if TYPE_CHECKING:
    from truba.node.sequencer import Batch

SAMPLE = 16
"""Of so many batches the time of one is taken: it costs two looks at a clock."""

TYPES_MAX = 8192
"""Events whose types are counted at once: two tenths of a millisecond."""


class BatchMeter:
    """Of one sequencer after the other: a process may lead more than once."""

    __slots__ = ("_batches", "_steady_s", "_types", "_types_seen", "bytes", "commit_us", "events")

    def __init__(self, steady_s: Callable[[], float]) -> None:
        self._steady_s = steady_s
        self._batches = 0
        self._types: list[type[Event]] = []
        self._types_seen: Counter[type[Event]] = Counter()
        self.events = Histogram()  # in a batch
        self.bytes = 0  # of all batches
        self.commit_us = Histogram()  # from a batch's end to its being durable; of every 16th

    def sealed(self, batch: Batch, size: int) -> None:
        """A batch of `size` bytes is about to be made durable."""
        events = batch.events
        self.events.add(len(events))
        self.bytes += size
        # Their types are kept, not the events, which hold records; counting them one by one would cost ten times that.
        self._types += map(type, events)
        if len(self._types) > TYPES_MAX:
            self._fold()
        self._batches += 1
        if self._batches % SAMPLE == 0:
            batch.sent_s = self._steady_s()

    def durable(self, batch: Batch) -> None:
        """One whose time is taken."""
        self.commit_us.add(round((self._steady_s() - batch.sent_s) * 1e6))

    def by_type(self) -> dict[str, int]:
        """Events by their type's name."""
        self._fold()
        return {kind.__name__: count for kind, count in self._types_seen.items()}

    def _fold(self) -> None:
        self._types_seen.update(self._types)
        self._types.clear()


class LaneMeter:
    """Of one kind's hand-overs."""

    __slots__ = ("deliveries", "held_ms", "late_ms", "outcomes")

    def __init__(self) -> None:
        self.deliveries = 0
        self.outcomes: Counter[str] = Counter()  # "deleted", or the cause that its next owner is told
        self.late_ms = Histogram()  # from due to handed over
        self.held_ms = Histogram()  # from handed over to the end of the hold
