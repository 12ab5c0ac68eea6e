"""The machine and a naive model take the same random commands and agree, whatever checkpoints and restarts happen."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from tests.machine.naive import Naive, Refusal
from truba.codec.batch import decode_batch, encode_batch
from truba.errors import OperationError
from truba.kinds import Backoff, Kind
from truba.machine import due
from truba.machine.digest import state_digest
from truba.machine.events import Event, Opened
from truba.machine.history import HISTORY_MAX, holds
from truba.machine.layers import Layer
from truba.machine.machine import Machine
from truba.ports.store import Summary
from truba.store.memory import MemoryStore
from truba.types import Cause, Position


async def _nobody(repeat: object) -> None: ...


KINDS = {
    1: Kind(1, "strict", _nobody, max_attempts=2, max_age_s=50, record_bytes_max=6, session_bytes_max=12,
            session_records_max=4, recovery_delay_s=1, jitter_s=3, backoff=Backoff(1, 2, 3)),
    2: Kind(2, "free", _nobody, max_attempts=0, max_age_s=0, backoff=Backoff(1, 2, 3)),
}  # fmt: skip

records = st.lists(st.binary(max_size=7), max_size=5)
chances = st.sampled_from([0.0, 0.25, 0.999])
causes = st.sampled_from([c for c in Cause if c not in (Cause.STORED, Cause.RESUMED)])


class Twins:
    """Both machines, the log between them, and checkpoints at any time."""

    def __init__(self) -> None:
        self.base = MemoryStore()
        self.machine = Machine(self.base, KINDS)
        self.naive = Naive(KINDS)
        self.now_ms = 1_000_000
        self.batches: list[tuple[int, bytes]] = []  # the whole log: (term, events)
        self.frozen: tuple[Layer, Summary, int] | None = None
        self.kept_from = 0  # batches before this one are in the store
        self.known: list[int] = [999_999]  # numbers of sessions, the gone ones too
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

    def number(self, pick: int) -> int:
        """A session, more often a late one."""
        return self.known[-1 - pick % len(self.known)]

    def new(self, kind: int, records: list[bytes]) -> None:
        _, number = self._both(
            lambda: self.machine.create(kind, self.now_ms, records), lambda: self.naive.new(kind, records, self.now_ms)
        )
        if number is not None:
            self.known.append(number)

    def append(self, pick: int, stale: bool, records: list[bytes]) -> None:
        number = self.number(pick)
        epoch = self._epoch(number, stale)
        self._both(
            lambda: self.machine.append(number, epoch, records), lambda: self.naive.append(number, epoch, records)
        )

    def replace(self, pick: int, stale: bool, record: bytes) -> None:
        number = self.number(pick)
        epoch = self._epoch(number, stale)
        self._both(
            lambda: self.machine.replace(number, epoch, record), lambda: self.naive.replace(number, epoch, record)
        )

    def delete(self, pick: int, stale: bool) -> None:
        number = self.number(pick)
        epoch = self._epoch(number, stale)
        self._both(lambda: self.machine.delete(number, epoch), lambda: self.naive.delete(number, epoch))

    def store(self, pick: int, stale: bool, delay_ms: int) -> None:
        number = self.number(pick)
        epoch, due_ms = self._epoch(number, stale), self.now_ms + delay_ms
        self._both(
            lambda: self.machine.store(number, epoch, due_ms, self.now_ms),
            lambda: self.naive.store(number, epoch, due_ms, self.now_ms),
        )

    def give_back(self, pick: int, stale: bool, cause: Cause, chance: float) -> None:
        number = self.number(pick)
        epoch = self._epoch(number, stale)
        self._both(
            lambda: self.machine.give_back(number, epoch, cause, self.now_ms, chance),
            lambda: self.naive.give_back(number, epoch, cause, self.now_ms, chance),
        )

    def change_grace(self, pick: int, stale: bool, grace_ms: int) -> None:
        number = self.number(pick)
        epoch = self._epoch(number, stale)
        self._both(
            lambda: self.machine.change_grace(number, epoch, grace_ms),
            lambda: self.naive.change_grace(number, epoch, grace_ms),
        )

    def put_off(self, pick: int, stale: bool, delay_ms: int) -> None:
        number = self.number(pick)
        epoch, due_ms = self._epoch(number, stale), self.now_ms + delay_ms
        self._both(
            lambda: self.machine.put_off(number, epoch, due_ms, self.now_ms),
            lambda: self.naive.put_off(number, epoch, due_ms, self.now_ms),
        )

    def hand_over(self, kind: int, wait_ms: int) -> None:
        """The next of a kind, if it is due."""
        self.now_ms += wait_ms
        key = self.machine.queue(kind).peek()
        expected = self.naive.next_due(kind)
        assert (key.number if key else None) == expected
        if expected is None:
            return
        assert self.machine.repeat(expected, self.naive.sessions[expected].due_ms - 1) is None
        event = self.machine.repeat(expected, self.now_ms, to="truba://h:1")
        outcome = self.naive.repeat(expected, self.now_ms, "truba://h:1")
        assert outcome == ("not due" if event is None else type(event).__name__.lower())
        if event is not None:
            self._log([event])

    def resume(self, pick: int) -> None:
        number = self.number(pick)
        self._both(lambda: self.machine.resume(number, self.now_ms), lambda: self.naive.resume(number, self.now_ms))

    def reschedule(self, pick: int, delay_ms: int) -> None:
        number, due_ms = self.number(pick), self.now_ms + delay_ms
        self._both(
            lambda: self.machine.reschedule(number, due_ms, self.now_ms), lambda: self.naive.reschedule(number, due_ms)
        )

    def pause(self, kind: int, on: bool) -> None:
        self._both(lambda: self.machine.pause(kind, on, self.now_ms), lambda: self.naive.pause(kind, on))

    def remove(self, pick: int) -> None:
        number = self.number(pick)
        self._both(lambda: self.machine.remove(number), lambda: self.naive.remove(number))

    def checkpoint(self) -> None:
        """Begin one, or end the one that has begun."""
        if self.frozen is None:
            summary = Summary(
                Position(self.machine.term, self.machine.seq, bytes(16)), dict(self.machine.counts), self.machine.paused
            )
            self.frozen = (self.machine.freeze(), summary, len(self.batches))
            return
        layer, summary, batches = self.frozen
        staged = self.base.stage()
        for change in layer.changes():
            staged.add(change)
        self.base.commit(staged, summary)
        self.machine.settle(layer)
        self.frozen = None
        self.kept_from = batches

    def restart(self) -> None:
        before = state_digest(self.machine)
        self.frozen = None
        self.machine = Machine(self.base, KINDS)
        for term, body in self.batches[self.kept_from :]:
            self.machine.replay(term, decode_batch(body))
        assert state_digest(self.machine) == before
        self._open_term()

    def compare(self) -> None:
        real = {
            head.number: (
                head.kind, self.machine.records(head.number), head.created_ms, head.phase.value, head.epoch,
                head.due_ms, head.attempts, head.deliveries, head.aged_from_ms, head.operations, head.cause, head.bytes,
                head.grace_ms, [(held.epoch, held.at_ms, held.to, held.ended_ms, held.cause) for held in holds(head)],
            )
            for head in self.machine.scan()
        }  # fmt: skip
        model = {
            number: (
                s.kind, s.records, s.created_ms, s.phase, s.epoch, s.due_ms,
                s.attempts, s.deliveries, s.aged_from_ms, s.operations, s.cause, sum(map(len, s.records)),
                s.grace_ms, s.holds[-HISTORY_MAX:],
            )
            for number, s in self.naive.sessions.items()
        }  # fmt: skip
        assert real == model
        assert list(real) == sorted(real)
        assert self._paged(3 + self.machine.seq % 20) == list(real)
        assert self.machine.paused == self.naive.paused
        assert self.machine.seq == self.naive.seq
        counted: dict[tuple[int, str], int] = {}
        for s in self.naive.sessions.values():
            counted[s.kind, s.phase] = counted.get((s.kind, s.phase), 0) + 1
        assert {(kind, phase.value): count for (kind, phase), count in self.machine.counts.items()} == counted
        assert set(self.machine.owned) == {
            n for n, s in self.naive.sessions.items() if s.phase in ("active", "repeating")
        }

    def _paged(self, steps: int) -> list[int]:
        found: list[int] = []
        at: int | None = 0
        while at is not None:
            heads, at = self.machine.page(at, steps)
            assert len(heads) <= steps
            found += [head.number for head in heads]
        return found

    def replay_all(self) -> None:
        """The whole log, applied to nothing, leads to the same state."""
        again = Machine(MemoryStore(), KINDS)
        for term, body in self.batches:
            again.replay(term, decode_batch(body))
        assert state_digest(again) == state_digest(self.machine)


picks = st.integers(0, 5)


class MachineMatchesModel(RuleBasedStateMachine):
    @initialize()
    def begin(self) -> None:
        self.twins = Twins()

    @rule(kind=st.sampled_from([1, 1, 2, 9]), records=records)
    def new(self, kind: int, records: list[bytes]) -> None:
        self.twins.new(kind, records)

    @rule(pick=picks, stale=st.booleans(), records=records.filter(bool))
    def append(self, pick: int, stale: bool, records: list[bytes]) -> None:
        self.twins.append(pick, stale, records)

    @rule(pick=picks, stale=st.booleans(), record=st.binary(max_size=7))
    def replace(self, pick: int, stale: bool, record: bytes) -> None:
        self.twins.replace(pick, stale, record)

    @rule(pick=picks, stale=st.booleans())
    def delete(self, pick: int, stale: bool) -> None:
        self.twins.delete(pick, stale)

    @rule(pick=picks, stale=st.booleans(), delay_ms=st.integers(0, 5000))
    def store(self, pick: int, stale: bool, delay_ms: int) -> None:
        self.twins.store(pick, stale, delay_ms)

    @rule(pick=picks, stale=st.booleans(), cause=causes, chance=chances)
    def give_back(self, pick: int, stale: bool, cause: Cause, chance: float) -> None:
        self.twins.give_back(pick, stale, cause, chance)

    @rule(pick=picks, stale=st.booleans(), delay_ms=st.integers(0, 5000))
    def put_off(self, pick: int, stale: bool, delay_ms: int) -> None:
        self.twins.put_off(pick, stale, delay_ms)

    @rule(pick=picks, stale=st.booleans(), grace_ms=st.sampled_from([0, 0, 5000]))
    def change_grace(self, pick: int, stale: bool, grace_ms: int) -> None:
        self.twins.change_grace(pick, stale, grace_ms)

    @rule(kind=st.sampled_from([1, 2]), wait_ms=st.sampled_from([0, 0, 3000, 60_000]))
    def hand_over(self, kind: int, wait_ms: int) -> None:
        self.twins.hand_over(kind, wait_ms)

    @rule(pick=picks)
    def resume(self, pick: int) -> None:
        self.twins.resume(pick)

    @rule(pick=picks, delay_ms=st.integers(0, 5000))
    def reschedule(self, pick: int, delay_ms: int) -> None:
        self.twins.reschedule(pick, delay_ms)

    @rule(kind=st.sampled_from([1, 2, 9]), on=st.booleans())
    def pause(self, kind: int, on: bool) -> None:
        self.twins.pause(kind, on)

    @rule(pick=picks)
    def remove(self, pick: int) -> None:
        self.twins.remove(pick)

    @rule()
    def checkpoint(self) -> None:
        self.twins.checkpoint()

    @rule()
    def restart(self) -> None:
        self.twins.restart()

    @invariant()
    def same(self) -> None:
        if hasattr(self, "twins"):
            self.twins.compare()

    def teardown(self) -> None:
        if hasattr(self, "twins"):
            self.twins.replay_all()


TestMachineMatchesModel = MachineMatchesModel.TestCase
TestMachineMatchesModel.settings = settings(max_examples=60, stateful_step_count=50, deadline=None)


ENDS = [Cause.LOST, Cause.LATE, Cause.UNREACHABLE]
WAITS_MS = [0] * 60 + [500] * 20 + [60_000]  # the longest makes sessions of kind 1 too old


@pytest.mark.parametrize("seed", range(6))
def test_g2_g6_a_long_walk(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Thousands of steps, so that layers pile up and the queues of due sessions read many pages of the store."""
    monkeypatch.setattr(due, "PAGE", 3)
    dice = random.Random(seed)
    twins = Twins()

    def some_records() -> list[bytes]:
        return [dice.randbytes(dice.randrange(5)) for _ in range(dice.randrange(1, 3))]

    steps: list[tuple[int, Callable[[], None]]] = [
        (30, lambda: twins.new(dice.choice([1, 2, 2]), some_records())),
        (20, lambda: twins.append(dice.randrange(30), dice.random() < 0.1, some_records())),
        (5, lambda: twins.replace(dice.randrange(30), dice.random() < 0.1, dice.randbytes(3))),
        (8, lambda: twins.delete(dice.randrange(30), dice.random() < 0.1)),
        (25, lambda: twins.store(dice.randrange(30), dice.random() < 0.1, dice.randrange(4000))),
        (15, lambda: twins.give_back(dice.randrange(30), dice.random() < 0.1, dice.choice(ENDS), dice.random())),
        (5, lambda: twins.put_off(dice.randrange(30), dice.random() < 0.1, dice.randrange(4000))),
        (5, lambda: twins.change_grace(dice.randrange(30), dice.random() < 0.1, dice.randrange(2) * 1000)),
        (30, lambda: twins.hand_over(dice.choice([1, 2]), dice.choice(WAITS_MS))),
        (2, lambda: twins.resume(dice.randrange(100))),
        (6, lambda: twins.remove(dice.randrange(300))),
        (4, lambda: twins.reschedule(dice.randrange(100), dice.randrange(4000))),
        (1, lambda: twins.pause(dice.choice([1, 2]), dice.random() < 0.5)),
        (12, twins.checkpoint),
        (1, twins.restart),
    ]
    weights = [weight for weight, _ in steps]
    for at in range(1500):
        dice.choices(steps, weights)[0][1]()
        if at % 25 == 0:
            twins.compare()
    twins.compare()
    twins.replay_all()
