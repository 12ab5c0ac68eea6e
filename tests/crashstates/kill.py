"""Real processes on real files, with checkpoints and an installation, killed before any step; the state after it."""

from __future__ import annotations

import random
import shutil
from pathlib import Path

from tests.crashstates.sessions import KINDS, LOG_ID, History, history
from tests.crashstates.victim import SEGMENT_BYTES, Told, Victims
from truba.codec.batch import decode_batch
from truba.install import settle
from truba.log.file import FileLog
from truba.machine.digest import state_digest
from truba.machine.machine import Machine
from truba.node.recovery import recover
from truba.ports.store import Summary, staged_all
from truba.store.rocks import RocksStore
from truba.types import Position

BATCHES = 80


def make_peer(place: Path, known: History, through: int) -> Position:
    """A copy of the store of a peer that has come so many batches far, in `place`."""
    store = RocksStore.open(place.with_name("peer"))
    try:
        machine = Machine(store, KINDS)
        for batch, _ in known.entries[:through]:
            machine.replay(batch.term, decode_batch(batch.body))
        position = known.entries[through - 1][1]
        store.commit(staged_all(store, machine.freeze().changes()), Summary(position, dict(machine.counts)))
        store.export(place)
    finally:
        store.close()
    return position


def state_of(data: Path) -> tuple[int, str]:
    """What a start finds: the last event, and the digest of the state."""
    settle(data)
    log = FileLog.open(data / "log", segment_bytes=SEGMENT_BYTES, reserve_bytes=0, housekeeping="inline", log_id=LOG_ID)
    try:
        store = RocksStore.open(data / "store")
        try:
            machine = recover(log, store, KINDS)
            assert machine.seq == log.tail.seq
            return machine.seq, state_digest(machine)
        finally:
            store.close()
    finally:
        log.close()


def check(data: Path, known: History, told: Told) -> int:
    seq, digest = state_of(data)
    assert seq in (told.sure, max(told.sure, told.tried)), f"{told}, but a start finds {seq}"
    assert digest == known.digests[seq], f"the state after event {seq} is not what it was"
    return seq


class Stage:
    """A history, a peer that is ahead in it, and a process that gives victims."""

    def __init__(self, place: Path, seed: int) -> None:
        self._place = place
        self.known = history(seed, BATCHES)
        peer_at = make_peer(place / "export", self.known, BATCHES * 2 // 3)
        self.victims = Victims(seed, BATCHES, place / "export", peer_at.seq)
        self._lives = 0

    def steps(self) -> list[str]:
        """The steps of a whole life, each by what it is a part of."""
        data = self._fresh()
        told = self.victims.life(data, 0)
        assert not told.killed
        assert check(data, self.known, told) == self.known.entries[-1][1].seq
        shutil.rmtree(data)
        return told.steps

    def kill(self, at: int, dice: random.Random) -> None:
        """A life is killed before this step; now and then those that follow it as well, until one comes to its end."""
        data = self._fresh()
        told = self.victims.life(data, at)
        # Its threads meet otherwise each time, so it may have some steps fewer than the life that they were counted of.
        assert told.killed or len(told.steps) < at, "it came to its end"
        found = check(data, self.known, told)
        if dice.random() < 0.15:
            for last in (dice.randint(1, 60), dice.randint(1, 300), 0):
                before, told = found, self.victims.life(data, last)
                told = told._replace(sure=max(before, told.sure))
                found = check(data, self.known, told)
                assert found >= before
                if not told.killed:
                    break
            assert told.killed or found == self.known.entries[-1][1].seq
        shutil.rmtree(data)

    def _fresh(self) -> Path:
        self._lives += 1
        return self._place / f"data-{self._lives}"
