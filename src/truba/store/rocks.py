"""The store on RocksDB. What lies under which key: `truba.store.keys`.

How a commit is all or nothing: RocksDB's own log is off (the truba log is the log), each commit is one WriteBatch with
the summary inside, followed by a flush. RocksDB puts a batch into one memtable whole (it changes memtables only before
a write, never within one) and makes one table file of it, which joins the store by one record in its manifest; file,
manifest and directory are synced before the flush returns. So no buffer size or early flush can part a commit.

Readers see the last commit until the next is durable, through a snapshot (single keys) or an iterator made before it
(ranges): nobody sees what a crash could still take back. No iterator outlives one step of a generator here, so none
keeps the files open after `close`.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from shutil import rmtree
from threading import Lock

from rocksdict import Checkpoint, Rdict, RdictIter, ReadOptions, Snapshot, WriteBatch

from truba.errors import DataDamaged, DataForeign, DataUnwritable
from truba.ports.store import DueKey, Head, Put, Remove, Staged, Summary
from truba.store import keys
from truba.store.manifest import judge_manifest
from truba.store.mark import read_mark, write_mark
from truba.store.rocks_setup import (
    MEMORY_BYTES,
    claim,
    holds_database,
    missing,
    no_wal,
    open_database,
    translated,
)
from truba.types import ORIGIN, Phase, Position

PAGE_KEYS = 256
"""Keys that a generator reads at once: enough to make a seek cheap, few enough to leave memory and the caller alone."""


RUN_KEYS = 512
"""Keys that a commit puts in order before they join its batch. RocksDB inserts a key next to the one before it ten
times as fast as one anywhere: 0.3 us a session instead of 3, and the binding holds the interpreter's lock meanwhile.
Longer runs gain nothing more."""


class RocksStaged:
    """A WriteBatch being filled. A session may be added once for each commit, so no key comes twice: order is free."""

    __slots__ = ("_batch", "_run")

    def __init__(self) -> None:
        self._batch = WriteBatch(raw_mode=True)
        self._run: list[tuple[bytes, bytes | None]] = []  # None: the key goes

    def add(self, change: Put | Remove) -> None:
        run = self._run
        if isinstance(change, Put):
            head, was, chunk = change
            number = head.number
            run.append((keys.head_key(number), keys.head_value(head)))
            if chunk is not None:
                run.append((keys.chunk_key(number, chunk[0]), keys.chunk_value(chunk[1])))
            index = _index_key(head)
            indexed = None
            if was is not None:
                if was.chunks != head.chunks:
                    run += [(keys.chunk_key(number, first), None) for first in was.chunks if first not in head.chunks]
                indexed = _index_key(was)
            if indexed != index:
                if indexed is not None:
                    run.append((indexed, None))
                if index is not None:
                    run.append((index, b""))
        else:
            was = change.was
            run.append((keys.head_key(was.number), None))
            run += [(keys.chunk_key(was.number, first), None) for first in was.chunks]
            indexed = _index_key(was)
            if indexed is not None:
                run.append((indexed, None))
        if len(run) >= RUN_KEYS:
            self._put_in_order()

    def _put_in_order(self) -> None:
        put, delete = self._batch.put, self._batch.delete
        self._run.sort()
        for key, value in self._run:
            if value is None:
                delete(key)
            else:
                put(key, value)
        self._run.clear()

    def finished(self, summary: Summary) -> WriteBatch:
        """All of it, with the summary inside."""
        self._put_in_order()
        self._batch.put(keys.META, keys.meta_value(summary))
        return self._batch

    @property
    def bytes(self) -> int:
        return self._batch.size_in_bytes() + sum(len(key) + len(value or b"") for key, value in self._run)


def _index_key(head: Head) -> bytes | None:
    phase = head.phase
    if phase is Phase.STORED:
        return keys.due_key(head.kind, DueKey(head.due_ms, head.order, head.number))
    return None if phase is Phase.PARKED else keys.owned_key(head.number)


class RocksStore:
    """`ports.store.Store` in one directory. Any thread may read; one thread commits at a time."""

    def __init__(self, directory: Path, claimed: int, database: Rdict, summary: Summary) -> None:
        """For `open` only."""
        self._directory = directory
        self._claimed = claimed
        self._db: Rdict | None = database
        self._view: Snapshot | None = database.snapshot()
        self._write_options = no_wal()
        self._lock = Lock()  # commit against commit and close
        self._pinned: RdictIter | None = None  # set while the database holds more than is known to be durable
        self._pinned_lock = Lock()  # an iterator serves one thread at a time
        self._summary = summary

    @classmethod
    def open(cls, directory: Path, *, memory_bytes: int = MEMORY_BYTES, read_only: bool = False) -> RocksStore:
        """Open the store in `directory`, made if it is missing or empty. `memory_bytes` bounds what reads may cache.
        `read_only`: it must be there, and nothing is changed, but for a file of settings that the binding writes anew.

        DataLocked: it is open already. DataForeign: something else lies there. DataNewer, DataDamaged: see the message.
        No table and no manifest was changed by a refused start. DataUnwritable: it cannot be read or made.
        """
        try:
            claimed = claim(directory)
            try:
                summary = _summary(directory, memory_bytes)
                return cls(directory, claimed, open_database(directory, memory_bytes, read_only=read_only), summary)
            except BaseException:
                os.close(claimed)
                raise
        except OSError as error:
            raise DataUnwritable(f"the store in {directory} cannot be opened: {error}") from error

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
            if (head := self._owned_head(key)) is not None:
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
            if self._db is None or self._pinned is not None:
                raise DataUnwritable("the store is closed, or an earlier commit failed: open it again")
            try:
                batch = staged.finished(summary)
                self._pinned = self._db.iter()
                self._db.write(batch, self._write_options)
                self._db.flush(True)
                write_mark(self._directory, summary.applied)
                view = self._db.snapshot()
            except Exception as error:
                raise translated(error, self._directory) from error
            self._view = view
            self._pinned = None
            # Last: whoever reads it on another thread relies on seeing all that it covers.
            self._summary = Summary(summary.applied, dict(summary.counts), summary.paused)

    def export(self, directory: Path) -> Summary:
        """A copy of the last commit, made in `directory`, which must not exist yet; what exactly it holds.

        May run beside reads and commits, on any thread: a commit waits until the copy is made, the copy until a commit
        under way is durable. Tables are never changed once written, so the copy shares them by hard links: it takes
        milliseconds, and space only as far as the store lets tables go that the copy still holds. On another file
        system they are copied in full, and commits wait for that: choose a place beside the store.

        For sending, not for keeping: nothing is synced but RocksDB's own files. A failure leaves nothing in
        `directory`. DataUnwritable: the store is closed, an earlier commit failed, or `directory` exists. OSError.
        """
        with self._lock:
            if self._db is None or self._pinned is not None:
                raise DataUnwritable("the store is closed, or an earlier commit failed: open it again")
            if os.path.lexists(directory):
                raise DataUnwritable(f"{directory} exists already: a copy of the store is made in a new directory")
            try:
                directory.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
                Checkpoint(self._db).create_checkpoint(str(directory))
                directory.chmod(0o700)
                # RocksDB does not know of the mark. A copy of the mark as it is now would do; it is made from the
                # summary so that both are of one commit by construction.
                if self._summary.applied != ORIGIN:
                    write_mark(directory, self._summary.applied)
            except Exception as error:
                rmtree(directory, ignore_errors=True)  # if it stays, the next export refuses it by name
                raise translated(error, self._directory) from error
            return self._summary

    @property
    def size_bytes(self) -> int:
        """Of the table files."""
        if self._db is None:
            return 0
        return self._db.property_int_value("rocksdb.total-sst-files-size") or 0

    def close(self) -> None:
        """Wait for a commit under way and release the directory. Calling it again does nothing."""
        with self._lock:
            database, self._db, self._view, self._pinned = self._db, None, None, None
            if database is None:
                return
            try:
                database.close()
            except Exception as error:  # what RocksDB met in the background, such as a damaged table while compacting
                raise translated(error, self._directory) from error
            finally:
                del database
                os.close(self._claimed)

    def _owned_head(self, key: bytes) -> Head | None:
        """The head behind an owned key; None when a commit has ended that since the key was read."""
        view = self._reader()
        head_key = keys.head_key(keys.number_of(key))
        value = self._value(head_key, view)
        head = None if value is None else keys.read_head(head_key, value)
        if head is not None and _index_key(head) == key:
            return head
        if self._value(key, view) is None:
            return None
        raise DataDamaged(f"store {self._directory} lists a session as owned that is not: key {key.hex(' ')}")

    def _value(self, key: bytes, view: Snapshot | None = None) -> bytes | None:
        try:
            value: bytes = (view or self._reader())[key]
        except Exception as error:
            if missing(error):
                return None
            raise translated(error, self._directory) from error
        return value

    def _page(self, start: bytes, end: bytes, limit: int) -> list[tuple[bytes, bytes]]:
        """Up to `limit` pairs of the last commit from `start` on, before `end`.

        With a bound RocksDB does not look for a living key in what was removed behind `end`; iterators of its snapshots
        show the present in this binding. So: a new bounded iterator, if no commit had begun when it was made, else the
        one pinned when the commit began, without bound.
        """
        options = ReadOptions()
        options.set_iterate_upper_bound(end)
        try:
            rows = self._database().iter(options)
            pinned = self._pinned
            if pinned is None:
                return _walk(rows, start, end, limit)
            with self._pinned_lock:
                return _walk(pinned, start, end, limit)
        except Exception as error:
            raise translated(error, self._directory) from error

    def _pages(self, start: bytes, end: bytes) -> Iterator[tuple[bytes, bytes]]:
        while page := self._page(start, end, PAGE_KEYS):
            yield from page
            start = page[-1][0] + b"\0"

    def _database(self) -> Rdict:
        if self._db is None:
            raise DataUnwritable("the store is closed")
        return self._db

    def _reader(self) -> Snapshot:
        if self._view is None:
            raise DataUnwritable("the store is closed")
        return self._view


def inspect_store(directory: Path) -> Summary:
    """What the store in `directory` holds, with every check of `RocksStore.open` and nothing changed. DataError."""
    claimed = claim(directory)
    try:
        return _summary(directory, MEMORY_BYTES)
    finally:
        os.close(claimed)


def _summary(directory: Path, memory_bytes: int) -> Summary:
    """Of the store in a claimed directory; ORIGIN if there is none yet, but may be."""
    summary = _inspect(directory, memory_bytes) if holds_database(directory) else Summary(ORIGIN, {})
    _refuse_the_past(directory, summary.applied)
    return summary


def _walk(rows: RdictIter, start: bytes, end: bytes, limit: int) -> list[tuple[bytes, bytes]]:
    page: list[tuple[bytes, bytes]] = []
    rows.seek(start)
    while len(page) < limit and rows.valid() and (key := rows.key()) < end:
        page.append((key, rows.value()))
        rows.next()
    rows.status()  # a damaged block ends the walk like the last key does; this tells them apart
    return page


def _inspect(directory: Path, memory_bytes: int) -> Summary:
    """The summary in the database, read without changing anything."""
    judge_manifest(directory)
    with open_database(directory, memory_bytes, read_only=True) as database:
        try:
            value: bytes | None = database.get(keys.META)
            if value is not None:
                return keys.read_meta(value)
            rows = database.iter()
            rows.seek_to_first()
            empty = not rows.valid()
            rows.status()
            del rows  # it would keep the database open
        except Exception as error:
            raise translated(error, directory) from error
    if empty:
        return Summary(ORIGIN, {})
    raise DataForeign(f"{directory} holds a RocksDB database that is not a truba store")


def _refuse_the_past(directory: Path, applied: Position) -> None:
    mark = read_mark(directory)
    if mark is not None and applied.seq < mark.seq:
        raise DataDamaged(
            f"store {directory} went back: it was written through {mark.term}-{mark.seq}, but its manifest leads only "
            f"to {applied.term}-{applied.seq}; restore the directory from a copy"
        )
