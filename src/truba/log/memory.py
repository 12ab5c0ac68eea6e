"""The log in memory: for tests, simulations, and pipes whose data may go with the process.

What "survives" is a `Shelf`: open another `MemoryLog` on it and it is the same log again. Never does I/O.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator

from truba.errors import DataDamaged, LogPoisoned
from truba.log.frame import Framing
from truba.ports.log import Done, LogBatch, Space
from truba.types import ORIGIN, Position


class Shelf:
    """What a memory log leaves behind when it is closed or dropped."""

    def __init__(self, log_id: bytes = bytes(16)) -> None:
        self.framing = Framing(log_id)
        self.begin = ORIGIN  # what the first kept batch follows
        self.batches: list[tuple[LogBatch, Position]] = []


class MemoryLog:
    """With `held=True` batches wait until `release` is called, as on a disk that takes its time; at most `window`."""

    def __init__(
        self,
        shelf: Shelf | None = None,
        *,
        window: int = 1,
        held: bool = False,
        batch_bytes_max: int = 16 << 20,
        batch_bytes_min: int = 0,
    ) -> None:
        self.shelf = shelf or Shelf()
        self.held = held
        self.space: Space = "plenty"
        self.batch_bytes_max = batch_bytes_max
        self.batch_bytes_min = batch_bytes_min
        self._window = window
        self._under_way: deque[tuple[LogBatch, Done]] = deque()
        self._failure: BaseException | None = None
        self._closed = False

    @property
    def tail(self) -> Position:
        batches = self.shelf.batches
        return batches[-1][1] if batches else self.shelf.begin

    @property
    def window(self) -> int:
        return self._window

    @property
    def size_bytes(self) -> int:
        return sum(len(batch.body) for batch, _ in self.shelf.batches)

    @property
    def failure(self) -> BaseException | None:
        return self._failure

    def append(self, batch: LogBatch, done: Done) -> None:
        self._usable()
        tail = self.tail
        last_seq, term = tail.seq, tail.term
        if self._under_way:
            last = self._under_way[-1][0]
            last_seq, term = last.last_seq, last.term
        if len(self._under_way) >= self._window:
            raise ValueError(f"{self._window} batches are under way already: that is the log's window")
        if batch.first_seq != last_seq + 1 or batch.term < term or batch.count < 1:
            raise ValueError(
                f"a batch of term {batch.term} with {batch.count} events from seq {batch.first_seq} "
                f"cannot follow {term}-{last_seq}"
            )
        self._under_way.append((batch, done))
        if not self.held:
            self.release()

    def release(self, count: int | None = None) -> int:
        """Make up to `count` waiting batches durable (all of them: None); how many it were."""
        made = 0
        while self._under_way and made != count:
            batch, done = self._under_way.popleft()
            tail = self.tail
            position = Position(batch.term, batch.last_seq, self.shelf.framing.chain(tail, batch))
            self.shelf.batches.append((batch, position))
            made += 1
            done(None)
        return made

    def fail(self, error: BaseException) -> None:
        """Poison the log, as an I/O error would: what is under way is not kept, and its `done` hears of it."""
        self._failure = error
        under_way, self._under_way = self._under_way, deque()
        for _, done in under_way:
            done(self._poisoned())

    def confirm(self, done: Done) -> None:
        self._usable()
        done(None)

    def read(self, after_seq: int) -> Iterator[tuple[LogBatch, Position]]:
        self._usable()
        if after_seq < self.shelf.begin.seq:
            raise DataDamaged(f"the log begins after seq {self.shelf.begin.seq}: what follows {after_seq} was trimmed")
        if self.position_at(after_seq) is None:
            raise ValueError(f"no batch ends with seq {after_seq}")
        return iter([entry for entry in self.shelf.batches if entry[0].first_seq > after_seq])

    def position_at(self, seq: int) -> Position | None:
        self._usable()
        if seq == 0:
            return ORIGIN
        if seq == self.shelf.begin.seq:
            return self.shelf.begin
        return next((position for _, position in self.shelf.batches if position.seq == seq), None)

    def trim(self, through_seq: int) -> None:
        self._usable()
        kept = [entry for entry in self.shelf.batches if entry[1].seq > through_seq]
        if dropped := len(self.shelf.batches) - len(kept):
            self.shelf.begin = self.shelf.batches[dropped - 1][1]
        self.shelf.batches = kept

    def close(self) -> None:
        if not self._closed and self._failure is None:
            self.release()
        self._closed = True

    def _usable(self) -> None:
        if self._failure is not None:
            raise self._poisoned()
        if self._closed:
            raise ValueError("the log is closed")

    def _poisoned(self) -> LogPoisoned:
        error = LogPoisoned(f"the log failed: {self._failure}")
        error.__cause__ = self._failure
        return error
