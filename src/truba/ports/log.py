"""The log: batches of events, in order, durable before they are acknowledged.

Adapters: `truba.log.memory`, `truba.log.file`. The suite that every adapter must pass is `truba.testing.log`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal, Protocol

from truba.types import Position

Done = Callable[[BaseException | None], None]
"""Called exactly once, on the event loop's thread, with None when the batch is durable, or with what went wrong."""

Space = Literal["plenty", "low"]


@dataclass(frozen=True, slots=True)
class LogBatch:
    """The unit of commit: `count` events numbered `first_seq ...`, all of one term, encoded in `body`."""

    term: int
    first_seq: int
    count: int
    body: bytes

    @property
    def last_seq(self) -> int:
        return self.first_seq + self.count - 1


class Log(Protocol):
    """One writer, any number of readers of what is already durable.

    A log is opened by its adapter's own function, which recovers what a crash left and refuses damage with DataError.
    After any I/O error the log is poisoned: every later call raises LogPoisoned, and nothing that was under way may be
    called stored or not stored.
    """

    @property
    def tail(self) -> Position:
        """The last durable batch's last event, and the chain hash through that batch; ORIGIN for an empty log."""

    @property
    def window(self) -> int:
        """How many batches may be under way at once (`append` called, `done` not yet)."""

    @property
    def batch_bytes_max(self) -> int:
        """Whoever gathers batches ends one when it has about so many bytes of events."""

    @property
    def batch_bytes_min(self) -> int:
        """While a batch is under way, the next one is worth being sent behind it from about this size on."""

    @property
    def space(self) -> Space:
        """ "low": only the reserve is left; whoever decides should refuse what grows the data."""

    @property
    def size_bytes(self) -> int:
        """Bytes of batches that a restart from an empty state would read."""

    @property
    def failure(self) -> BaseException | None:
        """What has poisoned the log, also when nobody was appending: nothing that was not acknowledged is sure."""

    def append(self, batch: LogBatch, done: Done) -> None:
        """Start to make `batch` durable. `done` may be called before this returns (committed inline), or later.

        Batches are appended in order and are done in order. `batch.first_seq` is one more than the last seq appended;
        `batch.term` never falls. Breaking either is a ValueError and nothing was written.
        """

    def confirm(self, done: Done) -> None:
        """Call `done` once it is proved that nobody else had appended anything when `confirm` was called.

        What is read from the state before that may be out of date where several nodes share a log. A log that only
        one process can open calls `done` before this returns. Anything else than None: as with `append`.
        """

    def read(self, after_seq: int) -> Iterator[tuple[LogBatch, Position]]:
        """Durable batches whose events come after `after_seq`, in order, each with the position it leads to.

        `after_seq` is the end of some batch (or 0), else ValueError. DataDamaged when the bytes are not what was
        written; DataDamaged too when the log begins later than that (it was trimmed further).
        """

    def position_at(self, seq: int) -> Position | None:
        """The position of the batch that ends with `seq`; None when no kept batch ends there. ORIGIN for 0."""

    def trim(self, through_seq: int) -> None:
        """Batches through this seq are no longer needed (a checkpoint holds them): they may be dropped, any time."""

    def close(self) -> None:
        """Wait for what is under way and give everything back. Calling it again does nothing."""
