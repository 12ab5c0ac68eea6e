"""A watch on the log of a node: each event is checked against both clocks at the moment when it is written.

Which clock counts for what, as SPEC has it: a due time is a time of the wall clock, written once, and so is an age. How
long an owner may stay away, a client say nothing or a handler work is time that has passed: the steady clock, whatever
the wall clock does meanwhile. Knows nothing of the node; it only reads what the log holds.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from tests.node.gate import Gate
from truba.kinds import Kind
from truba.machine.events import (
    Appended,
    Created,
    Deleted,
    Event,
    Opened,
    Parked,
    Repeated,
    Replaced,
    Resumed,
    Stored,
)
from truba.testing.jump import JumpClock
from truba.types import Cause

SLACK_MS = 1_100
"""The node looks at its clocks every second (node.TICK_MS), whatever they do; timers may be late by that."""


@dataclass
class Watched:
    """One session, from the log alone; times of the steady clock except where `wall` or `due` says otherwise."""

    number: int
    created_wall_ms: int
    records: list[bytes]
    limit_ms: int  # of its owner's silence
    grace_ms: int
    sign_ms: int  # the owner's last sign of life
    phase: str = "active"
    away_since_ms: int | None = None  # its owner's connection is gone
    due_ms: int = 0
    stored_ms: int = 0
    stored_as: int = 0  # place in the order of what was stored
    attempts: int = 0
    epoch: int = 0
    deleting: bool = False  # its owner has asked for it
    asked_delay_ms: int | None = None  # of the Store that its owner asks for now


@dataclass
class Watch:
    """`sessions`: those that are not gone. Holds of all nodes that follow each other on one log."""

    clock: JumpClock
    kind: Kind
    sessions: dict[int, Watched] = field(default_factory=dict)
    gone: set[int] = field(default_factory=set)
    seq: int = 0
    starting: bool = False  # a node recovers: who cannot come back is given back at once
    gate: Gate = field(init=False)

    def __post_init__(self) -> None:
        self.gate = Gate(self.kind)

    # -- what the log holds ---------------------------------------------------------------------------------------

    def saw(self, events: list[Event]) -> None:
        for event in events:
            self.seq += 1
            self._saw(event)

    def _saw(self, event: Event) -> None:
        wall_ms, now_ms = self.clock.now_ms(), self.clock.steady_ms()
        self.gate.saw(event, now_ms)
        match event:
            case Opened():
                pass
            case Created():
                limit_ms = max(round(self.kind.idle_timeout_s * 1000), event.grace_ms)
                assert event.at_ms == wall_ms
                self.sessions[self.seq] = Watched(
                    self.seq, wall_ms, list(event.records), limit_ms, event.grace_ms, now_ms
                )
            case Appended(number, records):
                session = self._held(number)
                session.records += records
                session.sign_ms = now_ms
            case Replaced(number, record):
                session = self._held(number)
                session.records = [record]
                session.sign_ms = now_ms
            case Deleted(number):
                assert self.sessions[number].deleting, f"session {number} is deleted, and nobody asked for that"
                del self.sessions[number]
                self.gone.add(number)
            case Stored(number, due_ms, cause):
                self._stored(self._held(number), due_ms, cause)
            case Repeated(number):
                session = self.sessions[number]
                assert session.phase == "stored", f"session {number} is {session.phase}, and handed over"
                assert session.due_ms <= wall_ms, f"session {number} is handed over {session.due_ms - wall_ms} ms early"
                self._in_order(session)
                session.phase = "repeating"
                session.attempts += 1
                session.epoch += 1
                session.limit_ms, session.grace_ms = round(self.kind.handler_timeout_s * 1000), 0
                session.sign_ms, session.away_since_ms = now_ms, None
            case Parked(number):
                session = self.sessions[number]
                too_old = wall_ms - session.created_wall_ms > self.kind.max_age_s * 1000
                assert too_old or session.attempts >= self.kind.max_attempts, f"session {number} is parked too early"
                session.phase = "parked"
            case Resumed():
                raise AssertionError("nobody resumes here")

    def _held(self, number: int) -> Watched:
        session = self.sessions[number]
        assert session.phase in ("active", "repeating"), f"session {number} is {session.phase}, and is written to"
        return session

    def _stored(self, session: Watched, due_ms: int, cause: Cause) -> None:
        wall_ms, now_ms = self.clock.now_ms(), self.clock.steady_ms()
        what = f"session {session.number} {cause} at {now_ms} ms:"
        match cause:
            case Cause.STORED:
                assert session.asked_delay_ms is not None, f"{what} nobody asked for it"
                assert due_ms == wall_ms + session.asked_delay_ms, f"{what} due at another time than was asked for"
            case Cause.LOST | Cause.RESTART:
                if not (self.starting and not session.grace_ms):
                    assert session.away_since_ms is not None, f"{what} its owner is there"
                    away_ms = now_ms - session.away_since_ms
                    assert away_ms >= session.grace_ms, f"{what} away for {away_ms} of {session.grace_ms} ms of grace"
            case Cause.IDLE | Cause.LATE:
                silent_ms = now_ms - session.sign_ms
                assert session.away_since_ms is None, f"{what} its owner is away, and has its grace"
                assert silent_ms >= session.limit_ms, f"{what} silent for {silent_ms} of {session.limit_ms} ms"
            case _:
                assert session.phase == "repeating", what
        if cause is not Cause.STORED:
            early_ms, late_ms = 0, round(self.kind.backoff.cap_s * 1000)
            if session.phase == "active":
                early_ms = round(self.kind.recovery_delay_s * 1000)
                late_ms = early_ms + round(self.kind.jitter_s * 1000)
            assert early_ms <= due_ms - wall_ms <= late_ms, f"{what} due in {due_ms - wall_ms} ms"
        if cause is Cause.UNREACHABLE:
            session.attempts -= 1
        session.phase, session.due_ms, session.stored_ms, session.stored_as = "stored", due_ms, now_ms, self.seq
        session.away_since_ms = session.asked_delay_ms = None

    def _in_order(self, session: Watched) -> None:
        key = (session.due_ms, session.stored_as)
        before = [other for other in self.sessions.values() if other.phase == "stored" and other is not session]
        first = min(before, key=lambda other: (other.due_ms, other.stored_as), default=None)
        assert first is None or key < (first.due_ms, first.stored_as), f"{first} comes before {session}"

    # -- what only the driver knows ----------------------------------------------------------------------------

    def sign(self, number: int) -> None:
        """A sign of life that the log does not show: TOUCH, or the owner came back."""
        session = self.sessions[number]
        session.sign_ms, session.away_since_ms = self.clock.steady_ms(), None

    def left(self, number: int) -> None:
        self.sessions[number].away_since_ms = self.clock.steady_ms()

    def restarts(self) -> None:
        """The node has died: nobody is there, and whoever has a grace has all of it from here on."""
        for session in self.sessions.values():
            if session.phase in ("active", "repeating"):
                self.left(session.number)

    # -- nothing may be overdue ----------------------------------------------------------------------------------

    def check(self) -> None:
        """To be called when both clocks have run evenly for longer than the slack, and the handler is there."""
        wall_ms, now_ms = self.clock.now_ms(), self.clock.steady_ms()
        for session in self.sessions.values():
            what = f"session {session.number} is overdue, {session.phase}"
            match session.phase:
                case "stored":
                    if not self.gate.may_hand_over:
                        continue
                    overdue_ms = min(wall_ms - session.due_ms, now_ms - max(session.stored_ms, self.gate.free_ms))
                    assert overdue_ms < SLACK_MS, f"{what} for {overdue_ms} ms"
                case "active" | "repeating" if session.away_since_ms is not None:
                    overdue_ms = now_ms - session.away_since_ms - session.grace_ms
                    assert overdue_ms < SLACK_MS, f"{what}: its owner's grace was over {overdue_ms} ms ago"
                case "active" | "repeating":
                    overdue_ms = now_ms - session.sign_ms - session.limit_ms
                    assert overdue_ms < SLACK_MS, f"{what}: silent {overdue_ms} ms longer than it may"
