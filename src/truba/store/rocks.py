"""The store on RocksDB. What lies under which key: `truba.store.keys`.

How a commit is all or nothing: RocksDB's own log is off (the truba log is the log), each commit is one WriteBatch with
the summary inside, followed by a flush. RocksDB puts a batch into one memtable whole (it changes memtables only before
a write, never within one) and makes one table file of it, which joins the store by one record in its manifest; file,
manifest and directory are synced before the flush returns. So no buffer size or early flush can part a commit.

Readers look through a snapshot of the last commit, replaced when the next is durable: nobody sees what a crash could
still take back. No iterator outlives one step of a generator here, so none keeps the files open after `close`.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from threading import Lock

from rocksdict import Rdict, ReadOptions, Snapshot, WriteBatch

from truba.errors import DataDamaged, DataForeign, DataUnwritable
from truba.ports.store import DueKey, Head, Put, Remove, Staged, Summary
from truba.store import keys
from truba.store.rocks_setup import MEMORY_BYTES, missing, no_wal, open_database, translated
from truba.types import ORIGIN, Phase

PAGE_KEYS = 256
"""Keys that a generator reads at once: enough to make a seek cheap, few enough to leave memory and the caller alone."""


class RocksStaged:
    """A WriteBatch being filled. A session may be added once for each commit."""

    __slots__ = ("batch",)

    def __init__(self) -> None:
        self.batch = WriteBatch(raw_mode=True)

    def add(self, change: Put | Remove) -> None:
        batch = self.batch
        if isinstance(change, Put):
            head, was, chunk = change
            number = head.number
            batch.put(keys.head_key(number), keys.head_value(head))
            if chunk is not None:
                batch.put(keys.chunk_key(number, chunk[0]), keys.chunk_value(chunk[1]))
            index = _index_key(head)
            if was is not None:
                if was.chunks != head.chunks:
                    for first in was.chunks:
                        if first not in head.chunks:
                            batch.delete(keys.chunk_key(number, first))
                indexed = _index_key(was)
                if indexed == index:
                    return
                if indexed is not None:
                    batch.delete(indexed)
            if index is not None:
                batch.put(index, b"")
        else:
            was = change.was
            batch.delete(keys.head_key(was.number))
            for first in was.chunks:
                batch.delete(keys.chunk_key(was.number, first))
            indexed = _index_key(was)
            if indexed is not None:
                batch.delete(indexed)

    @property
    def bytes(self) -> int:
        return self.batch.size_in_bytes()


def _index_key(head: Head) -> bytes | None:
    phase = head.phase
    if phase is Phase.STORED:
        return keys.due_key(head.kind, DueKey(head.due_ms, head.order, head.number))
    return None if phase is Phase.PARKED else keys.owned_key(head.number)


class RocksStore:
    """`ports.store.Store` in one directory. Any thread may read; one thread commits at a time."""

    def __init__(self, database: Rdict) -> None:
        """For `open` only."""
        self._db: Rdict | None = database
        self._view: Snapshot | None = database.snapshot()
        self._write_options = no_wal()
        self._lock = Lock()  # commit against commit and close
        self._failed = False
        self._summary = self._read_summary()

    @classmethod
    def open(cls, directory: Path, *, memory_bytes: int = MEMORY_BYTES) -> RocksStore:
        """Open the store in `directory`, made if it is missing or empty. `memory_bytes` bounds what reads may cache.

        DataLocked: another process has it open. DataForeign: something else lies there. DataNewer, DataDamaged:
        nothing was changed. OSError: it cannot be read or made.
        """
        database = open_database(directory, memory_bytes)
        try:
            return cls(database)
        except BaseException:
            database.close()
            raise

    def _read_summary(self) -> Summary:
        value = self._value(keys.META)
        if value is not None:
            return keys.read_meta(value)
        if self._page(b"", b"\xff" * 8, 1):
            raise DataForeign("the directory holds a RocksDB database that is not a truba store")
        return Summary(ORIGIN, {})

    @property
    def summary(self) -> Summary:
        return self._summary

    def get(self, number: int) -> Head | None:
        key = keys.head_key(number)
        value = self._value(key)
        return None if value is None else keys.read_head(key, value)

    def chunk(self, number: int, first: int) -> list[bytes]:
        key = keys.chunk_key(number, first)
        value = self._value(key)
        if value is None:
            raise KeyError((number, first))
        return keys.read_chunk(key, value)

    def due(self, kind: int, after: DueKey | None, limit: int) -> list[DueKey]:
        """Seeks to `after`, so keys removed before it cost nothing; `None` wades through those not yet compacted."""
        start, end = keys.due_bounds(kind)
        if after is not None:
            start = keys.due_key(kind, after) + b"\0"
        return [keys.due_of(key) for key, _ in self._page(start, end, limit)]

    def owned(self) -> Iterator[Head]:
        """Read page by page: sessions changed by a commit in between may show as before or as after."""
        for key, _ in self._pages(keys.OWNED, keys.OWNED_END):
            number = keys.number_of(key)
            head = self.get(number)
            if head is None:
                raise DataDamaged(f"the store lists session {number} as owned but does not hold it")
            yield head

    def scan(self, after_number: int) -> Iterator[Head]:
        """Read page by page, as `owned`."""
        start = keys.HEADS if after_number < 0 else keys.head_key(after_number) + b"\0"
        for key, value in self._pages(start, keys.HEADS_END):
            yield keys.read_head(key, value)

    def stage(self) -> RocksStaged:
        return RocksStaged()

    def commit(self, staged: Staged, summary: Summary) -> None:
        if not isinstance(staged, RocksStaged):
            raise TypeError(f"staged by another store: {type(staged).__name__}")
        with self._lock:
            if self._db is None or self._failed:
                raise DataUnwritable("the store is closed, or an earlier commit failed: open it again")
            staged.batch.put(keys.META, keys.meta_value(summary))
            self._failed = True  # until it is known to be whole
            try:
                self._db.write(staged.batch, self._write_options)
                self._db.flush(True)
                view = self._db.snapshot()
            except Exception as error:
                raise translated(error) from error
            self._failed = False
            self._view = view
            self._summary = Summary(summary.applied, dict(summary.counts))

    @property
    def size_bytes(self) -> int:
        """Of the table files."""
        if self._db is None:
            return 0
        return self._db.property_int_value("rocksdb.total-sst-files-size") or 0

    def close(self) -> None:
        """Wait for a commit under way and release the directory. Calling it again does nothing."""
        with self._lock:
            database, self._db, self._view = self._db, None, None
            if database is not None:
                database.close()

    def _value(self, key: bytes) -> bytes | None:
        try:
            value: bytes = self._reader()[key]
        except Exception as error:
            if missing(error):
                return None
            raise translated(error) from error
        return value

    def _page(self, start: bytes, end: bytes, limit: int) -> list[tuple[bytes, bytes]]:
        """Up to `limit` pairs from `start` on, before `end`."""
        page: list[tuple[bytes, bytes]] = []
        try:
            options = ReadOptions()
            options.set_iterate_upper_bound(end)
            rows = self._reader().iter(options)
            rows.seek(start)
            while len(page) < limit and rows.valid():
                page.append((rows.key(), rows.value()))
                rows.next()
            rows.status()  # a damaged block ends the walk like the last key does; this tells them apart
        except Exception as error:
            raise translated(error) from error
        return page

    def _pages(self, start: bytes, end: bytes) -> Iterator[tuple[bytes, bytes]]:
        while page := self._page(start, end, PAGE_KEYS):
            yield from page
            start = page[-1][0] + b"\0"

    def _reader(self) -> Snapshot:
        if self._view is None:
            raise DataUnwritable("the store is closed")
        return self._view
