"""The sequencer by itself, on a log that takes its time and several batches at once: whose outcome is told when."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from truba.errors import LogPoisoned, UnknownOutcome
from truba.kinds import Kind
from truba.log.memory import MemoryLog
from truba.machine.events import Created
from truba.machine.machine import Machine
from truba.node.sequencer import Sequencer
from truba.ports.log import LogBatch
from truba.store.memory import MemoryStore

EVENT = Created(7, 0, b"", 0, -1, [b"x"])


class Bench:
    """A sequencer on a held log of that window."""

    def __init__(self, log: MemoryLog) -> None:
        self.log = log
        self.failures: list[BaseException] = []
        machine = Machine(MemoryStore(), {7: Kind(7, "transfer", "local:nobody:here")})
        machine.begin(1)
        self.sequencer = Sequencer(log, machine, self.failures.append)
        self.told: list[tuple[int, bool]] = []

    def stage(self) -> int:
        seq = self.sequencer.stage(EVENT, 1)
        self.ask(seq)
        return seq

    def ask(self, seq: int) -> None:
        """Wait, as a connection does, for everything staged so far."""
        batch = self.sequencer.latest
        assert batch is not None
        batch.waiters.append(lambda durable: self.told.append((seq, durable)))

    async def turn(self) -> None:
        await asyncio.sleep(0)
        await asyncio.sleep(0)


async def test_who_asks_while_a_batch_is_being_written_waits_for_it() -> None:
    bench = Bench(MemoryLog(held=True))
    bench.stage()
    await bench.turn()
    bench.ask(2)  # nothing has been staged since, and nothing is durable
    flush = bench.sequencer.flush()
    await bench.turn()
    assert (bench.told, flush.done()) == ([], False)
    bench.log.release()
    await flush
    assert bench.told == [(1, True), (2, True)]
    assert bench.sequencer.latest is None


async def test_who_asks_while_several_are_being_written_waits_for_the_last() -> None:
    bench = Bench(MemoryLog(held=True, window=2))
    bench.stage()
    await bench.turn()
    bench.stage()
    await bench.turn()
    bench.ask(3)
    flush = bench.sequencer.flush()
    await bench.turn()
    bench.log.release(1)
    await bench.turn()
    bench.ask(4)  # the first is durable, the last is not
    assert (bench.told, flush.done()) == ([(1, True)], False)
    bench.log.release(1)
    await flush
    assert bench.told == [(1, True), (2, True), (3, True), (4, True)]


async def test_who_asks_while_several_are_full_waits_for_the_last() -> None:
    bench = Bench(MemoryLog(held=True, batch_bytes_max=1))  # each event fills a batch
    for _ in range(4):
        bench.stage()
    await bench.turn()
    bench.ask(5)
    for seq in range(1, 5):
        assert bench.told == [(before, True) for before in range(1, seq)]
        bench.log.release(1)
        await bench.turn()
    assert bench.told == [(seq, True) for seq in range(1, 6)]
    assert [batch.first_seq for batch, _ in bench.log.read(0)] == [1, 2, 3, 4]


async def test_only_the_newest_state_is_called_that_of_its_batch() -> None:
    """A checkpoint may begin only there: a full batch may be sent when the state has gone beyond it."""
    bench = Bench(MemoryLog(held=True, batch_bytes_max=1))
    sealed: list[tuple[int, bool]] = []
    bench.sequencer.on_seal = lambda batch, size, exact: sealed.append((batch.last_seq, exact))
    for _ in range(3):
        bench.stage()
    for _ in range(3):
        await bench.turn()
        bench.log.release(1)
    assert sealed == [(1, False), (2, False), (3, True)]


@pytest.mark.parametrize("asked", ["before", "after"])
async def test_a_batch_that_was_lost_is_never_called_durable(asked: str) -> None:
    """Whether its outcome is asked for before the log fails, or only then."""
    bench = Bench(MemoryLog(held=True))
    bench.stage()
    batch = bench.sequencer.latest
    assert batch is not None
    if asked == "before":
        batch.durable()
    await bench.turn()
    bench.log.fail(OSError(5, "Input/output error"))
    with pytest.raises(UnknownOutcome):
        await batch.durable()
    assert bench.told == [(1, False)]


class LateLog(MemoryLog):
    """Its answers come when the test wants them."""

    def __init__(self) -> None:
        super().__init__(held=True)
        self.late: list[Callable[[BaseException | None], Any]] = []

    def append(self, batch: LogBatch, done: Callable[[BaseException | None], Any]) -> None:
        self.late.append(done)


@pytest.mark.parametrize("answer", [None, LogPoisoned("again")])
async def test_an_answer_of_the_log_after_the_end_changes_nothing(answer: LogPoisoned | None) -> None:
    """The node was given up for another reason while a batch was with the disk: nobody may be told OK after that."""
    log = LateLog()
    bench = Bench(log)
    bench.stage()
    await bench.turn()
    bench.sequencer.fail(RuntimeError("the store is damaged"))
    assert bench.told == [(1, False)]
    log.late[0](answer)
    await bench.turn()
    assert bench.told == [(1, False)]
    assert [str(failure) for failure in bench.failures] == ["the store is damaged"]
    with pytest.raises(UnknownOutcome):
        bench.sequencer.stage(EVENT, 1)
