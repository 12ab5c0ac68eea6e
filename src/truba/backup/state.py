"""The state that a store and the log after it hold together, put together in memory. Needs no configuration."""

from __future__ import annotations

from pathlib import Path

from truba.codec.batch import decode_batch
from truba.errors import DataDamaged
from truba.log.excerpt import read_between
from truba.machine.machine import Machine
from truba.ports.store import Store
from truba.types import Position


def replay(store: Store, log: Path, after: Position, through: Position) -> Machine:
    """The machine as of `through`. Its kinds are unknown: it can be looked at, and decides nothing. DataDamaged."""
    if store.summary.applied != after:
        found = store.summary.applied
        raise DataDamaged(f"the store holds the state of event {found.term}-{found.seq}, not {after.term}-{after.seq}")
    machine = Machine(store, {})
    for frame in read_between(log, after, through):
        machine.replay(frame.batch.term, decode_batch(frame.batch.body))
    return machine
