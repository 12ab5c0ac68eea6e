"""What only the store on disk promises: isolation, locks, modes, refusals, and no wading through what was removed."""

from __future__ import annotations

import os
import random
import stat
import threading
from pathlib import Path
from typing import Any

import msgspec
import pytest
from rocksdict import Options, Rdict

from truba.errors import DataDamaged, DataForeign, DataLocked, DataNewer, DataUnwritable
from truba.kinds import Kind
from truba.machine.machine import Machine
from truba.ports.store import DueKey, Put, Remove, staged_all
from truba.store import keys
from truba.store.rocks import PAGE_KEYS, RUN_KEYS, RocksStore
from truba.testing.store import commit, contents, make_head, stored, summary
from truba.types import Phase


class Probe:
    """Stands between the store and RocksDB and looks, or fails, before the flush."""

    def __init__(self, database: Rdict, before_flush: Any) -> None:
        self.database, self.before_flush = database, before_flush

    def flush(self, wait: bool) -> None:
        self.before_flush()
        self.database.flush(wait)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.database, name)


def probe(store: RocksStore, before_flush: Any) -> None:
    store._db = Probe(store._db, before_flush)  # type: ignore[assignment, arg-type] # noqa: SLF001


def test_readers_see_the_state_before_until_the_commit_is_durable(tmp_path: Path) -> None:
    store = RocksStore.open(tmp_path)
    first, second = stored(1, 10, chunks=(0,)), make_head(1, phase=Phase.REPEATING, epoch=1)
    commit(store, 1, Put(first, None, (0, [b"a"])))
    before = contents(store)
    seen: list[dict[str, Any]] = []

    def look() -> None:
        reader = threading.Thread(target=lambda: seen.append(contents(store)))
        reader.start()
        reader.join()

    probe(store, look)
    commit(store, 2, Put(second, first, None))
    assert seen == [before]
    assert contents(store)["owned"] == [second]
    store.close()


@pytest.mark.parametrize("what", ["claim", "open_database"])
def test_a_store_that_cannot_be_read_or_made_is_refused_by_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise OSError(5, "Input/output error")

    with monkeypatch.context() as patch:
        patch.setattr(f"truba.store.rocks.{what}", fail)
        with pytest.raises(DataUnwritable, match=r"the store in .* cannot be opened: .*Input/output error"):
            RocksStore.open(tmp_path)
    RocksStore.open(tmp_path).close()  # and the directory was given back


def test_a_failed_commit_shows_nothing_and_allows_no_other(tmp_path: Path) -> None:
    store = RocksStore.open(tmp_path)
    commit(store, 1, Put(make_head(1), None, None))
    before = contents(store)

    def fail() -> None:
        raise OSError(28, "No space left on device")

    probe(store, fail)
    with pytest.raises(OSError, match="No space"):
        commit(store, 2, Remove(make_head(1)))
    assert contents(store) == before
    with pytest.raises(DataUnwritable, match="earlier commit failed"):
        commit(store, 3)
    store.close()
    found = RocksStore.open(tmp_path)
    assert found.summary in (summary(1), summary(2))  # unknown, but whole
    assert (found.get(1) is None) == (found.summary == summary(2))
    found.close()


def test_reading_the_due_order_never_goes_back_before_its_mark(tmp_path: Path) -> None:
    """One seek, to just behind the mark: removed keys in front of it are not walked through."""
    store = RocksStore.open(tmp_path)
    heads = [stored(n, n) for n in range(1, 5_001)]
    commit(store, 1, *(Put(head, None, None) for head in heads))
    commit(store, 2, *(Remove(head) for head in heads[:4_990]))
    mark = DueKey(4_990, 4_990, 4_990)
    asked: list[bytes] = []
    page = store._page  # noqa: SLF001

    def watched(start: bytes, end: bytes, limit: int) -> Any:
        asked.append(start)
        return page(start, end, limit)

    store._page = watched  # type: ignore[method-assign] # noqa: SLF001
    assert [key.number for key in store.due(7, mark, 5)] == [4_991, 4_992, 4_993, 4_994, 4_995]
    assert asked == [keys.due_key(7, mark) + b"\0"]
    store.close()


def test_a_generator_left_half_way_does_not_keep_the_store_open(tmp_path: Path) -> None:
    store = RocksStore.open(tmp_path)
    commit(store, 1, *(Put(make_head(n), None, None) for n in range(1, PAGE_KEYS + 50)))
    scanning, owning = store.scan(-1), store.owned()
    assert next(scanning) == next(owning) == make_head(1)
    store.close()
    again = RocksStore.open(tmp_path)
    again.close()
    with pytest.raises(DataUnwritable, match="closed"):
        list(scanning)
    with pytest.raises(DataUnwritable, match="closed"):
        store.get(1)
    with pytest.raises(DataUnwritable, match="closed"):
        commit(store, 2)


def test_owned_sessions_may_end_while_they_are_listed(tmp_path: Path) -> None:
    store = RocksStore.open(tmp_path)
    heads = [make_head(n) for n in range(1, 10)]
    commit(store, 1, *(Put(head, None, None) for head in heads))
    owning = store.owned()
    assert next(owning) == heads[0]
    commit(store, 2, Remove(heads[1]), Put(stored(3, 5), heads[2], None))
    assert list(owning) == heads[3:]
    store.close()


def test_an_owned_key_without_its_session_is_damage(tmp_path: Path) -> None:
    store = RocksStore.open(tmp_path)
    commit(store, 1, Put(stored(1, 5), None, None))
    store.close()
    put_raw(tmp_path, keys.owned_key(1), b"")
    store = RocksStore.open(tmp_path)
    with pytest.raises(DataDamaged, match="key 6f"):
        list(store.owned())
    store.close()


def test_a_new_directory_is_private(tmp_path: Path) -> None:
    store = RocksStore.open(tmp_path / "deep" / "store")
    store.close()
    assert stat.S_IMODE((tmp_path / "deep" / "store").stat().st_mode) == 0o700


def test_one_directory_is_open_once(tmp_path: Path) -> None:
    store = RocksStore.open(tmp_path)
    commit(store, 1, Put(make_head(1), None, None))
    with pytest.raises(DataLocked, match="open already"):
        RocksStore.open(tmp_path)
    assert store.get(1) == make_head(1)
    store.close()
    RocksStore.open(tmp_path).close()


def test_a_directory_of_others_is_refused_and_left_alone(tmp_path: Path) -> None:
    (tmp_path / "letters.txt").write_text("dear")
    with pytest.raises(DataForeign, match=r"letters\.txt"):
        RocksStore.open(tmp_path)
    assert os.listdir(tmp_path) == ["letters.txt"]  # noqa: PTH208 # names are what matters


def test_another_database_is_refused(tmp_path: Path) -> None:
    other = Rdict(str(tmp_path), Options(raw_mode=True))
    other[b"x"] = b"y"
    other.close()
    with pytest.raises(DataForeign, match="not a truba store"):
        RocksStore.open(tmp_path)


def test_a_first_start_that_died_is_begun_again(tmp_path: Path) -> None:
    for name in ("LOCK", "LOG", "IDENTITY", "MANIFEST-000001", "000001.dbtmp"):
        (tmp_path / name).touch()
    store = RocksStore.open(tmp_path)
    assert store.summary.applied.seq == 0
    store.close()


def put_raw(directory: Path, key: bytes, value: bytes) -> None:
    database = Rdict(str(directory), Options(raw_mode=True))
    database[key] = value
    database.close()


def test_a_newer_format_is_refused(tmp_path: Path) -> None:
    put_raw(tmp_path, keys.META, msgspec.msgpack.encode([keys.FORMAT + 1, {"anything": 1}]))
    with pytest.raises(DataNewer, match="newer truba"):
        RocksStore.open(tmp_path)


@pytest.mark.parametrize("value", [b"", b"\xc1", msgspec.msgpack.encode([1, [1, 2]]), msgspec.msgpack.encode("x")])
def test_a_summary_that_cannot_be_read_is_damage(tmp_path: Path, value: bytes) -> None:
    put_raw(tmp_path, keys.META, value)
    with pytest.raises(DataDamaged, match="key 6d"):
        RocksStore.open(tmp_path)


@pytest.mark.parametrize("value", [b"", b"\xc1", keys.head_value(make_head(2)), keys.head_value(make_head(1))[:-3]])
def test_a_head_that_cannot_be_read_is_damage(tmp_path: Path, value: bytes) -> None:
    store = RocksStore.open(tmp_path)
    commit(store, 1, Put(make_head(1, chunks=(0,)), None, (0, [b"a"])))
    store.close()
    put_raw(tmp_path, keys.head_key(1), value)
    put_raw(tmp_path, keys.chunk_key(1, 0), b"\x01")
    store = RocksStore.open(tmp_path)
    for read in (lambda: store.get(1), lambda: list(store.scan(-1)), lambda: list(store.owned())):
        with pytest.raises(DataDamaged, match="key 68 00 00 00 00 00 00 00 01"):
            read()
    with pytest.raises(DataDamaged, match="key 63"):
        store.chunk(1, 0)
    store.close()


def test_a_commit_of_several_runs_is_what_it_says(tmp_path: Path) -> None:
    """Keys are put in order by runs, whatever the order of sessions: none is lost between two, and none in the last."""
    few = RUN_KEYS  # three keys each
    numbers = list(range(1, few + 1))
    random.Random(1).shuffle(numbers)
    store = RocksStore.open(tmp_path)
    commit(store, few, *(Put(stored(n, 10 * n, chunks=(0,)), None, (0, [b"%d" % n])) for n in numbers))
    assert [head.number for head in store.scan(0)] == sorted(numbers)
    assert [key.number for key in store.due(7, None, few)] == sorted(numbers)
    assert [store.chunk(n, 0) for n in (1, few)] == [[b"1"], [b"%d" % few]]
    later = [stored(n, 10 * n + 5, order=few + n, chunks=(0,)) for n in numbers if n % 2]
    commit(
        store,
        2 * few,
        *(Put(head, stored(head.number, 10 * head.number, chunks=(0,)), None) for head in later),
        *(Remove(stored(n, 10 * n, chunks=(0,))) for n in numbers if n % 2 == 0),
    )
    store.close()
    store = RocksStore.open(tmp_path)
    assert [head.number for head in store.scan(0)] == [n for n in sorted(numbers) if n % 2]
    assert [(key.due_ms, key.number) for key in store.due(7, None, few)] == [
        (10 * n + 5, n) for n in sorted(numbers) if n % 2
    ]
    with pytest.raises(KeyError):
        store.chunk(2, 0)
    store.close()


def test_a_page_in_the_moment_that_a_commit_becomes_visible_lacks_nothing(tmp_path: Path) -> None:
    """What it says it holds, and what it shows, change on the committing thread, one after the other."""
    pages: list[list[int]] = []

    class Watched(RocksStore):
        def __setattr__(self, name: str, value: object) -> None:
            super().__setattr__(name, value)
            if watching:
                pages.append([head.number for head in machine.page(0, 100)[0]])

    watching = False
    store = Watched.open(tmp_path)
    machine = Machine(store, {7: Kind(7, "transfer", "local:nobody:here")})
    machine.begin(1)
    numbers = [machine.apply(machine.create(7, 0, [b"a"])) for _ in range(3)]
    frozen = machine.freeze()
    watching = True
    store.commit(staged_all(store, frozen.changes()), summary(machine.seq))
    watching = False
    assert len(pages) > 3
    assert all(page == numbers for page in pages)
    store.close()
