"""Damaged files are reported, never served as good (G7)."""

from __future__ import annotations

import os
import random
import shutil
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from truba.errors import DataDamaged
from truba.ports.store import Put
from truba.store.rocks import RocksStore
from truba.testing.store import commit, contents, stored

COMMITS, EACH = 3, 300


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    """A closed store of a few tables, and what it holds."""
    directory = tmp_path_factory.mktemp("sound") / "store"
    dice = random.Random(1)
    store = RocksStore.open(directory)
    for seq in range(1, COMMITS + 1):
        numbers = range(seq * EACH, seq * EACH + EACH)
        heads = [stored(n, n % 50, chunks=(0,)) for n in numbers]
        commit(store, seq, *(Put(head, None, (0, [dice.randbytes(300)])) for head in heads))
    held = contents(store)
    store.close()
    return directory, held


@pytest.fixture
def copy(sound: tuple[Path, dict[str, Any]], tmp_path: Path) -> Path:
    return Path(shutil.copytree(sound[0], tmp_path / "copy"))


def manifest(directory: Path) -> Path:
    return next(directory.glob("MANIFEST-*"))


def files(directory: Path) -> dict[str, bytes]:
    kept = ("MANIFEST", "CURRENT", "APPLIED")
    return {p.name: p.read_bytes() for p in directory.iterdir() if p.suffix == ".sst" or p.name.startswith(kept)}


def held_or_damaged(directory: Path) -> dict[str, Any] | None:
    """All that the store tells; None when it said that it is damaged. Any other error is a failure."""
    try:
        store = RocksStore.open(directory)
    except DataDamaged:
        return None
    try:
        return contents(store)
    except DataDamaged:
        return None
    finally:
        with suppress(DataDamaged):  # met while compacting: reported, as it should be
            store.close()


def test_a_flipped_bit_of_a_table_is_never_served(sound: tuple[Path, dict[str, Any]], tmp_path: Path) -> None:
    directory, held = sound
    tables = sorted(directory.glob("*.sst"))
    assert len(tables) == COMMITS
    dice = random.Random(7)
    noticed = 0
    for turn in range(40):
        copy = Path(shutil.copytree(directory, tmp_path / str(turn)))
        table = copy / dice.choice(tables).name
        data = bytearray(table.read_bytes())
        data[dice.randrange(len(data))] ^= 1 << dice.randrange(8)
        table.write_bytes(data)
        found = held_or_damaged(copy)
        assert found in (None, held)
        noticed += found is None
        shutil.rmtree(copy)
    assert noticed > 30  # the rest hit bytes that nothing was read from


def test_a_manifest_cut_anywhere_is_refused_or_whole(sound: tuple[Path, dict[str, Any]], tmp_path: Path) -> None:
    directory, held = sound
    size = manifest(directory).stat().st_size
    refused = 0
    for cut in [*range(0, size, 37), size - 1]:
        copy = Path(shutil.copytree(directory, tmp_path / str(cut)))
        os.truncate(manifest(copy), cut)
        before = files(copy)
        try:
            store = RocksStore.open(copy)
        except DataDamaged:
            assert files(copy) == before  # a refused start deletes nothing that a repair would need
            refused += 1
        else:
            assert contents(store) == held
            store.close()
        shutil.rmtree(copy)
    assert refused > 5


def test_an_earlier_manifest_is_refused(copy: Path) -> None:
    """Cut at the end of a record it reads well, only older: RocksDB alone would open it and delete the newer tables."""
    held = manifest(copy).read_bytes()
    told = set()
    for cut in range(len(held)):
        os.truncate(manifest(copy), 0)
        manifest(copy).write_bytes(held[:cut])
        try:
            RocksStore.open(copy).close()
            break
        except DataDamaged as error:
            told |= {part for part in ("went back", "damaged") if part in str(error)}
    assert told == {"went back", "damaged"}


def test_a_store_of_before_the_last_commit_is_refused(tmp_path: Path) -> None:
    """Whole and sound in itself, as a manifest cut between two commits would leave it."""
    store = RocksStore.open(tmp_path / "store")
    commit(store, 1, Put(stored(1, 1, chunks=(0,)), None, (0, [b"one"])))
    store.close()
    shutil.copytree(tmp_path / "store", tmp_path / "before")
    store = RocksStore.open(tmp_path / "store")
    commit(store, 2, Put(stored(2, 2, chunks=(0,)), None, (0, [b"two"])))
    store.close()
    shutil.copy(tmp_path / "store" / "APPLIED", tmp_path / "before")
    with pytest.raises(DataDamaged, match="went back: it was written through 1-2, but its manifest leads only to 1-1"):
        RocksStore.open(tmp_path / "before")


@pytest.mark.parametrize("name", ["CURRENT", "MANIFEST-*", "*.sst"])
def test_a_missing_file_is_damage(copy: Path, name: str) -> None:
    next(copy.glob(name)).unlink()
    before = files(copy)
    with pytest.raises(DataDamaged):
        RocksStore.open(copy)
    assert files(copy) == before


@pytest.mark.parametrize("name", ["CURRENT", "MANIFEST-*", "*.sst", "APPLIED"])
def test_an_emptied_file_is_damage(copy: Path, name: str) -> None:
    os.truncate(next(copy.glob(name)), 0)
    with pytest.raises(DataDamaged):
        RocksStore.open(copy)


@pytest.mark.parametrize("name", ["OPTIONS-*", "IDENTITY", "rocksdict-config.json", "LOG"])
def test_files_that_hold_no_state_may_be_lost(sound: tuple[Path, dict[str, Any]], copy: Path, name: str) -> None:
    next(copy.glob(name)).unlink()
    assert held_or_damaged(copy) == sound[1]


def test_a_walk_that_meets_damage_does_not_end_as_if_all_were_read(tmp_path: Path) -> None:
    store = RocksStore.open(tmp_path)
    commit(store, 1, *(Put(stored(n, n), None, None) for n in range(1, 5_001)))
    store.close()
    table = next(tmp_path.glob("*.sst"))
    data = bytearray(table.read_bytes())
    data[len(data) * 2 // 3] ^= 1  # among the heads, which follow the due keys
    table.write_bytes(data)
    store = RocksStore.open(tmp_path)
    with pytest.raises(DataDamaged, match="checksum"):
        list(store.scan(-1))
    store.close()
