"""The machine as one would write it in half an hour: dictionaries, lists, no layers, no store, no speed."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from truba.kinds import Kind
from truba.types import Cause


@dataclass
class NaiveSession:
    kind: int
    records: list[bytes]
    created_ms: int
    phase: str = "active"
    epoch: int = 0
    due_ms: int = 0
    order: int = 0
    attempts: int = 0
    deliveries: int = 0
    aged_from_ms: int = 0
    operations: int = 0
    cause: Cause = Cause.LOST
    grace_ms: int = 0
    holds: list[tuple[int, int, str, int, str]] = field(default_factory=list)  # epoch, from, to whom, until, why


class Refusal(Exception):
    """Its text is the code that a client would see."""


@dataclass
class Naive:
    kinds: dict[int, Kind]
    sessions: dict[int, NaiveSession] = field(default_factory=dict)
    seq: int = 0
    paused: set[int] = field(default_factory=set)

    def _event(self) -> int:
        self.seq += 1
        return self.seq

    def _held(self, number: int, epoch: int) -> NaiveSession:
        session = self.sessions.get(number)
        if session is None:
            raise Refusal("NOSESSION")
        if session.phase not in ("active", "repeating") or session.epoch != epoch:
            raise Refusal("FENCED")
        return session

    def _fits(self, kind: Kind, records: list[bytes], before: list[bytes]) -> None:
        if any(len(record) > kind.record_bytes_max for record in records):
            raise Refusal("TOOBIG")
        everything = before + records
        if sum(map(len, everything)) > kind.session_bytes_max or len(everything) > kind.session_records_max:
            raise Refusal("TOOBIG")

    def new(self, kind: int, records: list[bytes], now_ms: int) -> int:
        if kind not in self.kinds:
            raise Refusal("UNKNOWNKIND")
        self._fits(self.kinds[kind], records, [])
        number = self._event()
        self.sessions[number] = NaiveSession(kind, list(records), now_ms, aged_from_ms=now_ms)
        self.sessions[number].holds.append((0, now_ms, "", 0, ""))
        return number

    def append(self, number: int, epoch: int, records: list[bytes]) -> None:
        session = self._held(number, epoch)
        self._fits(self.kinds[session.kind], records, session.records)
        self._event()
        session.records = session.records + records
        session.operations += 1

    def replace(self, number: int, epoch: int, record: bytes) -> None:
        session = self._held(number, epoch)
        self._fits(self.kinds[session.kind], [record], [])
        self._event()
        session.records = [record]
        session.operations += 1

    def delete(self, number: int, epoch: int) -> None:
        self._held(number, epoch)
        self._event()
        del self.sessions[number]

    def store(self, number: int, epoch: int, due_ms: int, now_ms: int) -> None:
        session = self._held(number, epoch)
        self._hold_ends(session, now_ms, Cause.STORED)
        self._sleep(session, due_ms, Cause.STORED)

    def _hold_ends(self, session: NaiveSession, now_ms: int, cause: Cause) -> None:
        session.holds[-1] = (*session.holds[-1][:3], now_ms, cause.value)
        session.grace_ms = 0

    def _sleep(self, session: NaiveSession, due_ms: int, cause: Cause) -> None:
        session.phase, session.due_ms, session.order, session.cause = "stored", due_ms, self._event(), cause

    def give_back(self, number: int, epoch: int, cause: Cause, now_ms: int, chance: float) -> None:
        session = self._held(number, epoch)
        kind = self.kinds[session.kind]
        if session.phase == "active":
            if not session.records:
                self._event()
                del self.sessions[number]
                return
            self._hold_ends(session, now_ms, cause)
            self._sleep(session, now_ms + round(1000 * (kind.recovery_delay_s + chance * kind.jitter_s)), cause)
            return
        if cause is Cause.UNREACHABLE:
            session.attempts -= 1
            tries = session.deliveries
        else:
            tries = session.attempts
        self._hold_ends(session, now_ms, cause)
        if self._exhausted(session, now_ms):
            session.phase, session.order, session.cause, session.due_ms = "parked", self._event(), cause, 0
            return
        ceiling_s = min(kind.backoff.cap_s, kind.backoff.base_s * kind.backoff.factor ** (max(tries, 1) - 1))
        self._sleep(session, now_ms + round(1000 * chance * ceiling_s), cause)

    def change_grace(self, number: int, epoch: int, grace_ms: int) -> None:
        session = self._held(number, epoch)
        if session.grace_ms != grace_ms:
            self._event()
            session.grace_ms = grace_ms

    def put_off(self, number: int, epoch: int, due_ms: int, now_ms: int) -> None:
        session = self._held(number, epoch)
        self._hold_ends(session, now_ms, Cause.UNREACHABLE)
        if session.phase == "repeating":
            session.attempts -= 1
        self._sleep(session, due_ms, Cause.UNREACHABLE)

    def _exhausted(self, session: NaiveSession, now_ms: int) -> bool:
        kind = self.kinds[session.kind]
        too_often = kind.max_attempts > 0 and session.attempts >= kind.max_attempts
        return too_often or (kind.max_age_s > 0 and now_ms - session.aged_from_ms > kind.max_age_s * 1000)

    def next_due(self, kind: int) -> int | None:
        """Number of the stored session that is handed over next, due or not."""
        stored = [
            (session.due_ms, session.order, number)
            for number, session in self.sessions.items()
            if session.kind == kind and session.phase == "stored"
        ]
        return min(stored)[2] if stored else None

    def repeat(self, number: int, now_ms: int, to: str) -> str:
        session = self.sessions[number]
        if session.phase != "stored" or session.due_ms > now_ms:
            return "not due"
        if self._exhausted(session, now_ms):
            session.phase, session.order, session.due_ms = "parked", self._event(), 0
            return "parked"
        self._event()
        session.holds.append((session.epoch + 1, now_ms, to, 0, ""))
        self.sessions[number] = replace(
            session,
            phase="repeating",
            epoch=session.epoch + 1,
            attempts=session.attempts + 1,
            deliveries=session.deliveries + 1,
            due_ms=0,
            operations=0,
        )
        return "repeated"

    def resume(self, number: int, now_ms: int) -> None:
        session = self.sessions.get(number)
        if session is None:
            raise Refusal("NOSESSION")
        if session.phase in ("active", "repeating"):
            raise Refusal("BUSY")
        session.attempts, session.aged_from_ms = 0, now_ms
        self._sleep(session, now_ms, Cause.RESUMED)

    def reschedule(self, number: int, due_ms: int) -> None:
        session = self.sessions.get(number)
        if session is None:
            raise Refusal("NOSESSION")
        if session.phase != "stored":
            raise Refusal("BUSY")
        self._sleep(session, due_ms, session.cause)

    def pause(self, kind: int, on: bool) -> None:
        if kind not in self.kinds:
            raise Refusal("UNKNOWNKIND")
        if on != (kind in self.paused):
            self._event()
            self.paused ^= {kind}

    def remove(self, number: int) -> None:
        session = self.sessions.get(number)
        if session is None:
            raise Refusal("NOSESSION")
        if session.phase in ("active", "repeating"):
            raise Refusal("BUSY")
        self._event()
        del self.sessions[number]
