"""The sequencer: gathers the events of all clients into batches and lets answers go when their batch is durable.

    stage(event)   applied to the machine at once, in the gathering batch; a batch that is large enough is full
    seal           full, or gathering -> under way, as soon as the log has room; all sockets that are ready in one turn
                   of the loop are read before, so their operations share one sync; where the log gains from large
                   batches, also those that had their answers a moment ago and will be back at once
    settled        answers leave, in order; or the log failed: nothing in memory may be trusted, the node ends

It never looks into events and never decides.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from functools import partial

from truba.codec.batch import encode_batch
from truba.errors import Unavailable, UnknownOutcome
from truba.machine.events import Event
from truba.machine.machine import Machine
from truba.node.meters import BatchMeter
from truba.ports.log import Log, LogBatch
from truba.types import ORIGIN

Waiter = Callable[[bool], None]
"""Called with True once the batch is durable, with False when its outcome is unknown."""


EVENT_BYTES = 16
"""About what an event takes besides its payload."""

CROWD_S = 0.001
"""The longest wait for as many events as came with the batch before. Without it clients that wait for each answer
fall into two halves that take turns, each in a batch of its own: in a cluster, 16 or 64 of them were 1.5 times as fast
with it. A loop's clock counts in milliseconds: a shorter wait is none."""


def _shared_future() -> asyncio.Future[None]:
    """Shared by all who await one batch, so a waiter that is cancelled must not cancel it for the others.

    A task that awaits it and is cancelled gets its CancelledError when the batch is settled: by then it is
    known whether the operation happened. No subclass: tasks await asyncio's own future in half the time, which is a
    tenth of an operation in process.
    """
    future: asyncio.Future[None] = asyncio.Future()
    future.cancel = _no_cancel  # type: ignore[method-assign]
    return future


def _no_cancel(msg: object = None) -> bool:
    return False


class Batch:
    """Events that become durable together, and who waits for that."""

    __slots__ = ("_future", "bytes", "events", "last_seq", "outcome", "position", "sent_s", "waiters")

    def __init__(self) -> None:
        self.events: list[Event] = []
        self.waiters: list[Waiter] = []
        self.bytes = 0  # about
        self.last_seq = 0  # of its last event, once it is full or sealed
        self.position = ORIGIN  # of its last event, once durable
        self.outcome: bool | None = None  # durable or unknown, once that is known
        self.sent_s = 0.0  # when it was sealed, if its time is taken
        self._future: asyncio.Future[None] | None = None

    def durable(self) -> asyncio.Future[None]:
        """Done when the batch is durable; UnknownOutcome when the log failed."""
        future = self._future
        if future is None:
            future = self._future = _shared_future()
            if self.outcome is None:
                self.waiters.append(partial(_settle, future))
            else:
                _settle(future, self.outcome)
        return future


def _settle(future: asyncio.Future[None], durable: bool) -> None:
    if durable:
        future.set_result(None)
    else:
        future.set_exception(UnknownOutcome("the log failed while this was being written; outcome unknown"))
        future.exception()  # retrieved: nobody may be waiting any more, and that is no reason for a warning


class Sequencer:
    """One per node. `term` must be set before the first event is staged."""

    def __init__(self, log: Log, machine: Machine, on_failure: Callable[[BaseException], None]) -> None:
        self._log = log
        self._machine = machine
        self._apply = machine.apply
        self._on_failure = on_failure
        self._loop = asyncio.get_running_loop()
        self._gathering = Batch()
        self._full: deque[Batch] = deque()
        self._under_way: deque[Batch] = deque()
        self._bytes_max = log.batch_bytes_max
        self._bytes_min = log.batch_bytes_min
        self._crowd = 0  # events that may come at once: so many did, with the batch before
        self._waiting: asyncio.TimerHandle | None = None  # for the crowd
        self._scheduled = False
        self.latest: Batch | None = None
        """The newest batch that is not durable yet; what waits for it has waited for everything decided so far."""
        self.failed = False
        self._closed = False
        self._to_release: deque[Batch] = deque()
        self._releasing = False
        self.on_seal: Callable[[Batch, int, bool], None] | None = None
        """Called with each batch and its bytes when it is sealed; True: the state is that of the log through there."""
        self.batches = 0
        self.events = 0
        self.meter: BatchMeter | None = None

    @property
    def over(self) -> bool:
        """Closed or failed: nothing more is taken."""
        return self._closed or self.failed

    def stage(self, event: Event, size: int = 0) -> int:
        """Apply the event and put it into the gathering batch; its seq. `size`: bytes of payload."""
        if self.failed:
            raise UnknownOutcome("the log has failed; nothing was stored")
        if self._closed:
            raise Unavailable("the pipe has stopped; nothing was stored")
        try:
            seq = self._apply(event)
        except Exception as error:  # half applied, perhaps: damaged data, or a broken invariant
            self.fail(error)
            raise UnknownOutcome(f"the pipe stops: {error}; outcome unknown") from error
        batch = self.latest = self._gathering
        batch.events.append(event)
        batch.bytes += size + EVENT_BYTES
        if batch.bytes >= self._bytes_max:
            batch.last_seq = seq
            self._full.append(batch)
            self._gathering = Batch()
        if not self._scheduled:
            self._scheduled = True
            self._loop.call_soon(self._turn)
        return seq

    def close(self) -> None:
        """Take nothing from here on; what was staged is durable."""
        self._closed = True

    def flush(self) -> asyncio.Future[None]:
        """Done once everything staged so far is durable; UnknownOutcome when the log failed."""
        batch = self.latest
        if batch is not None:
            return batch.durable()
        if self.failed:
            raise UnknownOutcome("the log has failed; outcome unknown")
        future: asyncio.Future[None] = self._loop.create_future()
        future.set_result(None)
        return future

    def _turn(self) -> None:
        self._scheduled = False
        self._seal()

    def _seal(self) -> None:
        """Whatever cannot be sealed now is when a batch settles."""
        while self._full and not self.failed and len(self._under_way) < self._log.window:
            self._send(self._full.popleft())
        batch = self._gathering
        if not batch.events or self._full or self.failed or len(self._under_way) >= self._log.window:
            return
        if batch.bytes < self._bytes_min and self._more_may_come(batch):
            return
        if self._waiting is not None:
            self._waiting.cancel()
            self._waiting = None
        batch.last_seq = self._machine.seq
        self._gathering = Batch()
        self._send(batch)

    def _more_may_come(self, batch: Batch) -> bool:
        """Whether it is to wait: behind another batch, or a moment for whoever was in that one."""
        if self._under_way:
            return True
        if len(batch.events) >= self._crowd:
            return False
        if self._waiting is None:
            self._waiting = self._loop.call_later(CROWD_S, self._waited)
        return True

    def _waited(self) -> None:
        self._waiting = None
        self._crowd = 0
        self._seal()

    def _send(self, batch: Batch) -> None:
        events = batch.events
        self._under_way.append(batch)
        self.batches += 1
        self.events += len(events)
        try:
            body = encode_batch(events)
            if self.meter is not None:
                self.meter.sealed(batch, len(body))
            if self.on_seal is not None:
                self.on_seal(batch, len(body), batch.last_seq == self._machine.seq)
            first_seq = batch.last_seq - len(events) + 1
            self._log.append(LogBatch(self._machine.term, first_seq, len(events), body), self._settled)
        except Exception as error:  # whatever it is: the events are applied and not in the log
            self.fail(error)

    def _settled(self, error: BaseException | None) -> None:
        if self.failed:
            return  # whoever waited has been told that nobody knows
        if error is not None:
            self.fail(error)
            return
        batch = self._under_way.popleft()
        if batch is self.latest:
            self.latest = None
        if batch.sent_s and self.meter is not None:
            self.meter.durable(batch)
        batch.position = self._log.tail
        self._crowd = len(batch.events) + len(self._gathering.events)
        self._to_release.append(batch)
        if self._releasing:
            return  # the batch before this one is still being answered, further up the stack
        self._releasing = True
        if (self._full or self._gathering.events) and not self._scheduled:
            self._seal()  # first the disk, then the answers: they overlap
        while self._to_release:
            batch = self._to_release.popleft()
            batch.outcome = True
            for waiter in batch.waiters:
                try:
                    waiter(True)
                except Exception as trouble:  # damage found on the way to a handler, or a defect: stop loudly
                    self.fail(trouble)
        self._releasing = False

    def fail(self, error: BaseException) -> None:
        """Take and answer nothing from here on: what was under way is unknown. Only the first call counts."""
        if self.failed:
            return
        self.failed = True
        self.latest = None
        lost = [*self._under_way, *self._full, self._gathering]
        self._under_way.clear()
        self._full.clear()
        self._gathering = Batch()
        for batch in lost:
            batch.outcome = False
            for waiter in batch.waiters:
                waiter(False)
        self._on_failure(error)
