"""A start: what store and log hold together, or a refusal when they are not of one piece."""

from __future__ import annotations

import pytest

from truba.codec.batch import encode_batch
from truba.errors import DataDamaged
from truba.kinds import Kind
from truba.log.memory import MemoryLog
from truba.machine.events import Created, Event, Opened
from truba.machine.machine import Machine
from truba.node.recovery import recover
from truba.ports.log import LogBatch
from truba.ports.store import Summary
from truba.store.memory import MemoryStore
from truba.types import Phase, Position

KINDS = {7: Kind(7, "transfer", "local:nobody:here")}
BATCHES: list[list[Event]] = [
    [Opened(0, "a")],
    [Created(7, 0, b"", 0, -1, [b"x"])],
    [Created(7, 0, b"", 0, -1, [b"y"])],
]


def written() -> MemoryLog:
    log = MemoryLog()
    for seq, events in enumerate(BATCHES, 1):
        log.append(LogBatch(1, seq, 1, encode_batch(events)), lambda error: None)
    return log


def store_at(applied: Position, events: int) -> MemoryStore:
    """A store that says it holds the log through there, and holds the state of so many events."""
    store = MemoryStore()
    machine = Machine(store, KINDS)
    for batch in BATCHES[:events]:
        machine.replay(1, batch)
    staged = store.stage()
    for change in machine.freeze().changes():
        staged.add(change)
    store.commit(staged, Summary(applied, dict(machine.counts)))
    return store


@pytest.mark.parametrize("seq", [0, 1, 2, 3])
def test_what_the_store_has_is_not_applied_again(seq: int) -> None:
    log = written()
    applied = log.position_at(seq)
    assert applied is not None
    machine = recover(log, store_at(applied, seq), KINDS)
    assert (machine.term, machine.seq) == (1, 3)
    assert [machine.records(head.number) for head in machine.scan()] == [[b"x"], [b"y"]]
    assert machine.counts == {(7, Phase.ACTIVE): 2}


def test_what_was_trimmed_is_not_asked_for() -> None:
    log = written()
    applied = log.position_at(2)
    assert applied is not None
    log.trim(2)
    machine = recover(log, store_at(applied, 2), KINDS)
    assert [machine.records(head.number) for head in machine.scan()] == [[b"x"], [b"y"]]


def test_a_store_that_knows_more_than_the_log_is_refused() -> None:
    """The log has lost its end: what it lacks was acknowledged."""
    whole = written()
    log = MemoryLog()
    for batch, _ in list(whole.read(0))[:2]:
        log.append(batch, lambda error: None)
    with pytest.raises(DataDamaged, match="the state of event 1-3, the log ends with 1-2"):
        recover(log, store_at(whole.tail, 3), KINDS)


@pytest.mark.parametrize("seq", [2, 3])
def test_a_store_of_another_log_is_refused(seq: int) -> None:
    log = written()
    applied = log.position_at(seq)
    assert applied is not None
    for other in (applied._replace(chain=bytes(16)), applied._replace(term=2)):
        with pytest.raises(DataDamaged, match="not of one piece"):
            recover(log, store_at(other, seq), KINDS)


def test_a_store_that_ends_within_a_batch_of_the_log_is_refused() -> None:
    """It is of another log, whose batches were others."""
    log = MemoryLog()
    events = [event for batch in BATCHES for event in batch]
    log.append(LogBatch(1, 1, 3, encode_batch(events)), lambda error: None)
    with pytest.raises(DataDamaged, match="not of one piece"):
        recover(log, store_at(Position(1, 2, bytes(16)), 2), KINDS)
