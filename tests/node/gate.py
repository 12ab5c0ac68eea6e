"""What a lane's breaker lets through, told from the log alone: a second implementation, to check the first against.

Sees each event once, in the order of the log. Says when the lane may hand over at all, and since when nothing holds it
back any more; a hand-over that the breaker should have held back is an AssertionError.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from math import inf

from truba.kinds import Kind
from truba.machine.events import Created, Deleted, Event, GraceChanged, Opened, Parked, Repeated, Stored
from truba.types import Cause

HARMLESS = (Cause.STORED, Cause.RESTART, Cause.IDLE, Cause.RESUMED)


@dataclass
class Gate:
    """One kind's. Times of the steady clock, milliseconds; where none is known, only what needs no time is checked."""

    kind: Kind
    out: set[int] = field(default_factory=set)
    lasting: set[int] = field(default_factory=set)  # of these, those whose handler may come back after a restart
    in_a_row: list[int] = field(default_factory=list)  # that ended badly
    held: bool = False
    openings: int = 0
    probe: int | None = None
    room: int = 0
    free_ms: float = -inf  # since when nothing holds back, if `may_hand_over`; to come: from when on at the latest

    def __post_init__(self) -> None:
        self.room = self.kind.concurrency

    def saw(self, event: Event, now_ms: float = 0.0) -> None:
        """The next event: one about a session of this kind, or Opened."""
        match event:
            case Opened():
                self.out &= self.lasting  # the others are with nobody, and given back bit by bit
                self.held, self.openings, self.probe, self.in_a_row = False, 0, None, []
                self.room = self.kind.concurrency
            case Repeated(number, owner, grace_ms):
                assert self.may_hand_over, f"session {number} is handed over, and the breaker should hold it: {self}"
                self.out.add(number)
                self._lasts(number, bool(owner and grace_ms))
                if self.held:
                    self.probe = number
            case GraceChanged(number, grace_ms) if number in self.out:
                self._lasts(number, bool(grace_ms))
            case Deleted(number) if number in self.out:
                self._well(number, now_ms)
            case Stored(number, _, cause) | Parked(number, cause) if number in self.out:
                if cause is Cause.STORED:
                    self._well(number, now_ms)
                elif cause in HARMLESS:
                    self.out.discard(number)
                    self.free_ms = max(self.free_ms, now_ms)
                    self.probe = None if number == self.probe else self.probe
                else:
                    self._badly(number, now_ms)

    def _lasts(self, number: int, whether: bool) -> None:
        if whether:
            self.lasting.add(number)
        else:
            self.lasting.discard(number)

    @property
    def may_hand_over(self) -> bool:
        """As far as only time may stand against it."""
        if self.held:
            return self.probe is None and len(self.out) < self.kind.concurrency
        return len(self.out) < self.room

    def _well(self, number: int, now_ms: float) -> None:
        self.out.discard(number)
        self.in_a_row = []
        self.free_ms = now_ms
        if self.held:
            self.held, self.openings, self.probe, self.room = False, 0, None, 1
        else:
            self.room = min(self.room + 1, self.kind.concurrency)

    def _badly(self, number: int, now_ms: float) -> None:
        self.out.discard(number)
        self.free_ms = max(self.free_ms, now_ms)
        if self.held and number != self.probe:
            return
        self.in_a_row.append(number)
        if not self.held and not 0 < self.kind.breaker.failures <= len(set(self.in_a_row)):
            return
        self.held, self.probe = True, None
        self.openings += 1
        most_s = min(self.kind.breaker.cap_s, self.kind.breaker.open_for_s * 2 ** min(self.openings - 1, 60))
        self.free_ms = now_ms + most_s * 1000


class Gates:
    """One gate for each kind of a node."""

    def __init__(self, kinds: Iterable[Kind]) -> None:
        self.of = {kind.number: Gate(kind) for kind in kinds}
        self._kinds: dict[int, int] = {}  # of sessions, by number
        self._seq = 0

    def saw(self, event: Event, now_ms: float = 0.0) -> None:
        """The next event of the log, whatever it is."""
        self._seq += 1
        match event:
            case Opened():
                for gate in self.of.values():
                    gate.saw(event, now_ms)
            case Created(kind):
                self._kinds[self._seq] = kind
            case Repeated(number) | Deleted(number) | Stored(number) | Parked(number) | GraceChanged(number):
                self.of[self._kinds[number]].saw(event, now_ms)
            case _:
                pass
