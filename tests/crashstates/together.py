"""Log and store together: the log loses power at any point, while the store is before, at or after its commit.

The log lies on a recording disk, the store is RocksDB on real files, of which a copy is kept whenever a step of a
commit is over. Each state that the log may be in afterwards is started with each store that may have been there then.
"""

from __future__ import annotations

import asyncio
import random
import shutil
from pathlib import Path
from typing import Any, NamedTuple
from unittest.mock import patch

from rocksdict import Checkpoint

from tests.crashstates.powerloss import Ledger, Sure, Tried, Trimmed, append, open_log, points
from tests.crashstates.record import RecordingDisk
from tests.crashstates.sessions import KINDS, LOG_ID, History
from tests.crashstates.states import Kept, State
from truba.codec.batch import decode_batch
from truba.errors import DataDamaged
from truba.log.file import FileLog
from truba.machine.digest import state_digest
from truba.node.checkpoint import Checkpointer
from truba.node.recovery import recover
from truba.ports.store import Staged, Summary
from truba.store import rocks
from truba.store.mark import NAME
from truba.store.rocks import RocksStore


class Store(NamedTuple):
    """A fact of the recording: from here on this copy may be the store. `sure`: and none of those before."""

    copy: int
    sure: bool


class NotedTrims(FileLog):
    """Writes into the recording how far it was trimmed."""

    def trim(self, through_seq: int) -> None:
        disk = self._directory.disk
        assert isinstance(disk, RecordingDisk)
        disk.note(Trimmed(through_seq))
        super().trim(through_seq)


class CopiedStore(RocksStore):
    """Keeps a copy of its directory at each step of a commit."""

    disk: RecordingDisk
    copies: Path
    number = 0

    def keep(self, *, sure: bool) -> None:
        self.number += 1
        copy = self.copies / str(self.number)
        copy.parent.mkdir(exist_ok=True)
        # RocksDB compacts in the background: a copy file by file would be of no one moment.
        assert self._db is not None
        Checkpoint(self._db).create_checkpoint(str(copy))
        if (self._directory / NAME).exists():
            shutil.copy(self._directory / NAME, copy)
        self.disk.note(Store(self.number, sure))

    def commit(self, staged: Staged, summary: Summary) -> None:
        mark = rocks.write_mark

        def marked(directory: Path, applied: Any) -> None:
            self.keep(sure=False)  # flushed, not marked
            mark(directory, applied)

        with patch.object(rocks, "write_mark", marked):
            super().commit(staged, summary)
        self.keep(sure=True)


async def live(disk: RecordingDisk, place: Path, known: History, segment_bytes: int, every: int) -> int:
    """All batches of the history, with a checkpoint after each so many. How many copies of the store there are."""
    log = open_log(disk, segment_bytes, LOG_ID)
    log.__class__ = NotedTrims
    store = CopiedStore.open(place / "store")
    assert isinstance(store, CopiedStore)
    store.disk, store.copies = disk, place / "copies"
    try:
        store.keep(sure=True)
        machine = recover(log, store, KINDS)
        failed: list[BaseException] = []
        checkpointer = Checkpointer(machine, log, store, 1 << 60, failed.append)
        for number, (batch, position) in enumerate(known.entries, 1):
            disk.note(Tried(batch))
            disk.note(Sure(append(log, batch)))
            assert log.tail == position
            machine.replay(batch.term, decode_batch(batch.body))
            if number % every == 0:
                await checkpointer.now()
        await checkpointer.close()
        if failed:
            raise failed[0]
    finally:
        log.close()
        store.close()
    return store.number


class Met:
    def __init__(self) -> None:
        self.started = 0
        self.replayed = 0  # the log was ahead of the store
        self.refused = 0  # the store was ahead of the log, or the log began after it


def explore(place: Path, known: History, dice: random.Random, states: int) -> Met:
    disk, met = RecordingDisk(), Met()
    segment_bytes = 512 * dice.choice((8, 16, 40))
    copies = asyncio.run(live(disk, place, known, segment_bytes, dice.choice((3, 5, 8))))
    stores = {number: RocksStore.open(place / "copies" / str(number)) for number in range(1, copies + 1)}
    try:
        now: set[int] = set()
        for volume, ledger, operation in points(disk, lambda what: _learn(now, what)):
            for state in (volume.now(), *volume.crashes(dice, states)):
                if state.kept is not Kept.ALL:
                    continue
                try:
                    for number in now:
                        start(state, stores[number], known, ledger, segment_bytes, met, legal=True)
                    # What cannot be: a store of another time.
                    other = dice.randint(1, copies)
                    if other not in now:
                        start(state, stores[other], known, ledger, segment_bytes, met, legal=False)
                except Exception as error:
                    error.add_note(f"a crash before {operation!r:.200}, stores {now}: {state.story}")
                    raise
    finally:
        for store in stores.values():
            store.close()
    return met


def _learn(now: set[int], what: object) -> None:
    if isinstance(what, Store):
        if what.sure:
            now.clear()
        now.add(what.copy)


def start(
    state: State, store: RocksStore, known: History, ledger: Ledger, segment_bytes: int, met: Met, *, legal: bool
) -> None:
    """Recover from this log and this store: the durable state, or, where they are not of one time, perhaps a refusal.

    With a store of another time it must be refused, or be what it was at some event that is not less than what is sure.
    """
    disk = RecordingDisk(state.image, state.directories)
    met.started += 1
    log = open_log(disk, segment_bytes, LOG_ID)
    try:
        ledger.check(log)
        try:
            machine = recover(log, store, KINDS)
        except DataDamaged:
            met.refused += 1
            applied = store.summary.applied.seq
            assert not legal, "refused without need"
            assert applied > log.tail.seq or applied < log.begin.seq, "a store that the log leads to was refused"
            return
        met.replayed += store.summary.applied.seq < log.tail.seq
        assert machine.seq == log.tail.seq >= ledger.tail.seq
        assert state_digest(machine) == known.digests[machine.seq]
    finally:
        log.close()
