"""The circuit breaker of one lane: a handler in trouble is left alone for a while, then tried with one session.

    closed --N in a row ended badly--> open --its time is over--> half-open --the one session ended well--> closed
                                        ^                             |                         (slow start)
                                        `-------badly: for longer-----'

Open, nothing is handed over: no session uses up attempts on a handler that fails them all, and neither the log nor the
loop is kept busy with them. Closed again, it begins with one session at once and one more for each that ends well, so
that what an outage has heaped up does not fall upon a handler that has just come back.

A session that fails again and again counts once: its trouble is its own, not the handler's. Pure: the time (steady
clock, milliseconds) and the dice are arguments. The pattern is Nygard's ("Release It!"); the slow start is TCP's.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum

from truba.kinds import Backoff, Breaker
from truba.types import Cause

BAD = frozenset({Cause.FAILED, Cause.LOST, Cause.LATE, Cause.UNREACHABLE, Cause.UNFINISHED})
"""Ends that speak against the handler. RESTART does not: it was the pipe that went away."""


class Stage(StrEnum):
    """Where a breaker stands."""

    CLOSED = "closed"  # sessions are handed over
    OPEN = "open"  # none is
    HALF_OPEN = "half-open"  # one is, and it decides


@dataclass(frozen=True, slots=True)
class BreakerStatus:
    """A breaker as operators see it; times of the wall clock, milliseconds since 1970."""

    stage: Stage
    since_ms: int
    until_ms: int | None  # open: when one session will be tried
    failures: int  # hand-overs in a row that ended badly
    cause: Cause | None  # how the last of them ended
    detail: str  # and what the handler said
    room: int  # sessions that may be out at once: fewer than the kind's concurrency in a slow start


class CircuitBreaker:
    """One per lane. `concurrency`: sessions out at once when all is well."""

    __slots__ = (
        "_cause", "_concurrency", "_detail", "_failed", "_failures", "_open_for", "_openings", "_policy", "_probe",
        "_room", "_since_ms", "_stage", "_until_ms",
    )  # fmt: skip

    def __init__(self, policy: Breaker, concurrency: int, now_ms: int) -> None:
        self._policy = policy
        self._open_for = Backoff(policy.open_for_s, 2.0, policy.cap_s)
        self._concurrency = concurrency
        self._stage = Stage.CLOSED
        self._since_ms = now_ms
        self._until_ms = now_ms
        self._room = concurrency
        self._openings = 0  # since it was closed
        self._probe = 0  # number of the session that decides; 0: none is out
        self._failed: set[int] = set()  # numbers of sessions that ended badly in a row, while closed
        self._failures = 0
        self._cause: Cause | None = None
        self._detail = ""

    def wait_ms(self, now_ms: int, out: int) -> int | None:
        """How long nothing may be handed over while `out` sessions are out; None: until one of those has ended."""
        if self._stage is Stage.CLOSED:
            return 0 if out < self._room else None
        if self._stage is Stage.OPEN and out < self._concurrency:
            return max(0, self._until_ms - now_ms)
        return None

    def handed_over(self, number: int, now_ms: int) -> None:
        """A session was handed over, because `wait_ms` was 0."""
        if self._stage is Stage.OPEN:
            self._stage, self._since_ms, self._probe = Stage.HALF_OPEN, now_ms, number

    def ended(
        self, number: int, cause: Cause | None, detail: str, now_ms: int, dice: Callable[[], float]
    ) -> Stage | None:
        """A session's hold is over; `cause` None: its handler deleted or stored it. What the breaker became, if new."""
        if cause is None:
            return self._ended_well(now_ms)
        probe = self._stage is Stage.HALF_OPEN and number == self._probe
        if cause not in BAD:
            if probe:  # it has decided nothing: the next one will
                self._stage, self._since_ms, self._until_ms, self._probe = Stage.OPEN, now_ms, now_ms, 0
            return None
        self._failures += 1
        self._cause, self._detail = cause, detail
        if self._stage is Stage.CLOSED and self._policy.failures:
            self._failed.add(number)
        if not probe and (self._stage is not Stage.CLOSED or not 0 < self._policy.failures <= len(self._failed)):
            return None  # the rest of those that were out when it opened say nothing new
        self._failed.clear()
        self._openings += 1
        delay_s = self._open_for.delay_s(self._openings, dice())
        self._stage, self._since_ms, self._probe = Stage.OPEN, now_ms, 0
        self._until_ms = now_ms + round(delay_s * 1000)
        return Stage.OPEN

    def _ended_well(self, now_ms: int) -> Stage | None:
        self._failures = 0
        if self._failed:
            self._failed.clear()
        if self._stage is Stage.CLOSED:
            if self._room < self._concurrency:
                self._room += 1
            return None
        # Not only the one that was to decide: any session that ends well shows that the handler works.
        self._stage, self._since_ms, self._probe = Stage.CLOSED, now_ms, 0
        self._openings, self._room = 0, 1
        return Stage.CLOSED

    def status(self, now_ms: int, wall_ms: int) -> BreakerStatus:
        """As it is now, by both clocks."""
        ahead_ms = wall_ms - now_ms
        is_open = self._stage is Stage.OPEN
        return BreakerStatus(
            self._stage,
            self._since_ms + ahead_ms,
            self._until_ms + ahead_ms if is_open else None,
            self._failures,
            self._cause if self._failures else None,
            self._detail if self._failures else "",
            self._room if self._stage is Stage.CLOSED else int(is_open and self._until_ms <= now_ms),
        )
