"""The node: everything a frontend, a transport or an embedded client may ask of the pipe.

Operations are plain functions: each decides at once, raises a refusal, or stages its event and returns. An answer may
leave once what is staged is durable: `when_durable`, `durable`, or `sequencer.latest`. All calls come on the loop's
thread. Nothing here encodes, writes or knows how a request looked. How owners come and go is in `presence`, what
operators ask for in `operators`.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import NoReturn, Protocol

from truba.clock import Clock, SystemClock
from truba.errors import BadRequest, Fenced, NoSession, TooBig, Unavailable, UnknownOutcome
from truba.kinds import Kind
from truba.machine.events import Deleted, Opened, Parked, Stored
from truba.machine.machine import Machine
from truba.node.alarm import Alarm
from truba.node.checkpoint import SESSIONS, Checkpointer
from truba.node.dispatcher import Dispatcher
from truba.node.notices import Notices
from truba.node.operators import Operators
from truba.node.owners import Hold, Owner
from truba.node.presence import Presence
from truba.node.recovery import recover
from truba.node.sequencer import Sequencer, Waiter
from truba.ports.log import Log
from truba.ports.parked import ParkedHook
from truba.ports.store import Head, Store
from truba.ports.transport import Route
from truba.types import Cause, Index

TICK_MS = 1_000
"""The longest time between two looks at the clocks: a wall clock that jumped is noticed by then."""


class Tell(Protocol):
    """Where what operators should hear of goes: a structured logger's `warning`, say. Never records' contents."""

    def __call__(self, event: str, /, **fields: object) -> object: ...


def _tell_nobody(event: str, /, **fields: object) -> None:
    """An embedded pipe's handlers tell for themselves."""


@dataclass(frozen=True, slots=True)
class Limits:
    """Bounds of a node that are no kind's."""

    grace_max_s: float = 300.0
    checkpoint_bytes: int = 64 << 20
    checkpoint_sessions: int = SESSIONS
    write_bytes_max: int = 1 << 30
    """Of the records of one operation: whoever writes from within this process is bounded by no request. A frame of the
    log holds less than 4 GiB; a message of a cluster's stream, what one request may have."""


class Node:
    """One pipe in this process. Made by `truba.embedded` and `truba.service`, which also own log and store."""

    def __init__(
        self,
        log: Log,
        store: Store,
        kinds: Sequence[Kind],
        routes: Mapping[int, Route],
        *,
        name: str = "",
        limits: Limits | None = None,
        clock: Clock | None = None,
        tell: Tell | None = None,
        machine: Machine | None = None,
        checkpointer: Checkpointer | None = None,
        hooks: Mapping[int, ParkedHook] | None = None,
    ) -> None:
        """`machine`, with its `checkpointer`: the state of the log as it is, for who has it already; else recovered.
        `hooks`: who is told of parked sessions, by kind.
        """
        self.kinds = {kind.number: kind for kind in kinds}
        self.kind_numbers = {kind.name: kind.number for kind in kinds}
        self.name = name
        self.clock = clock or SystemClock()
        self.tell = tell or _tell_nobody
        self.limits = limits or Limits()
        self._write_bytes_max = self.limits.write_bytes_max
        self.log = log
        self.base = store
        self.machine = machine or recover(log, store, self.kinds)
        self.failed: asyncio.Future[BaseException] = asyncio.get_running_loop().create_future()
        self.sequencer = Sequencer(log, self.machine, self._ended)
        self.checkpointer = checkpointer or Checkpointer(
            self.machine, log, store, self.limits.checkpoint_bytes, self.give_up, self.limits.checkpoint_sessions
        )
        self.checkpointer.on_failure = self.give_up
        self.sequencer.on_seal = self.checkpointer.sealed
        self.dispatcher = Dispatcher(self, routes)
        self.operators = Operators(self)
        self.presence = Presence(self)
        self._notices = Notices(self, hooks or {})
        self.accepting = False
        self.refusals: Counter[str] = Counter()  # by code, of whatever frontend counts them
        self.limits_hit: Counter[str] = Counter()  # by the limit's name in the configuration
        self._space = "plenty"  # as told last
        self.alarm = Alarm(self._tick, self.clock)
        self._leases = self.presence.leases
        self._stage = self.sequencer.stage
        self._steady_ms = self.clock.steady_ms
        self._idle_ms = {kind.number: round(kind.idle_timeout_s * 1000) for kind in kinds}

    # -- life ------------------------------------------------------------------------------------------------

    async def start(self, *, open_term: bool = True) -> None:
        """Open a new term (unless it is open), give back what nobody can come back for, begin to hand over.
        UnknownOutcome: the log, or a checkpoint, has failed."""
        if open_term:
            self.machine.begin(self.machine.term + 1)
            self._stage(Opened(self.clock.now_ms(), self.name))
            await self.sequencer.flush()
        await self.presence.find_owners()
        await self.sequencer.flush()  # it may have failed in this very turn, with all of that durable
        self.accepting = True
        self.dispatcher.start()
        self._tick()

    def drain(self) -> None:
        """Take no new sessions, hand over nothing more."""
        self.accepting = False
        self.dispatcher.pause()

    async def retire(self) -> None:
        """After the frontends have closed: what is staged becomes durable, nothing more is taken."""
        self.drain()
        await self.dispatcher.stop()
        await self._notices.close()
        with suppress(UnknownOutcome):  # the log failed just now: `failed` tells
            while self.sequencer.latest is not None:
                await self.sequencer.flush()
        self.sequencer.close()
        self.alarm.cancel()  # not before: what is given back meanwhile sets it again

    async def stop(self) -> None:
        """Retire, and take a checkpoint, which makes the next start quick."""
        try:
            await self.retire()
            if not self.failed.done() and self.log.space == "plenty":  # else the next start replays a little more
                with suppress(UnknownOutcome):  # as above
                    await self.checkpoint()
        finally:
            await self.checkpointer.close()

    def reconfigure(
        self, kinds: Sequence[Kind], routes: Mapping[int, Route], hooks: Mapping[int, ParkedHook] | None = None
    ) -> None:
        """Go on with these, from this moment; Busy: a kind that is left out has sessions, and nothing was changed.

        What handlers hold stays with them, whatever becomes of their route; sessions keep the `idle_timeout` that they
        were taken up with.
        """
        self.machine.refuse_to_lose(kinds)
        self.kinds.clear()
        self.kinds.update((kind.number, kind) for kind in kinds)
        self.machine.kinds = self.kinds
        self.kind_numbers = {kind.name: kind.number for kind in kinds}
        self._idle_ms = {kind.number: round(kind.idle_timeout_s * 1000) for kind in kinds}
        self.dispatcher.reconfigure(self.kinds, routes)
        self._notices.replace(hooks or {})

    async def checkpoint(self) -> None:
        """Take a checkpoint of the state as it is, once all of it is durable. UnknownOutcome when the log failed."""
        while True:
            await self.checkpointer.wait()
            # It tells, too, that the log has failed: the state is ahead of it then, and must not be written.
            await self.sequencer.flush()
            if not self.checkpointer.running and self.sequencer.latest is None:
                break
        # No turn of the loop between here and the freeze: the state is exactly that of the log's tail.
        await self.checkpointer.now()

    def give_up(self, error: BaseException) -> None:
        """Nothing in memory, or nothing on the disk, may be trusted any more: take and answer nothing from here on."""
        self.sequencer.fail(error)

    def _ended(self, error: BaseException) -> None:
        self.accepting = False
        self.dispatcher.pause()
        self.alarm.cancel()
        if not self.failed.done():
            self.failed.set_result(error)

    # -- operations ------------------------------------------------------------------------------------------

    def find(self, owner: Owner, id_text: bytes) -> Hold:
        """The hold that a request means. BadRequest, NoSession, Fenced, Closed."""
        try:
            return owner.find(id_text)
        except NoSession:
            head = self.machine.get(Index.parse(id_text.partition(b"@")[0]).seq)
            if head is None or b"%d-%d" % head.id != id_text.partition(b"@")[0]:
                raise
            raise Fenced(
                f"session {head.id} is {head.phase} at epoch {head.epoch} and not yours; nothing was stored"
            ) from None

    def look_up(self, index: Index, unchanged: str = "") -> Head:
        """A session, whoever holds it. NoSession ends with `unchanged`: what did not happen, if anything could."""
        head = self.machine.get(index.seq)
        if head is None or head.id != index:
            raise NoSession(f"no session {index}: it is finished, or never was{unchanged}")
        return head

    def new(self, owner: Owner, kind: int, records: list[bytes], tag: int = -1, trace: bytes = b"") -> Hold:
        """Open a session; a tag that this owner already uses for an open one answers that one.

        `trace`: a trace context, kept with the session and given to its handlers; nobody looks into it.
        """
        if not self.accepting:
            raise Unavailable("the pipe is starting or stopping and takes no new sessions; nothing was stored")
        if not -1 <= tag < 2**63:
            raise BadRequest(f"a tag is a number from 0 to 2^63-1, not {tag}; nothing was stored")
        owner.refuse_superseded()
        if tag >= 0 and owner.digest and (known := owner.tags.get(tag)) is not None:
            return known
        if self.log.space != "plenty":
            self.refuse_growth()
        size = sum(map(len, records))
        if size > self._write_bytes_max:
            self._refuse_size(size)
        event = self.machine.create(kind, self.clock.now_ms(), records, owner.digest, owner.grace_ms, tag, trace)
        seq = self._stage(event, size)
        hold = Hold(Index(self.machine.term, seq), kind, 0, owner, tag)
        owner.take_up(hold)
        self._leases.begin(hold, max(self._idle_ms[kind], owner.grace_ms), self._steady_ms())
        return hold

    def append(self, hold: Hold, records: list[bytes]) -> None:
        """Add records, all or none."""
        if hold.ended:
            hold.check()
        if self.log.space != "plenty":
            self.refuse_growth()
        size = len(records[0]) if len(records) == 1 else sum(map(len, records))
        if size > self._write_bytes_max:
            self._refuse_size(size)
        self._stage(self.machine.append(hold.number, hold.epoch, records), size)
        self._leases.renew(hold, self._steady_ms())

    def replace(self, hold: Hold, record: bytes) -> None:
        """Drop the records so far and add this one."""
        if hold.ended:
            hold.check()
        if self.log.space != "plenty":
            self.refuse_growth()
        if len(record) > self._write_bytes_max:
            self._refuse_size(len(record))
        self._stage(self.machine.replace(hold.number, hold.epoch, record), len(record))
        self._leases.renew(hold, self._steady_ms())

    def _refuse_size(self, size: int) -> NoReturn:
        raise TooBig(f"{size} bytes of records at once; {self._write_bytes_max} at most; nothing was stored")

    def delete(self, hold: Hold) -> None:
        """The job is done."""
        if hold.ended:
            hold.check()
        self._stage(self.machine.delete(hold.number, hold.epoch))
        self._end(hold, "closed")

    def store(self, hold: Hold, delay_ms: int) -> None:
        """Close the session; due `delay_ms` from now."""
        if hold.ended:
            hold.check()
        due_ms = self.clock.now_ms() + delay_ms
        self._stage(self.machine.store(hold.number, hold.epoch, due_ms, due_ms - delay_ms))
        self._end(hold, "closed")
        self.wake_at(due_ms)

    def fail(self, hold: Hold, reason: str = "", cause: Cause = Cause.FAILED, delay_ms: int | None = None) -> None:
        """The owner gives the session back; the kind's policy, or `put_off`, says when it is handed over."""
        if hold.ended:
            hold.check()
        self._give_back(hold, cause, reason, delay_ms)
        self._end(hold, "closed", cause, reason)

    def put_off(self, hold: Hold, delay_ms: int, reason: str) -> None:
        """A handler that cannot work at all now names its own time; no attempt is used up. The kind's jitter comes on
        top, so that what was put off together does not come back together."""
        self.fail(hold, reason, Cause.UNREACHABLE, delay_ms)

    def touch(self, hold: Hold) -> None:
        """A sign of life; nothing is logged."""
        if hold.ended:
            hold.check()
        self._leases.renew(hold, self._steady_ms())

    def give_back(self, hold: Hold, cause: Cause) -> None:
        """The pipe itself ends a hold: the owner was lost, idle, late or could not be reached."""
        if hold.ended:
            return
        if hold.epoch and not hold.pushed:
            cause = Cause.UNREACHABLE  # whatever ended it: no handler has seen it
        self._give_back(hold, cause, "")
        owner = hold.owner
        self._end(hold, "taken", cause)
        if owner.receiver is not None and cause is not Cause.UNREACHABLE:
            owner.receiver.lost(hold, cause)

    def _give_back(self, hold: Hold, cause: Cause, reason: str, delay_ms: int | None = None) -> None:
        now_ms, chance = self.clock.now_ms(), self.clock.chance()
        event: Stored | Parked | Deleted
        if delay_ms is None:
            event = self.machine.give_back(hold.number, hold.epoch, cause, now_ms, chance, reason)
        else:
            due_ms = now_ms + delay_ms + round(chance * self.kinds[hold.kind].jitter_s * 1000)
            event = self.machine.put_off(hold.number, hold.epoch, due_ms, now_ms, reason)
        self._stage(event)
        if type(event) is Parked:
            self.tell_parked(hold.number, event)
        elif hold.epoch:
            detail = event.detail if isinstance(event, Stored) else ""
            self.tell("hand-over failed", session=str(hold.id), kind=hold.kind, cause=cause.value, detail=detail)
        if type(event) is Stored:
            self.wake_at(event.due_ms)

    def _end(self, hold: Hold, how: str, cause: Cause | None = None, detail: str = "") -> None:
        self._leases.end(hold)
        owner = hold.owner
        owner.let_go(hold, "closed" if how == "closed" else "taken")
        if hold.lane is not None:
            hold.lane.left(hold, cause, detail)
            hold.lane = None
        if owner.receiver is not None:
            owner.receiver.released(hold)

    def refuse_growth(self) -> None:
        """The disk is nearly full. Unavailable."""
        self.limits_hit["reserve"] += 1
        raise Unavailable(
            "the disk is nearly full: only Delete, Store and Fail are taken until there is space; nothing was stored"
        )

    def tell_parked(self, number: int, event: Parked) -> None:
        """A session was parked just now."""
        head = self.machine.get(number)
        assert head is not None  # it was parked just now
        self.tell("session parked", session=str(head.id), kind=head.kind, cause=event.cause.value, detail=event.detail)
        self._notices.parked(head.kind, number)

    # -- hand-over -------------------------------------------------------------------------------------------

    def grant(self, number: int, owner: Owner, now_ms: int, to: str = "") -> Hold | None:
        """Stage the hand-over of a due session; None when it was parked instead, or is not due.

        `to`: the handler as configured, for the session's history.
        The caller arms the alarm (`rearm`) once it has granted all.
        """
        event = self.machine.repeat(number, now_ms, owner.digest, owner.grace_ms, to)
        if event is None:
            return None
        self._stage(event)
        if type(event) is Parked:
            self.tell_parked(number, event)
            return None
        head = self.machine.owned[number]
        hold = Hold(head.id, head.kind, head.epoch, owner)
        owner.take_up(hold)
        owner.unpushed_bytes += head.bytes
        self._leases.begin(hold, self.limit_ms(hold), self._steady_ms())
        return hold

    # -- waiting --------------------------------------------------------------------------------------------

    def when_durable(self, waiter: Waiter) -> None:
        """Call `waiter` once everything staged so far is durable (at once if it is)."""
        batch = self.sequencer.latest
        if batch is None:
            waiter(not self.sequencer.failed)
        else:
            batch.waiters.append(waiter)

    def when_room(self, go_on: Callable[[], object]) -> None:
        """Call it in a turn of its own, once everything staged so far is durable and no checkpoint is behind.

        For whoever changes very many sessions in slices, and keeps nobody waiting: it would run away from the disk.
        """
        self.when_durable(lambda _durable: self.checkpointer.when_room(go_on))

    # -- time ------------------------------------------------------------------------------------------------

    def limit_ms(self, hold: Hold) -> int:
        """How long a hold may last without a sign of life."""
        if hold.epoch == 0:
            # Never less than the grace: a client that comes back in time must find what it opened just before.
            return max(self._idle_ms[hold.kind], hold.owner.grace_ms)
        return round(self.kinds[hold.kind].handler_timeout_s * 1000)

    def wake_at(self, due_ms: int) -> None:
        """A session is due then: have the dispatcher look by that time."""
        delay_ms = due_ms - self.clock.now_ms()
        if delay_ms <= 0:
            self.dispatcher.wake()
        elif delay_ms < TICK_MS:
            self.alarm.at(self._steady_ms() + delay_ms)

    def rearm(self) -> None:
        """Set the alarm to the next thing that time will bring."""
        steady_ms = self._steady_ms()
        next_ms = steady_ms + TICK_MS
        if (end_ms := self.presence.next_ms(steady_ms)) is not None:
            next_ms = min(next_ms, end_ms)
        wait_ms = self.dispatcher.wait_ms(self.clock.now_ms(), steady_ms)
        if wait_ms is not None:
            next_ms = min(next_ms, steady_ms + wait_ms)
        self.alarm.at(next_ms)

    def _tick(self) -> None:
        try:
            self._expire()
        except Exception as error:  # damage, or a defect: time must not stand still in silence
            self.give_up(error)

    def _expire(self) -> None:
        if (failure := self.log.failure) is not None:
            self.give_up(failure)  # nobody was appending who could have been told
            return
        steady_ms = self._steady_ms()
        self.presence.expire(steady_ms)
        space = self.log.space
        if space != self._space:
            self._space = space
            self.tell("disk space", space=space, taken="all" if space == "plenty" else "Delete, Store and Fail only")
        self.dispatcher.wake()
        self.rearm()
