"""A copy of the store, made while it is in use: one commit, whole, and exactly the one that was said."""

from __future__ import annotations

import os
import stat
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.store.test_crash import check_whole, victim
from tests.store.test_rocks import probe
from truba.errors import DataDamaged, DataUnwritable
from truba.ports.store import Head, Put, Summary, staged_all
from truba.store.mark import NAME, read_mark
from truba.store.rocks import RocksStore, inspect_store
from truba.testing.store import commit, contents, make_head, stored, summary
from truba.types import ORIGIN


def test_a_copy_is_the_last_commit(tmp_path: Path) -> None:
    store = RocksStore.open(tmp_path / "store")
    first = stored(1, 10, chunks=(0,))
    commit(store, 1, Put(first, None, (0, [b"a"])))
    before = contents(store)
    said = store.export(tmp_path / "copy")
    assert said == summary(1) == store.summary
    commit(store, 2, Put(make_head(1, epoch=1), first, None))
    assert inspect_store(tmp_path / "copy") == said
    assert read_mark(tmp_path / "copy") == said.applied
    copy = RocksStore.open(tmp_path / "copy")
    assert contents(copy) == before
    commit(copy, 7, Put(make_head(2), None, None))  # it is a store of its own
    copy.close()
    assert contents(store)["heads"] == [make_head(1, epoch=1)]
    store.close()


def test_a_copy_shares_its_tables_and_outlives_the_store(tmp_path: Path) -> None:
    store = RocksStore.open(tmp_path / "store")
    commit(store, 1, *(Put(make_head(n, chunks=(0,)), None, (0, [b"x" * 1000])) for n in range(1, 200)))
    store.export(tmp_path / "copy")
    tables = list((tmp_path / "copy").glob("*.sst"))
    assert tables
    assert all(table.stat().st_nlink == 2 for table in tables)
    assert stat.S_IMODE((tmp_path / "copy").stat().st_mode) == 0o700
    commit(store, 2, *(Put(make_head(n, epoch=1), make_head(n, chunks=(0,)), None) for n in range(1, 200)))
    store.close()
    for path in (tmp_path / "store").iterdir():
        path.unlink()
    copy = RocksStore.open(tmp_path / "copy")
    assert len(contents(copy)["chunks"]) == 199
    copy.close()


def test_an_empty_store_gives_an_empty_copy(tmp_path: Path) -> None:
    store = RocksStore.open(tmp_path / "store")
    assert store.export(tmp_path / "copy").applied == ORIGIN
    store.close()
    copy = RocksStore.open(tmp_path / "copy")
    assert contents(copy)["heads"] == []
    copy.close()


def test_a_copy_on_another_file_system_is_the_same(tmp_path: Path) -> None:
    memory = Path("/dev/shm")
    if not memory.is_dir() or memory.stat().st_dev == tmp_path.stat().st_dev:
        pytest.skip("there is no second file system at /dev/shm")
    target = memory / f"truba-{os.getpid()}-copy"
    store = RocksStore.open(tmp_path / "store")
    commit(store, 1, Put(make_head(1), None, None))
    try:
        store.export(target)
        assert inspect_store(target) == summary(1)
    finally:
        for path in target.iterdir():
            path.unlink()
        target.rmdir()
    store.close()


def test_a_copy_waits_for_the_commit_under_way(tmp_path: Path) -> None:
    """Written, not flushed, not acknowledged: the copy holds it only once it is durable and named."""
    store = RocksStore.open(tmp_path / "store")
    commit(store, 1, Put(make_head(1), None, None))
    written, go_on = threading.Event(), threading.Event()

    def wait() -> None:
        written.set()
        assert go_on.wait(30)

    with ThreadPoolExecutor(2) as pool:
        database = store._db  # noqa: SLF001
        probe(store, wait)
        committing = pool.submit(commit, store, 2, Put(make_head(2), None, None))
        assert written.wait(30)
        exporting = pool.submit(store.export, tmp_path / "copy")
        with pytest.raises(TimeoutError):
            exporting.result(0.05)  # as long as the commit is under way there is nothing to wait for
        store._db = database  # noqa: SLF001
        go_on.set()
        committing.result(30)
        assert exporting.result(30) == summary(2)
    assert inspect_store(tmp_path / "copy") == summary(2)
    store.close()


def test_copies_beside_commits_are_each_one_commit_whole(tmp_path: Path) -> None:
    store = RocksStore.open(tmp_path / "store", memory_bytes=4 << 20)
    ended, committed = threading.Event(), threading.Semaphore(0)

    def work() -> int:
        heads: dict[int, Head] = {}
        seq = 0
        while not ended.is_set():
            seq += 1
            changes, heads = victim.changes_of(seq, heads)
            store.commit(staged_all(store, changes), summary(seq, stored=seq))
            committed.release()
        return seq

    def export(n: int) -> Summary:
        assert committed.acquire(timeout=30)
        return store.export(tmp_path / f"copy-{n}")

    with ThreadPoolExecutor(1) as pool:
        working = pool.submit(work)
        try:
            said = [export(n) for n in range(12)]
        finally:
            ended.set()
        last = working.result(60)
    store.close()
    for n, each in enumerate(said):
        assert inspect_store(tmp_path / f"copy-{n}") == each
        assert check_whole(tmp_path / f"copy-{n}", n + 1) == each.applied.seq
    assert said[-1].applied.seq <= last


def test_what_cannot_be_copied(tmp_path: Path) -> None:
    store = RocksStore.open(tmp_path / "store")
    (tmp_path / "copy").mkdir()
    with pytest.raises(DataUnwritable, match="exists already"):
        store.export(tmp_path / "copy")
    (tmp_path / "file").touch()
    with pytest.raises(OSError, match="file"):
        store.export(tmp_path / "file" / "copy")

    def fail() -> None:
        raise OSError(28, "No space left on device")

    probe(store, fail)
    with pytest.raises(OSError, match="No space"):
        commit(store, 1, Put(make_head(1), None, None))
    with pytest.raises(DataUnwritable, match="earlier commit failed"):
        store.export(tmp_path / "other")
    store.close()
    with pytest.raises(DataUnwritable, match="closed"):
        store.export(tmp_path / "other")
    assert not (tmp_path / "other").exists()


def test_a_copy_that_fails_half_way_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = RocksStore.open(tmp_path / "store")
    commit(store, 1, Put(make_head(1), None, None))
    with monkeypatch.context() as patch:
        patch.setattr("truba.store.rocks.write_mark", lambda *_: (_ for _ in ()).throw(OSError(28, "No space left")))
        with pytest.raises(OSError, match="No space"):
            store.export(tmp_path / "copy")
    assert not (tmp_path / "copy").exists()
    assert store.export(tmp_path / "copy") == summary(1)
    store.close()


def test_inspecting_refuses_what_opening_refuses(tmp_path: Path) -> None:
    store = RocksStore.open(tmp_path / "store")
    commit(store, 3, Put(make_head(1), None, None))
    store.export(tmp_path / "copy")
    store.close()
    mark = tmp_path / "copy" / NAME
    mark.write_bytes(mark.read_bytes().replace(b"1 1 3", b"1 1 4"))
    with pytest.raises(DataDamaged, match="APPLIED is not what was written"):
        inspect_store(tmp_path / "copy")
