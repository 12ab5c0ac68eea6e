"""What the layers ask the store for, and when they must not go by what it said before."""

from __future__ import annotations

from tests.node.world import nobody
from truba.kinds import Kind
from truba.machine.events import Repeated
from truba.machine.machine import Machine
from truba.ports.store import Head, Summary, staged_all
from truba.store.memory import MemoryStore
from truba.types import Position


class Asked(MemoryStore):
    """Keeps which heads were read."""

    def __init__(self) -> None:
        super().__init__()
        self.read: list[int] = []

    def get(self, number: int) -> Head | None:
        self.read.append(number)
        return super().get(number)


def checkpoint(machine: Machine, store: MemoryStore) -> None:
    frozen = machine.freeze()
    position = Position(machine.term, machine.seq, bytes(16))
    store.commit(staged_all(store, frozen.changes()), Summary(position, dict(machine.counts), machine.paused))
    machine.settle(frozen)


def with_stored(count: int) -> tuple[Machine, Asked, list[int]]:
    """A machine, its store, and the numbers of sessions that sleep there, due at 1000."""
    store = Asked()
    machine = Machine(store, {7: Kind(7, "transfer", nobody)})
    machine.begin(1)
    numbers = [machine.apply(machine.create(7, 0, [b"a"])) for _ in range(count)]
    for number in numbers:
        machine.apply(machine.store(number, 0, 1000))
    checkpoint(machine, store)
    store.read.clear()
    return machine, store, numbers


def test_a_hand_over_reads_the_head_once() -> None:
    machine, store, numbers = with_stored(3)
    for number in numbers:
        event = machine.repeat(number, 1000)
        assert type(event) is Repeated
        machine.apply(event)
        assert machine.records(number) == [b"a"]
        machine.apply(machine.delete(number, 1))
    assert store.read == numbers


def test_a_head_that_was_read_is_forgotten_when_the_store_has_another() -> None:
    machine, store, [number] = with_stored(1)
    read = machine.get(number)
    assert read is not None
    assert read.epoch == 0
    event = machine.repeat(number, 1000)
    assert event is not None
    machine.apply(event)
    machine.apply(machine.store(number, 1, 2000))
    checkpoint(machine, store)
    again = machine.get(number)
    assert again is not None
    assert (again.epoch, again.due_ms) == (1, 2000)


def test_a_session_that_is_gone_from_the_store_is_gone() -> None:
    machine, store, [number] = with_stored(1)
    assert machine.get(number) is not None
    machine.apply(machine.remove(number))
    checkpoint(machine, store)
    assert machine.get(number) is None


def test_a_layer_that_was_written_is_let_go_bit_by_bit_and_leaves_the_state_alone() -> None:
    machine, store, numbers = with_stored(10)
    for number in numbers:
        machine.apply(Repeated(number, b"", 0, 1000, ""))
    frozen = machine.freeze()
    position = Position(machine.term, machine.seq, bytes(16))
    store.commit(staged_all(store, frozen.changes()), Summary(position, dict(machine.counts), machine.paused))
    machine.settle(frozen)
    before = list(machine.scan())
    sizes = [len(frozen.heads)]
    while frozen.let_go(4):
        sizes.append(len(frozen.heads))
    assert sizes == [10, 6, 2]
    assert not any((frozen.heads, frozen.tails, frozen.was, *(heap.keys for heap in frozen.due.values())))
    assert list(machine.scan()) == before
    assert [*machine.owned] == numbers
