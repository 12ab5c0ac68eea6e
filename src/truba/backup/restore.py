"""A data directory from a backup: the same sessions and records, but nobody's any more, and in a log of its own.

Whatever was given out after the backup must never be given out again, and whoever held a session then must not be
believed now. So the restored pipe goes on

* in a new log, with an id of its own: no segment and no node of the old one fits to it;
* from a term that is the time of the restore, in milliseconds: above every term that the pipe had in the meantime, and
  above those of an earlier restore of the same backup, since no pipe starts a thousand times in a second. So no id is
  given twice;
* with every session's epoch raised to that term: above every hand-over that happened in the meantime, for whoever
  fences by it;
* with no session's owner known: what was active or repeating is unfinished at the first start, by its kind's policy.

RESTORING is there before anything else and goes last: its removal is the act by which this becomes a data directory.
"""

from __future__ import annotations

import copy
import fcntl
import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from truba.backup.files import Advance, clear, copy_file, open_regular, take_place
from truba.backup.manifest import RESTORING, Manifest
from truba.backup.marks import refuse_inside
from truba.backup.state import replay
from truba.backup.verify import Tell, sound
from truba.clock import SystemClock
from truba.codec.batch import encode_batch
from truba.codec.chain import Chain
from truba.errors import DataDamaged, DataLocked, DataUnwritable
from truba.log.disk import OsDisk
from truba.log.plant import plant
from truba.machine.digest import state_digest
from truba.machine.events import Opened
from truba.machine.machine import Machine
from truba.ports.log import LogBatch
from truba.ports.store import Head, Put, Store, Summary, staged_all
from truba.store.mark import sync_directory
from truba.store.rocks import RocksStore
from truba.types import Index, Position

WRITER = "truba restore"
GROUP_SESSIONS = 10_000
"""Rewritten by one commit: some megabytes of memory."""

FIRST_SEGMENT_BYTES = 64 << 10
"""Of the new log: the pipe makes larger ones as it starts."""


@dataclass(frozen=True, slots=True)
class Restored:
    manifest: Manifest
    at: Index  # where the restored pipe goes on: every id that it gives is above this one
    disowned: int  # sessions that had an owner, and are unfinished now
    paused: frozenset[int]  # kinds of which nothing is handed over


def restore(backup: Path, data: Path, tell: Tell = lambda stage, done, of: None, *, paused: bool = False) -> Restored:
    """`paused`: nothing of any kind is handed over before an operator continues it.

    Durable when it returns. An interrupted one leaves a directory that no pipe starts on; call it again.

    DataForeign: `data` is not empty or lies in a backup, or `backup` is none. DataLocked: another one goes on there.
    DataDamaged: the backup is, and nothing was made. DataUnwritable: it cannot be written, or this machine's clock is
    wrong. FileNotFoundError: there is no backup.
    """
    manifest = sound(backup, tell)
    now_ms = SystemClock().now_ms()
    if now_ms < manifest.made_ms:
        raise DataUnwritable(
            f"by the clock of this machine the backup {backup} is from the future, by"
            f" {(manifest.made_ms - now_ms) / 1000:.0f} s: set the clock, since ids of the restored pipe begin with it."
            " Nothing was made"
        )
    again = (data / RESTORING).exists()
    if not again:
        refuse_inside(data)
        take_place(data, RESTORING)
    try:
        with _alone(data):
            if again:
                clear(data, RESTORING)
            return _restore(backup, data, manifest, now_ms, tell, paused)
    except (OSError, DataUnwritable) as error:
        raise DataUnwritable(
            f"the backup could not be restored into {data}: {error}. What is there is incomplete, and no pipe starts on"
            " it; make room or name another directory, and run it again"
        ) from error


@contextmanager
def _alone(data: Path) -> Iterator[None]:
    """DataLocked while another process restores into that directory, or when it has just finished that."""
    with ExitStack() as held:
        try:
            mark = held.enter_context(open_regular(data / RESTORING))
            fcntl.flock(mark, fcntl.LOCK_EX | fcntl.LOCK_NB)
            finished = os.fstat(mark.fileno()).st_nlink == 0
        except BlockingIOError as error:
            raise DataLocked(f"another process restores into {data} just now; nothing was changed") from error
        except FileNotFoundError:
            finished = True
        if finished:
            raise DataLocked(f"another process has restored into {data} just now; nothing was changed")
        yield


def _restore(backup: Path, data: Path, manifest: Manifest, now_ms: int, tell: Tell, paused: bool) -> Restored:
    at = manifest.at.position
    term = max(at.term + 1, now_ms)
    log_id = OsDisk().random(16)
    batch = LogBatch(term, at.seq + 1, 1, encode_batch([Opened(now_ms, WRITER)]))
    begin = Position(term, batch.last_seq, Chain(log_id).chain(at, batch))
    _copy_store(backup, data / "store", manifest, _bytes_told(manifest, tell))
    store = RocksStore.open(data / "store")
    try:
        machine = replay(store, backup / "log", manifest.store.position, at)
        if state_digest(machine) != manifest.digest:
            raise DataDamaged(f"the copy of {backup} in {data} is not the state that was backed up: run it again")
        disowned = len(machine.owned)
        kinds = frozenset(kind for kind, _ in machine.counts) if paused else frozenset()
        all_paused = machine.paused | kinds
        _catch_up(store, machine, at, all_paused)
        _disown(store, begin)
    finally:
        store.close()
    plant(data / "log", log_id, begin, segment_bytes=FIRST_SEGMENT_BYTES)
    for directory in (data / "store", data / "log", data):
        sync_directory(directory)
    (data / RESTORING).unlink()
    sync_directory(data)
    return Restored(manifest, Index(term, begin.seq), disowned, all_paused)


def _copy_store(backup: Path, store: Path, manifest: Manifest, advance: Advance) -> None:
    store.mkdir(mode=0o700)
    for file in manifest.files:
        room, _, name = file.name.partition("/")
        if room != "store" or "/" in name:
            continue
        if copy_file(backup / file.name, store / name, advance) != file.sha256:
            raise DataDamaged(f"{backup / file.name} has changed since it was verified: take another backup")
    sync_directory(store)


def _bytes_told(manifest: Manifest, tell: Tell) -> Advance:
    done_bytes = 0

    def advance(size_bytes: int) -> None:
        nonlocal done_bytes
        done_bytes += size_bytes
        tell("copying", done_bytes, manifest.bytes)

    return advance


def _catch_up(store: Store, machine: Machine, at: Position, paused: frozenset[int]) -> None:
    """The store holds what the log led to: a checkpoint."""
    frozen = machine.freeze()
    counts = dict(machine.counts)
    store.commit(staged_all(store, frozen.changes()), Summary(at, counts, paused))


def _disown(store: Store, begin: Position) -> None:
    """Every session without an owner and at an epoch of the new term; the store is at `begin` in the end."""
    before = store.summary
    sessions = store.scan(-1)
    while group := list(islice(sessions, GROUP_SESSIONS)):
        store.commit(staged_all(store, (Put(_disowned(head, begin.term), head, None) for head in group)), before)
    store.commit(store.stage(), Summary(begin, before.counts, before.paused))


def _disowned(head: Head, term: int) -> Head:
    free = copy.copy(head)
    free.epoch = max(head.epoch + 1, term)
    free.owner = b""
    free.grace_ms = 0
    free.tag = -1
    return free
