"""Clients: open sessions, write, end them or not, lose their connection, come back with their token, late, or never."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, replace
from random import Random
from typing import TYPE_CHECKING

import hiredis

from tests.simulation.checker import Call
from tests.simulation.peers import Peer

if TYPE_CHECKING:
    from tests.simulation.world import World

PIPE = ("pipe", 7433)

SESSIONS_MAX = 4  # of one client at once
OVER = ("delete", "store", "fail")
LOST = ("FENCED", "NOSESSION", "CLOSED")


@dataclass(frozen=True, slots=True)
class Habits:
    """What kind of client it is."""

    token: bytes  # empty: it cannot come back
    grace_s: float
    think_s: float
    burst_max: int
    careless: float  # how often it does what it should not: writes after the end, to lost sessions, too much
    finishing: float  # how often it ends a session by Delete
    large: float  # how often a record is large


@dataclass(slots=True, eq=False)
class Open:
    """A session as its client sees it."""

    id: str
    call: Call  # the New
    ending: Call | None = None


class Client:
    """One process that uses the pipe."""

    def __init__(self, world: World, name: str, habits: Habits, dice: Random) -> None:
        self.world = world
        self.name = name
        self.habits = habits
        self.dice = dice
        self.peer: Peer | None = None
        self.sessions: dict[str, Open] = {}
        self.lost: list[str] = []  # sessions that are not its own any more
        self._count = 0
        self._links = 0

    async def live(self) -> None:
        """Until the storm is over; then in order to an end."""
        dice, habits, world = self.dice, self.habits, self.world
        await asyncio.sleep(dice.random() * habits.think_s)
        while not world.calm:
            if self.peer is None or self.peer.lost:
                await self.connect()
            if self.peer is not None and not self.peer.lost:
                await self.burst(self.peer)
                chance = dice.random()
                if chance > 0.96 and habits.token:
                    await self.go_over(self.peer)
                elif chance < 0.02:
                    self.peer.hang_up(farewell=chance < 0.01)  # it dies, and another process begins in its place
                    if chance > 0.015:
                        await world.during_storm(dice.random() * 2 * (habits.grace_s + 1.0))
            await world.during_storm(dice.expovariate(1 / habits.think_s))
        await self.end()

    async def end(self) -> None:
        """The storm is over: what it still holds it ends, or leaves to the pipe."""
        for _ in range(100):
            if self.peer is not None and not self.peer.lost:
                break
            await self.connect()
            await asyncio.sleep(0.1)
        peer = self.peer
        assert peer is not None, "nobody answers, though the storm is over"
        for session in list(self.sessions.values()):
            if self.dice.random() < 0.7:
                self._end(peer, session, self.dice.random() < 0.7)
        await peer.answers()
        if not peer.lost:
            peer.hang_up(farewell=self.dice.random() < 0.5)

    # -- coming and going ---------------------------------------------------------------------------------------

    async def connect(self) -> None:
        world = self.world
        self._links += 1
        try:
            peer = await world.connect(self.name, f"{self.name}/{self._links}")
        except OSError:
            return
        self.peer = peer
        if not self.habits.token:
            self._lose_all()
            return
        asked_s = world.clock.steady_s
        asked = peer.ask(b"OWNER", self.habits.token, b"GRACE", b"%g" % self.habits.grace_s)
        if self.dice.random() < 0.1 and not world.calm:  # it dies while it takes over what it has held before
            await asyncio.sleep(self.dice.random() * 3 * world.plan.latency_s)
            peer.hang_up(farewell=False)
        answer = await asked
        if answer is None:
            return
        if isinstance(answer, hiredis.ReplyError):
            if not str(answer).startswith("FENCED a newer connection"):
                raise AssertionError(f"OWNER was refused: {answer}")
            # What its last connection had asked before it died arrives only now. It comes back once more.
            world.story.tell(self.name, "is superseded by what it had asked before")
            peer.hang_up(farewell=True)
            return
        held = [(session.decode(), kind, tag, operations) for session, kind, tag, operations in answer]
        world.story.tell(self.name, "owns", *(f"{session}:{operations}" for session, _, _, operations in held))
        world.checker.listed(
            self.name, asked_s, world.clock.steady_s, held, [(session, 0) for session in self.sessions]
        )
        listed = {session for session, _, _, _ in held}
        # A connection that was superseded is refused what its owner holds: it looked lost, and is not.
        self.lost = [session for session in self.lost if session not in listed]
        for session in list(self.sessions):
            if session not in listed:
                del self.sessions[session]
                self.lost.append(session)
        for session, _, _, _ in held:
            if session not in self.sessions:
                new = world.checker.sessions[session].holds[0].calls[0]
                self.sessions[session] = Open(session, new)
            self.sessions[session].ending = None

    async def go_over(self, old: Peer) -> None:
        """To a new connection, while the old one is still there, and goes on as if nothing had happened."""
        await self.connect()
        if self.peer is not None and self.peer is not old and not self.peer.lost:
            for session in list(self.sessions)[:2]:
                if not old.lost:
                    old.call(self._call(old, self.dice.choice(("append", "delete")), session, stale=True))
            await old.answers()
        if not old.lost:
            old.hang_up(farewell=True)

    def _lose_all(self) -> None:
        self.lost += self.sessions
        self.sessions.clear()

    # -- work ---------------------------------------------------------------------------------------------------

    async def burst(self, peer: Peer) -> None:
        """A few requests at once, then all their answers."""
        calls = [self._something(peer) for _ in range(1 + int(self.dice.random() * self.habits.burst_max))]
        await peer.answers()
        for call in calls:
            self._learn(call)

    def _something(self, peer: Peer) -> Call:
        dice, habits = self.dice, self.habits
        careless = dice.random() < habits.careless
        if careless and self.lost:
            stolen = self._call(peer, "append", dice.choice(self.lost), stale=True)
            peer.call(stolen)
            return stolen
        choice = [each for each in self.sessions.values() if each.ending is None or careless]
        if not choice or (len(self.sessions) < SESSIONS_MAX and dice.random() < 0.25):
            new = self._new(peer)
            peer.call(new)
            if new.tag >= 0 and not new.refusable and dice.random() < 0.1:
                peer.call(replace(new, again=new))
            return new
        session = dice.choice(choice)
        chance = dice.random()
        if chance < 0.3:
            return self._end(peer, session, dice.random() < habits.finishing)
        verb = "append" if chance < 0.8 else "replace" if chance < 0.95 else "touch"
        call = self._call(peer, verb, session.id, never=careless and verb != "touch" and session.ending is None)
        peer.call(call)
        return call

    def _end(self, peer: Peer, session: Open, finish: bool) -> Call:
        dice = self.dice
        call = self._call(peer, "delete" if finish else "store" if dice.random() < 0.75 else "fail", session.id)
        if call.verb == "store":
            call.seconds = round(self.world.plan.store_s * dice.random() ** 2, 3)
        session.ending = call
        peer.call(call)
        return call

    def _new(self, peer: Peer) -> Call:
        dice, world = self.dice, self.world
        records = self._records(dice.choice((0, 1, 1, 1, 2)))
        self._count += 1
        tag = self._count if self.habits.token else -1
        kind = dice.choice(world.plan.kinds).number
        return Call(
            self.name, peer.link, "", 0, "new", world.clock.steady_s, records,
            tag=tag, kind=kind, grace_s=self.habits.grace_s, refusable=world.plan.tight_disk,
        )  # fmt: skip

    def _call(self, peer: Peer, verb: str, session: str, *, stale: bool = False, never: bool = False) -> Call:
        records: tuple[bytes, ...] = ()
        if verb in ("append", "replace"):
            records = self._records(self.dice.choice((1, 1, 1, 2, 3)) if verb == "append" else 1)
            if never:
                records = (records[0] + bytes(self.world.plan.record_bytes_max),)
        return Call(
            self.name, peer.link, session, 0, verb, self.world.clock.steady_s, records,
            stale=stale, never=never, refusable=self.world.plan.tight_disk and verb in ("append", "replace"),
        )  # fmt: skip

    def _records(self, count: int) -> tuple[bytes, ...]:
        return tuple(self.world.record(self.dice, self.habits.large) for _ in range(count))

    def _learn(self, call: Call) -> None:
        """What an answer tells of the session."""
        session = self.sessions.get(call.session)
        if call.verb == "new":
            if call.outcome == "ok":
                self.sessions[call.session] = Open(call.session, call)
            return
        if session is None or call.stale:
            return
        over = call.outcome == "ok" and call.verb in OVER
        taken = call.outcome in LOST and (session.ending is None or session.ending.outcome != "unknown")
        if over or taken:
            del self.sessions[call.session]
            self.lost.append(call.session)
