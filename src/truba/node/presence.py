"""Presence: which owners are there. They come, say who they are, break off, and come back or do not.

    attach -> present --connection ended--> away --named again--> present, on the new connection
                 |                           `--grace over--> lost: all that it held is given back
                 `--no sign of life for a session--> that one session is given back

An owner may hold a million sessions: what happens to all of them happens in slices, between which others are served.
What owners and holds are is in `owners`; what becomes of a session that is given back, the node and the machine decide.
"""

from __future__ import annotations

import asyncio
import gc
from collections import deque
from collections.abc import Iterable, Iterator
from functools import partial
from itertools import chain, islice
from typing import TYPE_CHECKING

from truba.errors import BadRequest, NoPerm
from truba.machine.events import Parked
from truba.node.owners import Away, Hold, Leases, Owner, Receiver, token_digest
from truba.ports.store import Head
from truba.types import Cause, Index

if TYPE_CHECKING:
    from truba.node.node import Node

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


class _Loss:
    """What a lost owner held then, and what was still on its way to it, in slices."""

    __slots__ = ("cause", "owner", "slices", "sources")

    def __init__(self, owner: Owner, cause: Cause) -> None:
        self.owner = owner
        self.cause = cause
        self.sources, owner.taking = (owner, *owner.taking), []
        # As they are now: an earlier connection that is still there may name the owner again, and open others.
        self.slices = chain.from_iterable([source.slices(LOST_AT_ONCE) for source in self.sources])


class Presence:
    """Owned by the node, which renews the `leases` itself, with each operation."""

    def __init__(self, node: Node) -> None:
        self.leases = Leases()
        self.losses = 0  # sessions whose owner was lost
        self._node = node
        self._machine = node.machine
        self._stage = node.sequencer.stage
        self._steady_ms = node.clock.steady_ms
        self._loop = asyncio.get_running_loop()
        self._present: dict[bytes, Owner] = {}  # those with a name, by its digest
        self._away = Away()
        self._losing: deque[_Loss] = deque()
        self._lost: dict[bytes, _Loss] = {}  # those of named owners, until all is given back
        self._lost_now = 0  # of it, in this turn of the loop

    # -- coming and going ------------------------------------------------------------------------------------

    def attach(self, receiver: Receiver | None = None) -> Owner:
        """A new owner, without a name: a connection, a client in this process, a handler."""
        return Owner(receiver)

    def detach(self, owner: Owner) -> None:
        """The owner's connection has ended. Its sessions wait for its grace, or are unfinished at once."""
        if owner.digest and self._present.get(owner.digest) is owner:
            del self._present[owner.digest]
        owner.receiver = None
        if self._node.sequencer.over:
            return  # nothing can be logged any more; the next start finds these sessions without an owner
        if owner.superseded:
            return  # what it still holds is on its way to a newer connection
        if (owner.holds or owner.taking) and owner.digest and owner.grace_ms:
            now_ms = self._steady_ms()
            self._away.leave(owner, now_ms)
            self._node.alarm.at(now_ms + owner.grace_ms)
        else:
            self._lose(owner, owner.away_cause)

    # -- names, and coming back ------------------------------------------------------------------------------

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
        node = self._node
        grace_max_ms = round(node.limits.grace_max_s * 1000)
        if grace_ms > grace_max_ms:
            # Never cut silently: the client reckons with the grace that it asked for.
            raise BadRequest(f"GRACE is at most {node.limits.grace_max_s:g} s here (grace_max); nothing was changed")
        digest = token_digest(token)
        if owner.digest and owner.digest != digest:
            raise BadRequest("this connection has named another owner already; nothing was changed")
        if owner.holds and not owner.digest:
            raise BadRequest("OWNER comes before the first NEW of a connection; nothing was changed")
        lost = self._lost.get(digest)
        before = self._present.get(digest) or self._away.get(digest) or (owner if lost is None else lost.owner)
        sources = (before, *before.taking) if lost is None else lost.sources
        if before is not owner and before.user and before.user != owner.user:
            raise NoPerm("that owner belongs to another user; nothing was changed")
        if node.log.space != "plenty":
            heads = self._machine.owned
            if any(heads[hold.number].grace_ms != grace_ms for source in sources for hold in source.holds.values()):
                node.refuse_growth()  # it would log another grace of each
        owner.grace_ms = grace_ms
        if before is not owner:
            self._away.forget(digest)
            before.superseded = True
            owner.taking = [source for source in sources if source is not owner]
            before.taking = []
        if lost is not None:
            # Too late, and what is not given back yet is its own all the same: were it told that it holds nothing, a
            # restart that finds nothing of the rest logged would say otherwise.
            del self._lost[digest]
            lost.slices = chain()
        owner.digest = digest
        owner.superseded = False
        self._present[digest] = owner

    def _take_over(self, owner: Owner) -> Iterator[list[Listed]]:
        heads = self._machine.owned
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
            # Its push is still to come, and would go to the old connection.
            self._node.give_back(hold, Cause.UNREACHABLE)
            return
        before = hold.owner
        self.leases.end(hold)
        before.let_go(hold, "taken")
        if before.receiver is not None:
            before.receiver.released(hold)
        moved = Hold(hold.id, hold.kind, hold.epoch, owner, hold.tag)
        if hold.lane is not None:
            hold.lane.moved(hold, moved)
            moved.lane, moved.since_ms, hold.lane = hold.lane, hold.since_ms, None
        moved.pushed = True
        owner.take_up(moved)
        self.leases.begin(moved, self._node.limit_ms(moved), self._steady_ms())

    def _change_grace(self, hold: Hold) -> None:
        """It is kept by its owner's grace of now: by the log too, so that a restart, or another leader, keeps it."""
        event = self._machine.change_grace(hold.number, hold.epoch, hold.owner.grace_ms)
        if event is not None:
            self._stage(event)
        if event is not None or hold.lease is None:  # it may have ended while a newer connection was there
            self.leases.end(hold)
            self.leases.begin(hold, self._node.limit_ms(hold), self._steady_ms())

    # -- losses ----------------------------------------------------------------------------------------------

    def expire(self, steady_ms: int) -> None:
        """Give back what was held for too long without a sign of life, and lose who stayed away for too long.

        What is left over after so many rings the alarm again at once (`next_ms`), after everybody else had a turn.
        """
        at_once = 0 if self._node.checkpointer.behind else LOST_AT_ONCE
        for hold in islice(self.leases.expired(steady_ms), at_once):
            if not (hold.owner.superseded or hold.owner in self._away):  # else its grace decides, or a new lease begins
                self._node.give_back(hold, Cause.IDLE if hold.epoch == 0 else Cause.LATE)
        for owner in islice(self._away.expired(steady_ms), at_once):
            self._lose(owner, owner.away_cause)

    def next_ms(self, steady_ms: int) -> int | None:
        """When `expire` is to be called, by the steady clock: when the next lease or grace ends, and there is room."""
        ends = (self.leases.next_ms(), self._away.next_ms())
        next_ms = min((end_ms for end_ms in ends if end_ms is not None), default=None)
        if next_ms is None or not self._node.checkpointer.behind:
            return next_ms
        return max(next_ms, steady_ms + BEHIND_MS)

    def _lose(self, owner: Owner, cause: Cause) -> None:
        """Give back what the owner held, a slice in each turn of the loop: one connection may hold very many, and many
        connections may break in one turn."""
        loss = _Loss(owner, cause)
        self._losing.append(loss)
        if owner.digest:
            self._lost[owner.digest] = loss
        self._lose_slices()

    def _lose_slices(self) -> None:
        if self._node.sequencer.over:
            return
        before = self._lost_now
        while self._losing and self._lost_now < LOST_AT_ONCE:
            loss = self._losing[0]
            for hold in (part := next(loss.slices, [])):
                if not hold.ended:
                    self.losses += 1
                    self._node.give_back(hold, loss.cause)
            self._lost_now += len(part)
            if not part:
                self._losing.popleft()
                if self._lost.get(loss.owner.digest) is loss:
                    del self._lost[loss.owner.digest]
        if before == 0 < self._lost_now:
            self._node.when_room(self._lose_more)

    def _lose_more(self) -> None:
        self._lost_now = 0
        self._lose_slices()

    # -- after a start ---------------------------------------------------------------------------------------

    async def find_owners(self) -> None:
        """Sessions that were owned when the last writer ended: their owners may come back within their grace."""
        owners: dict[bytes, Owner] = {}
        steady_ms = self._steady_ms()
        lost: list[Head] = []
        for head in list(self._machine.owned.values()):
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
                    self._node.dispatcher.count(hold)
                owner.take_up(hold)
            else:
                lost.append(head)
        rest = iter(lost)
        self._give_up_for_lost(islice(rest, LOST_AT_START))
        for owner in owners.values():
            self._away.leave(owner, steady_ms)
        await self._node.sequencer.flush()
        self._loop.call_soon(self._go_on_giving_back, rest)

    def _give_up_for_lost(self, heads: Iterable[Head]) -> None:
        clock = self._node.clock
        now_ms = clock.now_ms()
        for head in heads:
            self.losses += 1
            event = self._machine.give_back(head.number, head.epoch, Cause.RESTART, now_ms, clock.chance())
            self._stage(event)
            if type(event) is Parked:
                self._node.tell_parked(head.number, event)

    def _go_on_giving_back(self, rest: Iterator[Head]) -> None:
        """Nobody holds them, so nothing becomes of them meanwhile. A stop leaves the rest to the next start."""
        part = list(islice(rest, LOST_AT_ONCE))
        if part and self._node.accepting:
            self._give_up_for_lost(part)
            self._node.dispatcher.wake()
            self._node.when_room(partial(self._go_on_giving_back, rest))
