"""The node: everything a frontend, a transport or an embedded client may ask of the pipe.

Operations are plain functions: each decides at once, raises a refusal, or stages its event and returns. An answer may
leave once what is staged is durable: `when_durable`, `durable`, or `sequencer.latest`. All calls come on the loop's
thread. Nothing here encodes, writes or knows how a request looked. What operators ask for is in `operators`.
"""

from __future__ import annotations

import asyncio
import gc
from collections import Counter, deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from itertools import chain, islice
from typing import Protocol

from truba.clock import Clock, SystemClock
from truba.errors import BadRequest, Fenced, NoPerm, NoSession, Unavailable, UnknownOutcome
from truba.kinds import Kind
from truba.machine.events import Deleted, Opened, Parked, Stored
from truba.machine.machine import Machine
from truba.node.alarm import Alarm
from truba.node.checkpoint import SESSIONS, Checkpointer
from truba.node.dispatcher import Dispatcher
from truba.node.notices import Notices
from truba.node.operators import Operators
from truba.node.owners import Away, Hold, Leases, Owner, Receiver, token_digest
from truba.node.recovery import recover
from truba.node.sequencer import Sequencer, Waiter
from truba.ports.log import Log
from truba.ports.parked import ParkedHook
from truba.ports.store import Head, Store
from truba.ports.transport import Route
from truba.types import Cause, Index

TICK_MS = 1_000
"""The longest time between two looks at the clocks: a wall clock that jumped is noticed by then."""

LOST_AT_ONCE = 512
"""Sessions given back in one turn of the loop: a few milliseconds."""

MOVED_AT_ONCE = 512
"""Sessions taken over, or told, in one turn of the loop: a few milliseconds."""

MOVED_UNSEEN = 10
"""Slices between two looks of Python's collector at what is young, 2 ms each. What it counts is made less freed, and a
hold taken over is made for one that is freed: in the end it would look at a million at once, for a second."""

BEHIND_MS = 10
"""How long what was left to end by itself, a lease or a grace, waits for a checkpoint that is behind, at a time."""

LOST_AT_START = 4096
"""Sessions given back before a start is over; the rest follows in slices while clients are served."""


Listed = tuple[Index, int, int, int]
"""What an owner that comes back is told of a session: id, kind, tag, operations since New or the last hand-over."""


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
        self.log = log
        self.base = store
        self._loop = asyncio.get_running_loop()
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
        self._notices = Notices(self, hooks or {})
        self.accepting = False
        self.owner_losses = 0
        self.refusals: Counter[str] = Counter()  # by code, of whatever frontend counts them
        self.limits_hit: Counter[str] = Counter()  # by the limit's name in the configuration
        self._space = "plenty"  # as told last
        self._losing: deque[tuple[Iterator[list[Hold]], Cause]] = deque()  # what lost owners still hold, in slices
        self._lost_now = 0  # of it, in this turn of the loop
        self._leases = Leases()
        self._away = Away()
        self._present: dict[bytes, Owner] = {}
        self._alarm = Alarm(self._tick, self.clock)
        self._stage = self.sequencer.stage
        self._steady_ms = self.clock.steady_ms
        self._idle_ms = {kind.number: round(kind.idle_timeout_s * 1000) for kind in kinds}

    # -- life ------------------------------------------------------------------------------------------------

    async def start(self, *, open_term: bool = True) -> None:
        """Open a new term (unless it is open), give back what nobody can come back for, begin to hand over."""
        if open_term:
            self.machine.begin(self.machine.term + 1)
            self._stage(Opened(self.clock.now_ms(), self.name))
            await self.sequencer.flush()
        await self._find_owners()
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
        self._alarm.cancel()
        with suppress(UnknownOutcome):  # the log failed just now: `failed` tells
            while self.sequencer.latest is not None:
                await self.sequencer.flush()
        self.sequencer.close()

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
        self._alarm.cancel()
        if not self.failed.done():
            self.failed.set_result(error)

    async def _find_owners(self) -> None:
        """Sessions that were owned when the last writer ended: their owners may come back within their grace."""
        owners: dict[bytes, Owner] = {}
        steady_ms = self._steady_ms()
        lost: list[Head] = []
        for head in list(self.machine.owned.values()):
            if head.owner and head.grace_ms:
                owner = owners.get(head.owner)
                if owner is None:
                    owner = owners[head.owner] = Owner()
                    owner.digest = head.owner
                    owner.away_cause = Cause.RESTART
                owner.grace_ms = max(owner.grace_ms, head.grace_ms)
                hold = Hold(head.id, head.kind, head.epoch, owner, head.tag)
                hold.pushed = True
                if hold.epoch:
                    self.dispatcher.count(hold)
                owner.take_up(hold)
            else:
                lost.append(head)
        rest = iter(lost)
        self._give_up_for_lost(islice(rest, LOST_AT_START))
        for owner in owners.values():
            self._away.leave(owner, steady_ms)
        await self.sequencer.flush()
        self._loop.call_soon(self._go_on_giving_back, rest)

    def _give_up_for_lost(self, heads: Iterable[Head]) -> None:
        now_ms = self.clock.now_ms()
        for head in heads:
            self.owner_losses += 1
            event = self.machine.give_back(head.number, head.epoch, Cause.RESTART, now_ms, self.clock.chance())
            self._stage(event)
            if type(event) is Parked:
                self._tell_parked(head.number, event)

    def _go_on_giving_back(self, rest: Iterator[Head]) -> None:
        """Nobody holds them, so nothing becomes of them meanwhile. A stop leaves the rest to the next start."""
        part = list(islice(rest, LOST_AT_ONCE))
        if part and self.accepting:
            self._give_up_for_lost(part)
            self.dispatcher.wake()
            self.checkpointer.when_room(partial(self._go_on_giving_back, rest))

    # -- owners ----------------------------------------------------------------------------------------------

    def attach(self, receiver: Receiver | None = None) -> Owner:
        """A new owner, without a name: a connection, a client in this process, a handler."""
        return Owner(receiver)

    def detach(self, owner: Owner) -> None:
        """The owner's connection has ended. Its sessions wait for its grace, or are unfinished at once."""
        if owner.digest and self._present.get(owner.digest) is owner:
            del self._present[owner.digest]
        owner.receiver = None
        if self.sequencer.over:
            return  # nothing can be logged any more; the next start finds these sessions without an owner
        if owner.superseded:
            return  # what it still holds is on its way to a newer connection
        if (owner.holds or owner.taking) and owner.digest and owner.grace_ms:
            now_ms = self._steady_ms()
            self._away.leave(owner, now_ms)
            self._alarm.at(now_ms + owner.grace_ms)
        else:
            self._lose(owner, owner.away_cause)

    def name_owner(self, owner: Owner, token: bytes, grace_ms: int) -> list[Listed]:
        """Say who is behind a connection, and take over at once all that this owner holds (see `take_over`)."""
        return [*chain.from_iterable(self.take_over(owner, token, grace_ms))]

    def take_over(self, owner: Owner, token: bytes, grace_ms: int) -> Iterator[list[Listed]]:
        """Say who is behind a connection; takes over what that owner holds, and tells it.

        In slices, between which others may be served: an owner may hold a million sessions. The connection before has
        lost them all when this returns; the new one has them all when the slices are used up, and must ask for
        nothing, and be told nothing, before. Fenced, instead of a slice, when a yet newer connection came meanwhile.
        """
        self._name(owner, token, grace_ms)
        return self._take_over(owner)

    def _name(self, owner: Owner, token: bytes, grace_ms: int) -> None:
        grace_max_ms = round(self.limits.grace_max_s * 1000)
        if grace_ms > grace_max_ms:
            # Never cut silently: the client reckons with the grace that it asked for.
            raise BadRequest(f"GRACE is at most {self.limits.grace_max_s:g} s here (grace_max); nothing was changed")
        digest = token_digest(token)
        if owner.digest and owner.digest != digest:
            raise BadRequest("this connection has named another owner already; nothing was changed")
        if owner.holds and not owner.digest:
            raise BadRequest("OWNER comes before the first NEW of a connection; nothing was changed")
        before = self._present.get(digest) or self._away.get(digest) or owner
        if before is not owner and before.user and before.user != owner.user:
            raise NoPerm("that owner belongs to another user; nothing was changed")
        if self.log.space != "plenty":
            heads, sources = self.machine.owned, (before, *before.taking)
            if any(heads[hold.number].grace_ms != grace_ms for source in sources for hold in source.holds.values()):
                self._refuse_growth()  # it would log another grace of each
        owner.grace_ms = grace_ms
        if before is not owner:
            self._away.forget(digest)
            before.superseded = True
            owner.taking = [source for source in (before, *before.taking) if source is not owner]
            before.taking = []
        owner.digest = digest
        owner.superseded = False
        self._present[digest] = owner

    def _take_over(self, owner: Owner) -> Iterator[list[Listed]]:
        heads = self.machine.owned
        for source in (owner, *owner.taking):
            for at, part in enumerate(source.slices(MOVED_AT_ONCE), 1):
                if at % MOVED_UNSEEN == 0:
                    gc.collect(1)
                listed = list[Listed]()
                for hold in part:
                    if source is not owner:
                        self._move(hold, owner)
                    if (own := owner.holds.get(hold.id_text)) is not None:
                        self._change_grace(own)
                        listed.append((own.id, own.kind, own.tag, heads[own.number].operations))
                yield listed
                owner.refuse_superseded()
        owner.taking = []

    def _move(self, hold: Hold, owner: Owner) -> None:
        if hold.ended:
            return
        if hold.epoch and not hold.pushed:
            self.give_back(hold, Cause.UNREACHABLE)  # its push is still to come, and would go to the old connection
            return
        before = hold.owner
        self._leases.end(hold)
        before.let_go(hold, "taken")
        if before.receiver is not None:
            before.receiver.released(hold)
        moved = Hold(hold.id, hold.kind, hold.epoch, owner, hold.tag)
        if hold.lane is not None:
            hold.lane.moved(hold, moved)
            moved.lane, moved.since_ms, hold.lane = hold.lane, hold.since_ms, None
        moved.pushed = True
        owner.take_up(moved)
        self._leases.begin(moved, self._limit_ms(moved), self._steady_ms())

    def _change_grace(self, hold: Hold) -> None:
        """It is kept by its owner's grace of now: by the log too, so that a restart, or another leader, keeps it."""
        event = self.machine.change_grace(hold.number, hold.epoch, hold.owner.grace_ms)
        if event is not None:
            self._stage(event)
            self._leases.end(hold)
            self._leases.begin(hold, self._limit_ms(hold), self._steady_ms())

    def _limit_ms(self, hold: Hold) -> int:
        if hold.epoch == 0:
            # Never less than the grace: a client that comes back in time must find what it opened just before.
            return max(self._idle_ms[hold.kind], hold.owner.grace_ms)
        return round(self.kinds[hold.kind].handler_timeout_s * 1000)

    def _lose(self, owner: Owner, cause: Cause) -> None:
        """Give back what the owner held, a slice in each turn of the loop: one connection may hold very many, and many
        connections may break in one turn."""
        sources, owner.taking = (owner, *owner.taking), []  # with what was still on the way to it
        self._losing.append((chain.from_iterable(source.slices(LOST_AT_ONCE) for source in sources), cause))
        self._lose_slices()

    def _lose_slices(self) -> None:
        if self.sequencer.over:
            return
        before = self._lost_now
        while self._losing and self._lost_now < LOST_AT_ONCE:
            slices, cause = self._losing[0]
            for hold in (part := next(slices, [])):
                if not hold.ended:
                    self.owner_losses += 1
                    self.give_back(hold, cause)
            self._lost_now += len(part)
            if not part:
                self._losing.popleft()
        if before == 0 < self._lost_now:
            self.checkpointer.when_room(self._lose_more)

    def _lose_more(self) -> None:
        self._lost_now = 0
        self._lose_slices()

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

    def look_up(self, index: Index) -> Head:
        """A session, whoever holds it. NoSession."""
        head = self.machine.get(index.seq)
        if head is None or head.id != index:
            raise NoSession(f"no session {index}: it is finished, or never was")
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
            self._refuse_growth()
        event = self.machine.create(kind, self.clock.now_ms(), records, owner.digest, owner.grace_ms, tag, trace)
        seq = self._stage(event, sum(map(len, records)))
        hold = Hold(Index(self.machine.term, seq), kind, 0, owner, tag)
        owner.take_up(hold)
        self._leases.begin(hold, max(self._idle_ms[kind], owner.grace_ms), self._steady_ms())
        return hold

    def append(self, hold: Hold, records: list[bytes]) -> None:
        """Add records, all or none."""
        if hold.ended:
            hold.check()
        if self.log.space != "plenty":
            self._refuse_growth()
        size = len(records[0]) if len(records) == 1 else sum(map(len, records))
        self._stage(self.machine.append(hold.number, hold.epoch, records), size)
        self._leases.renew(hold, self._steady_ms())

    def replace(self, hold: Hold, record: bytes) -> None:
        """Drop the records so far and add this one."""
        if hold.ended:
            hold.check()
        if self.log.space != "plenty":
            self._refuse_growth()
        self._stage(self.machine.replace(hold.number, hold.epoch, record), len(record))
        self._leases.renew(hold, self._steady_ms())

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
            self._tell_parked(hold.number, event)
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

    def _refuse_growth(self) -> None:
        self.limits_hit["reserve"] += 1
        raise Unavailable(
            "the disk is nearly full: only Delete, Store and Fail are taken until there is space; nothing was stored"
        )

    def _tell_parked(self, number: int, event: Parked) -> None:
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
            self._tell_parked(number, event)
            return None
        head = self.machine.owned[number]
        hold = Hold(head.id, head.kind, head.epoch, owner)
        owner.take_up(hold)
        owner.unpushed_bytes += head.bytes
        self._leases.begin(hold, self._limit_ms(hold), self._steady_ms())
        return hold

    # -- waiting --------------------------------------------------------------------------------------------

    def when_durable(self, waiter: Waiter) -> None:
        """Call `waiter` once everything staged so far is durable (at once if it is)."""
        batch = self.sequencer.latest
        if batch is None:
            waiter(not self.sequencer.failed)
        else:
            batch.waiters.append(waiter)

    # -- time ------------------------------------------------------------------------------------------------

    def wake_at(self, due_ms: int) -> None:
        """A session is due then: have the dispatcher look by that time."""
        delay_ms = due_ms - self.clock.now_ms()
        if delay_ms <= 0:
            self.dispatcher.wake()
        elif delay_ms < TICK_MS:
            self._alarm.at(self._steady_ms() + delay_ms)

    def rearm(self) -> None:
        """Set the alarm to the next thing that time will bring."""
        steady_ms = self._steady_ms()
        next_ms = steady_ms + TICK_MS
        soonest_ms = steady_ms + BEHIND_MS if self.checkpointer.behind else 0
        for candidate in (self._leases.next_ms(), self._away.next_ms()):
            if candidate is not None:
                next_ms = min(next_ms, max(candidate, soonest_ms))
        wait_ms = self.dispatcher.wait_ms(self.clock.now_ms(), steady_ms)
        if wait_ms is not None:
            next_ms = min(next_ms, steady_ms + wait_ms)
        self._alarm.at(next_ms)

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
        # What is left over after so many rings the alarm again at once (`rearm`), after everybody else had a turn.
        at_once = 0 if self.checkpointer.behind else LOST_AT_ONCE
        for hold in islice(self._leases.expired(steady_ms), at_once):
            if not (hold.owner.superseded or hold.owner in self._away):  # else its grace decides, or a new lease begins
                self.give_back(hold, Cause.IDLE if hold.epoch == 0 else Cause.LATE)
        for owner in islice(self._away.expired(steady_ms), at_once):
            self._lose(owner, owner.away_cause)
        space = self.log.space
        if space != self._space:
            self._space = space
            self.tell("disk space", space=space, taken="all" if space == "plenty" else "Delete, Store and Fail only")
        self.dispatcher.wake()
        self.rearm()
