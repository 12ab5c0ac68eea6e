"""Recovery: the state that store and log hold together, or a refusal that says why they do not."""

from __future__ import annotations

from collections.abc import Mapping

from truba.codec.batch import decode_batch
from truba.errors import ConfigError, DataDamaged, DataUnwritable
from truba.kinds import Kind
from truba.machine.machine import Machine
from truba.ports.log import Log
from truba.ports.store import Store


def recover(log: Log, store: Store, kinds: Mapping[int, Kind]) -> Machine:
    """What store and log hold together.

    DataDamaged: they do not fit. DataUnwritable: they cannot be read. ConfigError: a kind has gone missing.
    """
    try:
        return _recover(log, store, kinds)
    except OSError as error:
        raise DataUnwritable(f"the state cannot be recovered: {error}") from error


def _recover(log: Log, store: Store, kinds: Mapping[int, Kind]) -> Machine:
    machine = Machine(store, kinds)
    applied = store.summary.applied
    if applied.seq > log.tail.seq or log.position_at(applied.seq) not in (None, applied):
        raise _mismatch(log, store)
    try:
        batches = log.read(applied.seq)
    except ValueError as error:  # that is within one
        raise _mismatch(log, store) from error
    for batch, _ in batches:
        machine.replay(batch.term, decode_batch(batch.body))
    missing = sorted({kind for kind, _ in machine.counts} - kinds.keys())
    if missing:
        left = ", ".join(f"kind {n}: {sum(c for (k, _), c in machine.counts.items() if k == n)}" for n in missing)
        raise ConfigError(
            f"there are sessions of kinds that the configuration does not name ({left}); add the kinds again, and"
            " remove them only when no session of theirs is left (truba ls)"
        )
    return machine


def _mismatch(log: Log, store: Store) -> DataDamaged:
    applied = store.summary.applied
    return DataDamaged(
        f"the store holds the state of event {applied.term}-{applied.seq}, the log ends with"
        f" {log.tail.term}-{log.tail.seq} and does not lead there: they are not of one piece."
        " Restore the whole directory from a copy; or, after `truba log repair`, move the store's directory aside to"
        " go on with what the log alone holds. If the end of the log was torn, a file lost-* in its directory keeps it"
    )
