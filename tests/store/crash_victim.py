"""Commits until it is killed. `python crash_victim.py DIRECTORY` prints each commit once it is sure."""

from __future__ import annotations

import random
import sys
from pathlib import Path

from truba.ports.store import Head, Put, Remove
from truba.store.rocks import RocksStore
from truba.testing.store import make_head, stored, summary
from truba.types import Phase

SESSIONS = 60


def changes_of(seq: int, before: dict[int, Head]) -> tuple[list[Put | Remove], dict[int, Head]]:
    """Commit number `seq`, and the heads after it: the same for everybody who asks."""
    dice = random.Random(seq)
    after = dict(before)
    changes: list[Put | Remove] = []
    for number in dice.sample(range(1, SESSIONS + 1), 40):
        was = before.get(number)
        if was is not None and dice.random() < 0.3:
            changes.append(Remove(was))
            del after[number]
            continue
        made = dice.choice([stored(number, dice.randrange(1_000), seq), make_head(number, phase=Phase.REPEATING)])
        made.epoch, made.next = seq, seq
        made.chunks = (seq,) if was is None or dice.random() < 0.5 else (*was.chunks, seq)
        changes.append(Put(made, was, (seq, record(number, seq))))
        after[number] = made
    return changes, after


def record(number: int, seq: int) -> list[bytes]:
    """One record that says whose it is; every tenth large, so that the commit passes every buffer size in use."""
    return [f"{number} at {seq} ".encode() * (60_000 if number % 10 == 0 else 20)]


def state_at(seq: int) -> dict[int, Head]:
    heads: dict[int, Head] = {}
    for each in range(1, seq + 1):
        _, heads = changes_of(each, heads)
    return heads


def main(directory: Path) -> None:
    store = RocksStore.open(directory, memory_bytes=4 << 20)
    seq = store.summary.applied.seq
    heads = state_at(seq)
    while True:
        seq += 1
        changes, heads = changes_of(seq, heads)
        staged = store.stage()
        for change in changes:
            staged.add(change)
        store.commit(staged, summary(seq, stored=seq))
        sys.stdout.write(f"{seq}\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
