"""What becomes of a session whose owner is lost."""

from __future__ import annotations

import pytest

from tests.node.world import nobody
from truba.kinds import Kind
from truba.machine.events import Deleted, Stored
from truba.machine.machine import Machine
from truba.store.memory import MemoryStore
from truba.types import Cause


@pytest.mark.parametrize("records", [[], [b"a"]])
def test_without_a_record_there_is_nothing_to_recover_from(records: list[bytes]) -> None:
    machine = Machine(MemoryStore(), {7: Kind(7, "transfer", nobody)})
    machine.begin(1)
    number = machine.apply(machine.create(7, 1000, records))
    event = machine.give_back(number, 0, Cause.LOST, 2000, 0.5)
    assert type(event) is (Stored if records else Deleted)
    machine.apply(event)
    assert (machine.get(number) is not None) == bool(records)
