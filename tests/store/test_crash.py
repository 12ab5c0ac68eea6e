"""A process that commits is killed at any moment: one commit's state is found, whole, and none that was sure is lost.

This is G1 for the store: the log before a commit may be recycled once the commit has returned.
"""

from __future__ import annotations

import importlib.util
import random
import subprocess
import sys
import time
from pathlib import Path
from types import ModuleType

import pytest

from truba.store.rocks import RocksStore
from truba.testing.store import contents, summary
from truba.types import Phase

VICTIM = Path(__file__).with_name("crash_victim.py")
ROUNDS = 20


def load_victim() -> ModuleType:
    spec = importlib.util.spec_from_file_location("crash_victim", VICTIM)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


victim = load_victim()


def commit_until_killed(directory: Path, after_s: float) -> int:
    """Returns the last commit that the process had announced; `after_s` counts from its first announcement."""
    process = subprocess.Popen([sys.executable, str(VICTIM), str(directory)], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    try:
        lines = [process.stdout.readline()]
        assert lines[0], "it ended before its first commit"
        time.sleep(after_s)  # the moment of death is what is tested; any will do
    finally:
        process.kill()
        process.wait(10)
    with process.stdout as rest:
        lines += rest.readlines()
    return int([line for line in lines if line.endswith("\n")][-1])


def check_whole(directory: Path, sure: int) -> int:
    store = RocksStore.open(directory)
    seq = store.summary.applied.seq
    assert seq >= sure
    assert store.summary == summary(seq, stored=seq)
    found, want = contents(store), victim.state_at(seq)
    assert found["heads"] == [want[number] for number in sorted(want)]
    assert found["chunks"] == {(h.number, c): victim.record(h.number, c) for h in want.values() for c in h.chunks}
    assert found["owned"] == [h for h in found["heads"] if h.phase is Phase.REPEATING]
    due = sorted((h.due_ms, h.order, h.number) for h in want.values() if h.phase is Phase.STORED)
    assert found["due"][7] == due
    kept = {key for key, _ in store._page(b"", b"\xff", 1_000_000)}  # noqa: SLF001 # nothing else is left behind
    assert len(kept) == 1 + 2 * len(want) + sum(len(h.chunks) for h in want.values())
    store.close()
    return seq


def test_kill_at_any_moment_leaves_one_commit_whole(tmp_path: Path) -> None:
    dice = random.Random()
    sure = 0
    for _ in range(ROUNDS):
        sure = max(sure, commit_until_killed(tmp_path, dice.uniform(0, 0.12)))
        sure = check_whole(tmp_path, sure)
    assert sure >= ROUNDS


def test_the_name_of_the_directory_is_durable_before_a_database_is_in_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever made it may have been killed before he had synced it into the one above."""
    place = tmp_path / "store"
    place.mkdir()
    synced: list[tuple[Path, bool]] = []

    def sync(directory: Path) -> None:
        synced.append((directory, (place / "CURRENT").exists()))

    monkeypatch.setattr("truba.store.rocks_setup.sync_directory", sync)
    for _ in range(2):
        RocksStore.open(place).close()
    assert synced == [(tmp_path, False)]
