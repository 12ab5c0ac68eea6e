"""Which session is due next, when entries of the queue are out of date."""

from __future__ import annotations

from tests.machine.test_layers import with_stored
from truba.kinds import Kind
from truba.machine.machine import Machine
from truba.store.memory import MemoryStore


def test_a_session_that_is_stored_again_is_due_at_its_new_time_only() -> None:
    machine = Machine(MemoryStore(), {7: Kind(7, "transfer", "truba://h:1")})
    machine.begin(1)
    number = machine.apply(machine.create(7, 0, [b"a"]))
    machine.apply(machine.store(number, 0, 1000))
    hand_over = machine.repeat(number, 1000)
    assert hand_over is not None
    machine.apply(hand_over)
    machine.apply(machine.store(number, 1, 5000))
    key = machine.queue(7).peek()
    assert key is not None
    assert (key.number, key.due_ms) == (number, 5000)


def test_a_session_that_an_operator_puts_off_is_due_then() -> None:
    machine, _, [first, second] = with_stored(2)
    event = machine.reschedule(first, 9000, 0)
    assert event is not None
    machine.apply(event)
    key = machine.queue(7).peek()
    assert key is not None
    assert (key.number, key.due_ms) == (second, 1000)
