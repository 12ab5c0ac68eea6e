"""The machine and a naive model take the same random commands and agree, whatever checkpoints and restarts happen."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, initialize, invariant, rule

from tests.machine.naive import Naive, Refusal
from truba.codec.batch import decode_batch, encode_batch
from truba.errors import OperationError
from truba.kinds import Backoff, Kind
from truba.machine.digest import state_digest
from truba.machine.events import Event, Opened
from truba.machine.layers import Layer
from truba.machine.machine import Machine
from truba.ports.store import Summary
from truba.store.memory import MemoryStore
from truba.types import Cause, Position


async def _nobody(repeat: object) -> None: ...


KINDS = {
    1: Kind(1, "strict", _nobody, max_attempts=2, max_age_s=50, record_bytes_max=6, session_bytes_max=12,
            session_records_max=4, recovery_delay_s=1, jitter_s=3, backoff=Backoff(1, 2, 3)),
    2: Kind(2, "free", _nobody, max_attempts=0, max_age_s=0),
}  # fmt: skip

records = st.lists(st.binary(max_size=7), max_size=5)
chances = st.sampled_from([0.0, 0.25, 0.999])
causes = st.sampled_from([c for c in Cause if c not in (Cause.STORED, Cause.RESUMED)])


class MachineMatchesModel(RuleBasedStateMachine):
    numbers = Bundle("numbers")

    @initialize()
    def begin(self) -> None:
        self.base = MemoryStore()
        self.machine = Machine(self.base, KINDS)
        self.naive = Naive(KINDS)
        self.now_ms = 1_000_000
        self.batches: list[tuple[int, bytes]] = []  # the whole log: (term, events)
        self.frozen: tuple[Layer, Summary, int] | None = None
        self.kept_from = 0  # batches before this one are in the store
        self._open_term()

    def _open_term(self) -> None:
        self.machine.begin(self.machine.term + 1)
        self._log([Opened(self.now_ms, "test")])
        self.naive.seq += 1

    def _log(self, events: list[Event]) -> None:
        for event in events:
            self.machine.apply(event)
        self.batches.append((self.machine.term, encode_batch(events)))

    def _both(self, real: Callable[[], Event | None], model: Callable[[], Any]) -> tuple[Event | None, Any]:
        try:
            expected, refused = model(), ""
        except Refusal as refusal:
            expected, refused = None, str(refusal)
        if refused:
            with pytest.raises(OperationError) as caught:
                real()
            assert (caught.value.code, caught.value.happened) == (refused, "no")
            return None, None
        event = real()
        if event is not None:
            self._log([event])
        return event, expected

    def _epoch(self, number: int, stale: bool) -> int:
        session = self.naive.sessions.get(number)
        return (session.epoch if session else 0) - int(stale)

    @rule(target=numbers, kind=st.sampled_from([1, 1, 2, 9]), records=records)
    def new(self, kind: int, records: list[bytes]) -> int:
        _, number = self._both(
            lambda: self.machine.create(kind, self.now_ms, records), lambda: self.naive.new(kind, records, self.now_ms)
        )
        return -1 if number is None else int(number)

    @rule(number=numbers, stale=st.booleans(), records=records.filter(bool))
    def append(self, number: int, stale: bool, records: list[bytes]) -> None:
        epoch = self._epoch(number, stale)
        self._both(
            lambda: self.machine.append(number, epoch, records), lambda: self.naive.append(number, epoch, records)
        )

    @rule(number=numbers, stale=st.booleans(), record=st.binary(max_size=7))
    def replace(self, number: int, stale: bool, record: bytes) -> None:
        epoch = self._epoch(number, stale)
        self._both(
            lambda: self.machine.replace(number, epoch, record), lambda: self.naive.replace(number, epoch, record)
        )

    @rule(number=numbers, stale=st.booleans())
    def delete(self, number: int, stale: bool) -> None:
        epoch = self._epoch(number, stale)
        self._both(lambda: self.machine.delete(number, epoch), lambda: self.naive.delete(number, epoch))

    @rule(number=numbers, stale=st.booleans(), delay_ms=st.integers(0, 5000))
    def store(self, number: int, stale: bool, delay_ms: int) -> None:
        epoch, due_ms = self._epoch(number, stale), self.now_ms + delay_ms
        self._both(lambda: self.machine.store(number, epoch, due_ms), lambda: self.naive.store(number, epoch, due_ms))

    @rule(number=numbers, stale=st.booleans(), cause=causes, chance=chances)
    def give_back(self, number: int, stale: bool, cause: Cause, chance: float) -> None:
        epoch = self._epoch(number, stale)
        self._both(
            lambda: self.machine.give_back(number, epoch, cause, self.now_ms, chance),
            lambda: self.naive.give_back(number, epoch, cause, self.now_ms, chance),
        )

    @rule(kind=st.sampled_from([1, 2]), wait_ms=st.sampled_from([0, 0, 3000, 60_000]))
    def hand_over_the_next(self, kind: int, wait_ms: int) -> None:
        self.now_ms += wait_ms
        key = self.machine.queue(kind).peek()
        expected = self.naive.next_due(kind)
        assert (key.number if key else None) == expected
        if expected is None:
            return
        event = self.machine.repeat(expected, self.now_ms)
        outcome = self.naive.repeat(expected, self.now_ms)
        assert outcome == ("not due" if event is None else type(event).__name__.lower())
        if event is not None:
            self._log([event])

    @rule(number=numbers)
    def resume(self, number: int) -> None:
        self._both(lambda: self.machine.resume(number, self.now_ms), lambda: self.naive.resume(number, self.now_ms))

    @rule(number=consumes(numbers))
    def remove(self, number: int) -> None:
        self._both(lambda: self.machine.remove(number), lambda: self.naive.remove(number))

    @rule()
    def begin_checkpoint(self) -> None:
        if self.frozen is None:
            summary = Summary(Position(self.machine.term, self.machine.seq, bytes(16)), dict(self.machine.counts))
            self.frozen = (self.machine.freeze(), summary, len(self.batches))

    @rule()
    def end_checkpoint(self) -> None:
        if self.frozen is not None:
            layer, summary, batches = self.frozen
            staged = self.base.stage()
            for change in layer.changes():
                staged.add(change)
            self.base.commit(staged, summary)
            self.machine.settle(layer)
            self.frozen = None
            self.kept_from = batches

    @rule()
    def restart(self) -> None:
        before = state_digest(self.machine)
        self.frozen = None
        self.machine = Machine(self.base, KINDS)
        for term, body in self.batches[self.kept_from :]:
            self.machine.replay(term, decode_batch(body))
        assert state_digest(self.machine) == before
        self._open_term()

    @invariant()
    def same_sessions(self) -> None:
        if not hasattr(self, "machine"):
            return
        real = {
            head.number: (
                head.kind, self.machine.records(head.number), head.created_ms, head.phase.value, head.epoch,
                head.due_ms, head.attempts, head.deliveries, head.aged_from_ms, head.operations, head.cause, head.bytes,
            )
            for head in self.machine.scan()
        }  # fmt: skip
        model = {
            number: (
                s.kind, s.records, s.created_ms, s.phase, s.epoch, s.due_ms,
                s.attempts, s.deliveries, s.aged_from_ms, s.operations, s.cause, sum(map(len, s.records)),
            )
            for number, s in self.naive.sessions.items()
        }  # fmt: skip
        assert real == model
        assert list(real) == sorted(real)
        assert self.machine.seq == self.naive.seq
        counted: dict[tuple[int, str], int] = {}
        for s in self.naive.sessions.values():
            counted[s.kind, s.phase] = counted.get((s.kind, s.phase), 0) + 1
        assert {(kind, phase.value): count for (kind, phase), count in self.machine.counts.items()} == counted
        assert set(self.machine.owned) == {
            n for n, s in self.naive.sessions.items() if s.phase in ("active", "repeating")
        }

    def teardown(self) -> None:
        """A replay of the whole log from nothing leads to the same state."""
        if hasattr(self, "machine"):
            again = Machine(MemoryStore(), KINDS)
            for term, body in self.batches:
                again.replay(term, decode_batch(body))
            assert state_digest(again) == state_digest(self.machine)


TestMachineMatchesModel = MachineMatchesModel.TestCase
TestMachineMatchesModel.settings = settings(max_examples=150, stateful_step_count=60, deadline=None)
