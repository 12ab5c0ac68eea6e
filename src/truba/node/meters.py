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
    """Of one sequencer after the other: a process may lead more than once.

    A batch leaves its size and its events' types in lists (not the events, which hold records); they are counted many
    at once, which costs a tenth of counting each.
    """

    __slots__ = ("_batches", "_events", "_sizes", "_steady_s", "_types", "_types_seen", "bytes", "commit_us")

    def __init__(self, steady_s: Callable[[], float]) -> None:
        self._steady_s = steady_s
        self._batches = 0
        self._sizes: list[int] = []
        self._types: list[type[Event]] = []
        self._types_seen: Counter[type[Event]] = Counter()
        self._events = Histogram()
        self.bytes = 0  # of all batches
        self.commit_us = Histogram()  # from a batch's end to its being durable; of every 16th

    def sealed(self, batch: Batch, size: int) -> None:
        """A batch of `size` bytes is about to be made durable."""
        events = batch.events
        count = len(events)
        self._sizes.append(count)
        if count == 1:
            self._types.append(type(events[0]))
        else:
            self._types += map(type, events)
        self.bytes += size
        self._batches = batches = self._batches + 1
        if not batches % SAMPLE:
            batch.sent_s = self._steady_s()
            if len(self._types) > TYPES_MAX:
                self._fold()

    def durable(self, batch: Batch) -> None:
        """One whose time is taken."""
        self.commit_us.add(round((self._steady_s() - batch.sent_s) * 1e6))

    @property
    def events(self) -> Histogram:
        """Events in a batch."""
        self._fold()
        return self._events

    def by_type(self) -> dict[str, int]:
        """Events by their type's name."""
        self._fold()
        return {kind.__name__: count for kind, count in self._types_seen.items()}

    def _fold(self) -> None:
        self._types_seen.update(self._types)
        self._types.clear()
        for size, count in Counter(self._sizes).items():
            self._events.add(size, count)
        self._sizes.clear()


class LaneMeter:
    """Of one kind's hand-overs."""

    __slots__ = ("deliveries", "held_ms", "late_ms", "outcomes")

    def __init__(self) -> None:
        self.deliveries = 0
        self.outcomes: Counter[str] = Counter()  # "deleted", or the cause that its next owner is told
        self.late_ms = Histogram()  # from due to handed over
        self.held_ms = Histogram()  # from handed over to the end of the hold
