"""The machine: `decide` methods answer a wish with an event or a refusal, `apply` is the only thing that changes state.

    New ----------> active --Delete--> gone
                      | \\--Store(t)--> stored --due, handler free--> repeating --Delete--> gone
                      |                  ^  ^                            |  \\--Store(t)--> stored
                      `--owner lost------'  `--handler lost, failed, late, unreachable--'
                                            stored --limits exhausted--> parked --resume--> stored

Pure: clocks and dice come in as arguments, the store is read through its port and never written. A refusal raises
`OperationError` and changes nothing. An event always applies; one that does not is a
broken invariant and ends the node.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, NoReturn

from truba.errors import Busy, DataDamaged, Fenced, NoSession, TooBig, UnknownKind
from truba.kinds import Kind
from truba.machine.due import DueQueue
from truba.machine.events import (
    Appended,
    Created,
    Deleted,
    Event,
    GraceChanged,
    Opened,
    Parked,
    Paused,
    Repeated,
    Replaced,
    Rescheduled,
    Resumed,
    Stored,
)
from truba.machine.history import handed, holds
from truba.machine.layers import OWNED, Layer, Layers
from truba.ports.store import DueKey, Head, Store
from truba.types import Cause, Phase

_ACTIVE, _STORED, _REPEATING, _PARKED = Phase.ACTIVE, Phase.STORED, Phase.REPEATING, Phase.PARKED

SCAN_STEPS = 1000

TRACE_BYTES_MAX = 512
"""A traceparent has 55; what vendors put into a tracestate is theirs to keep short."""

DETAIL_CHARS_MAX = 256
"""What an owner says when it gives a session back is kept in every copy of the log: a line, not a report."""


class Machine:
    """The state of one log. `seq` and `term` are those of the last event applied."""

    def __init__(self, store: Store, kinds: Mapping[int, Kind]) -> None:
        self.kinds = kinds
        self.term = store.summary.applied.term
        self.seq = store.summary.applied.seq
        self.layers = Layers(store)
        self.owned = self.layers.owned  # active and repeating sessions by number: those that can be written to
        self.counts: Counter[tuple[int, Phase]] = Counter(store.summary.counts)
        self.paused = store.summary.paused  # kinds; replaced, never changed, so that a checkpoint may keep it
        self._queues: dict[int, DueQueue] = {}
        self._apply: dict[type[Event], Callable[[Any, int], None]] = {
            Opened: self._opened,
            Created: self._created,
            Appended: self._appended,
            Replaced: self._replaced,
            Deleted: self._deleted,
            Stored: self._stored,
            Repeated: self._repeated,
            Parked: self._parked,
            Resumed: self._resumed,
            Rescheduled: self._rescheduled,
            Paused: self._paused,
            GraceChanged: self._grace_changed,
        }

    # -- decide: wishes of owners ------------------------------------------------------------------------------

    def create(
        self,
        kind_number: int,
        at_ms: int,
        records: list[bytes],
        owner: bytes = b"",
        grace_ms: int = 0,
        tag: int = -1,
        trace: bytes = b"",
    ) -> Created:
        kind = self.kinds.get(kind_number)
        if kind is None:
            raise UnknownKind(f"no kind {kind_number} is configured; nothing was stored")
        if records:
            self._check_size(kind, records, 0, 0)
        if len(trace) > TRACE_BYTES_MAX:
            raise TooBig(
                f"a trace context of {len(trace)} bytes; at most {TRACE_BYTES_MAX} are kept; nothing was stored"
            )
        return Created(kind_number, at_ms, owner, grace_ms, tag, records, trace)

    def append(self, number: int, epoch: int, records: list[bytes]) -> Appended:
        head = self.owned.get(number)
        if head is None or head.epoch != epoch:
            self._refuse(number)
        self._check_size(self.kinds[head.kind], records, head.bytes, head.next - head.first)
        return Appended(number, records)

    def replace(self, number: int, epoch: int, record: bytes) -> Replaced:
        head = self.owned.get(number)
        if head is None or head.epoch != epoch:
            self._refuse(number)
        self._check_size(self.kinds[head.kind], [record], 0, 0)
        return Replaced(number, record)

    def delete(self, number: int, epoch: int) -> Deleted:
        head = self.owned.get(number)
        if head is None or head.epoch != epoch:
            self._refuse(number)
        return Deleted(number)

    def store(self, number: int, epoch: int, due_ms: int, now_ms: int = 0) -> Stored:
        head = self.owned.get(number)
        if head is None or head.epoch != epoch:
            self._refuse(number)
        return Stored(number, due_ms, Cause.STORED, "", now_ms)

    def give_back(
        self, number: int, epoch: int, cause: Cause, now_ms: int, chance: float, detail: str = ""
    ) -> Stored | Parked | Deleted:
        """End a hold without the owner's own decision on when: the kind's policy decides."""
        head = self.owned.get(number)
        if head is None or head.epoch != epoch:
            self._refuse(number)
        kind = self.kinds[head.kind]
        detail = _line(detail)
        if head.phase is _ACTIVE:
            if head.next == head.first:
                return Deleted(number)  # nothing to recover from
            delay_s = kind.recovery_delay_s + chance * kind.jitter_s
        else:
            reached = cause is not Cause.UNREACHABLE
            attempts = head.attempts if reached else head.attempts - 1
            if exhausted := _exhausted(kind, head, attempts, now_ms):
                return Parked(number, cause, _joined(exhausted, detail), now_ms)
            delay_s = kind.backoff.delay_s(attempts if reached else head.deliveries, chance)
        return Stored(number, now_ms + round(delay_s * 1000), cause, detail, now_ms)

    def put_off(self, number: int, epoch: int, due_ms: int, now_ms: int, detail: str = "") -> Stored:
        """The handler says "not now": due again at `due_ms`, and no attempt is used up. Age parks it, if anything."""
        head = self.owned.get(number)
        if head is None or head.epoch != epoch:
            self._refuse(number)
        return Stored(number, due_ms, Cause.UNREACHABLE, _line(detail), now_ms)

    def change_grace(self, number: int, epoch: int, grace_ms: int) -> GraceChanged | None:
        """How long the owner may stay away from now on; None when it is so already."""
        head = self.owned.get(number)
        if head is None or head.epoch != epoch:
            self._refuse(number)
        return None if head.grace_ms == grace_ms else GraceChanged(number, grace_ms)

    # -- decide: wishes of the dispatcher and of operators -----------------------------------------------------

    def repeat(
        self, number: int, now_ms: int, owner: bytes = b"", grace_ms: int = 0, to: str = ""
    ) -> Repeated | Parked | None:
        """Hand over a stored session to the handler configured as `to`: None when it is not due (any more)."""
        head = self.layers.get(number)
        if head is None or head.phase is not _STORED or head.due_ms > now_ms:
            return None
        if exhausted := _exhausted(self.kinds[head.kind], head, head.attempts, now_ms):
            return Parked(number, head.cause, _joined(exhausted, head.detail), now_ms)
        return Repeated(number, owner, grace_ms, now_ms, to)

    def resume(self, number: int, now_ms: int) -> Resumed:
        head = self.layers.get(number)
        if head is None:
            raise NoSession(f"no session with number {number}; nothing was stored")
        if head.phase in OWNED:
            raise Busy(f"session {head.id} is {head.phase}: it has an owner; nothing was stored")
        return Resumed(number, now_ms, now_ms)

    def reschedule(self, number: int, due_ms: int, now_ms: int) -> Rescheduled:
        """Move a stored session to another time. NoSession; Busy when an owner holds it, or it is parked."""
        head = self.layers.get(number)
        if head is None:
            raise NoSession(f"no session with number {number}; nothing was changed")
        if head.phase in OWNED:
            raise Busy(f"session {head.id} is {head.phase}: it has an owner; nothing was changed")
        if head.phase is _PARKED:
            raise Busy(f"session {head.id} is parked: resume it to have it handed over; nothing was changed")
        return Rescheduled(number, now_ms, due_ms)

    def pause(self, kind: int, on: bool, now_ms: int) -> Paused | None:
        """Hand over nothing more of a kind (`on`), or go on. UnknownKind; None when it is so already."""
        if kind not in self.kinds:
            raise UnknownKind(f"no kind {kind} is configured; nothing was changed")
        return None if (kind in self.paused) == on else Paused(kind, now_ms, on)

    def remove(self, number: int) -> Deleted:
        head = self.layers.get(number)
        if head is None:
            raise NoSession(f"no session with number {number}; nothing was stored")
        if head.phase in OWNED:
            raise Busy(f"session {head.id} is {head.phase}: it has an owner; nothing was removed")
        return Deleted(number)

    # -- apply ---------------------------------------------------------------------------------------------------

    def apply(self, event: Event) -> int:
        """Change the state; the event's seq. LookupError: the event does not fit, so the log or the code is wrong."""
        self.seq = seq = self.seq + 1
        self._apply[type(event)](event, seq)
        return seq

    def replay(self, term: int, events: list[Event]) -> None:
        """Apply a batch read from the log. DataDamaged when it does not fit this state."""
        self.begin(term)
        try:
            for event in events:
                self.apply(event)
        except (LookupError, AssertionError) as error:
            raise DataDamaged(f"event {self.term}-{self.seq} of the log does not fit the state: {error!r}") from error

    def begin(self, term: int) -> None:
        """Events from here on are of this term."""
        if term < self.term:
            raise DataDamaged(f"the log goes back from term {self.term} to term {term} after event {self.seq}")
        self.term = term

    def _opened(self, event: Opened, seq: int) -> None:
        pass  # its only effect is the term, which is the batch's

    def _created(self, event: Created, seq: int) -> None:
        records = event.records
        self.layers.add(
            Head(
                self.term, seq, event.kind, _ACTIVE, 0, event.at_ms, event.at_ms, 0, 0, 0, 0, Cause.LOST, "",
                event.owner, event.grace_ms, event.tag, 0, 0, len(records), sum(map(len, records)), (), event.trace,
            ),
            list(records),
        )  # fmt: skip
        self.counts[event.kind, _ACTIVE] += 1

    def _appended(self, event: Appended, seq: int) -> None:
        number = event.number
        young = self.layers.young
        head = young.heads.get(number) or self.layers.thaw(number)
        records = event.records
        young.tails[number] += records
        head.next += len(records)
        head.bytes += len(records[0]) if len(records) == 1 else sum(map(len, records))
        head.operations += 1

    def _replaced(self, event: Replaced, seq: int) -> None:
        number = event.number
        young = self.layers.young
        head = young.heads.get(number) or self.layers.thaw(number)
        young.tails[number] = [event.record]
        head.first = head.next
        head.next += 1
        head.bytes = len(event.record)
        head.chunks = ()
        head.operations += 1

    def _deleted(self, event: Deleted, seq: int) -> None:
        head = self.layers.drop(event.number)
        self._uncount(head)

    def _stored(self, event: Stored, seq: int) -> None:
        head = self._leave(event.number, event.cause, event.detail)
        head.left_ms = event.at_ms
        self._sleep(head, event.due_ms, seq)

    def _repeated(self, event: Repeated, seq: int) -> None:
        head = self.layers.thaw(event.number)
        head.history = handed(head, event.at_ms, event.to)
        self._move(head, _REPEATING)
        head.epoch += 1
        head.deliveries += 1
        head.attempts += 1
        head.due_ms = head.operations = 0
        head.owner = event.owner
        head.grace_ms = event.grace_ms
        head.tag = -1
        self.owned[event.number] = head

    def _parked(self, event: Parked, seq: int) -> None:
        self._close_history(event.number)
        head = self._leave(event.number, event.cause, event.detail)
        head.left_ms = event.at_ms
        self._move(head, _PARKED)
        head.due_ms = 0
        head.order = seq

    def _resumed(self, event: Resumed, seq: int) -> None:
        self._close_history(event.number)
        head = self._leave(event.number, Cause.RESUMED, "")
        head.attempts = 0
        head.aged_from_ms = event.at_ms
        self._sleep(head, event.due_ms, seq)

    def _rescheduled(self, event: Rescheduled, seq: int) -> None:
        self._sleep(self.layers.thaw(event.number), event.due_ms, seq)

    def _paused(self, event: Paused, seq: int) -> None:
        self.paused = self.paused | {event.kind} if event.on else self.paused - {event.kind}

    def _grace_changed(self, event: GraceChanged, seq: int) -> None:
        self.layers.thaw(event.number).grace_ms = event.grace_ms

    def _close_history(self, number: int) -> None:
        """Of a session whose last hold ended before: what its head says of that is about to be written over."""
        head = self.layers.thaw(number)
        head.history = holds(head)

    def _leave(self, number: int, cause: Cause, detail: str) -> Head:
        head = self.layers.thaw(number)
        self.owned.pop(number, None)
        if cause is Cause.UNREACHABLE and head.phase is _REPEATING:
            head.attempts -= 1  # it was delivered, and reached nobody
        head.cause = cause
        head.detail = detail
        head.owner = b""
        head.grace_ms = 0
        head.tag = -1
        return head

    def _sleep(self, head: Head, due_ms: int, seq: int) -> None:
        self._move(head, _STORED)
        head.due_ms = due_ms
        head.order = seq
        self.queue(head.kind).push(DueKey(due_ms, seq, head.number))

    def _move(self, head: Head, phase: Phase) -> None:
        self._uncount(head)
        head.phase = phase
        self.counts[head.kind, phase] += 1

    def _uncount(self, head: Head) -> None:
        key = (head.kind, head.phase)
        counts = self.counts
        if counts[key] == 1:
            del counts[key]
        else:
            counts[key] -= 1

    # -- look -------------------------------------------------------------------------------------------------

    def queue(self, kind: int) -> DueQueue:
        """The stored sessions of a kind in order of hand-over."""
        queue = self._queues.get(kind)
        if queue is None:
            queue = self._queues[kind] = DueQueue(kind, self.layers)
        return queue

    def population(self, kind: int) -> dict[Phase, int]:
        """How many sessions of a kind there are, by phase."""
        return {phase: count for phase in Phase if (count := self.counts[kind, phase])}

    def refuse_to_lose(self, kinds: Iterable[Kind]) -> None:
        """Busy when these leave out a kind that has sessions."""
        kept = {kind.number for kind in kinds}
        for number, kind in self.kinds.items():
            if number not in kept and (count := sum(self.population(number).values())):
                raise Busy(f"kind {kind.name} has {count} sessions: it cannot go before they have; nothing was changed")

    def get(self, number: int) -> Head | None:
        """A session as it is now, not to be changed; None when there is none."""
        return self.layers.get(number)

    def records(self, number: int) -> list[bytes]:
        """All records of a session, in order. NoSession; DataDamaged when the store lacks some."""
        head = self.layers.get(number)
        if head is None:
            raise NoSession(f"no session with number {number}")
        return self.layers.records(head)

    def scan(self, after_number: int = 0) -> Iterator[Head]:
        """All sessions in order of number; the state must not change meanwhile."""
        after: int | None = after_number
        while after is not None:
            heads, after = self.page(after, SCAN_STEPS)
            yield from heads

    def page(self, after_number: int, steps_max: int) -> tuple[list[Head], int | None]:
        """Sessions in order of number, not to be changed, and the number to go on after; None: there are no more.

        At most `steps_max` sessions, and as little work: a page may be short, or empty, before the end.
        """
        return self.layers.page(after_number, self.seq, steps_max)

    # -- checkpoint --------------------------------------------------------------------------------------------

    def freeze(self) -> Layer:
        """The layer that a checkpoint of the state as it is now must write."""
        return self.layers.freeze()

    def settle(self, frozen: Layer) -> None:
        """`frozen` is in the store."""
        self.layers.settle()
        for queue in self._queues.values():
            queue.settle(frozen)

    # -- refusals ----------------------------------------------------------------------------------------------

    def _refuse(self, number: int) -> NoReturn:
        head = self.layers.get(number)
        if head is None:
            raise NoSession(f"session number {number} is finished, or never was; nothing was stored")
        raise Fenced(
            f"session {head.id} is {head.phase} at epoch {head.epoch}: your hold has ended; nothing was stored"
        )

    def _check_size(self, kind: Kind, records: list[bytes], bytes_before: int, records_before: int) -> None:
        size = 0
        limit = kind.record_bytes_max
        for record in records:
            length = len(record)
            if length > limit:
                raise TooBig(
                    f"a record of {length} bytes; kind {kind.name} takes {limit} bytes at most; nothing was stored"
                )
            size += length
        if bytes_before + size > kind.session_bytes_max:
            raise TooBig(
                f"the session would hold {bytes_before + size} bytes; kind {kind.name} allows"
                f" {kind.session_bytes_max}; nothing was stored"
            )
        if records_before + len(records) > kind.session_records_max:
            raise TooBig(
                f"the session would hold {records_before + len(records)} records; kind {kind.name} allows"
                f" {kind.session_records_max}; nothing was stored"
            )


def _exhausted(kind: Kind, head: Head, attempts: int, now_ms: int) -> str:
    """Why the session may not be handed over again, or nothing."""
    if kind.max_attempts and attempts >= kind.max_attempts:
        return f"{attempts} attempts, max_attempts is {kind.max_attempts}"
    age_ms = now_ms - head.aged_from_ms
    if kind.max_age_s and age_ms > kind.max_age_s * 1000:
        return f"{age_ms / 1000:.0f} s old, max_age is {kind.max_age_s:.0f} s"
    return ""


def _line(detail: str) -> str:
    return detail[:DETAIL_CHARS_MAX].encode("utf-8", "replace").decode()


def _joined(first: str, second: str) -> str:
    return f"{first}: {second}"[:DETAIL_CHARS_MAX] if second else first
