"""Makes a backup of a store that nobody writes to, and of the log that goes on behind it. Everything blocks.

    take the place -> copy the log's batches -> copy the store -> read all of the copy -> MANIFEST, the last act

The log comes first because a running pipe must keep it until it is copied. The copy is read back and replayed before
it is called a backup: damage in the original is found now, while there is another one.
"""

from __future__ import annotations

import errno
import os
import shutil
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Literal

import msgspec

from truba import __version__
from truba.backup.files import clear, copy_file, hash_file, looked_at, store_files, take_place, write_under
from truba.backup.manifest import FORMAT, NAME, UNFINISHED, Count, File, Manifest, Place
from truba.backup.marks import refuse_inside
from truba.backup.state import replay
from truba.clock import SystemClock
from truba.errors import DataForeign, DataUnwritable
from truba.log.excerpt import log_id_of, read_between, write_excerpt
from truba.machine.digest import state_digest
from truba.store.mark import sync_directory

Stage = Literal["log", "store", "reading"]
Tell = Callable[[Stage, int, int], object]
"""Which part is under way, bytes done and bytes in all; of "reading", sessions."""


class Order(msgspec.Struct, frozen=True):
    """What to copy. `store` is not written to meanwhile, `log` not trimmed beyond `after` before it is copied."""

    data: str  # the directory that it is of, for the manifest
    store: str
    log: str
    after: Place  # what the store holds
    through: Place
    target: str
    leave_bytes: int = 0
    """Of the file system that `store` is on, which the pipe needs itself: free space that the copy leaves."""


def refuse_place(target: Path, data: Path) -> None:
    """DataForeign: a backup of `data` there would lie in it, or in another backup."""
    own, place = Path(os.path.realpath(data)), Path(os.path.realpath(target))
    if place.is_relative_to(own):
        raise DataForeign(f"{target} lies in {data}, which is the pipe's own, and no place for backups")
    refuse_inside(target)


def make(order: Order, tell: Tell) -> Manifest:
    """Durable when it returns. DataForeign: the target is not empty, or no place for a backup. DataDamaged: the
    original is. DataUnwritable: the copy could not be written, or the original not be read. After any of them the
    target is as empty as it was."""
    target = Path(order.target)
    refuse_place(target, Path(order.data))
    there = target.exists()
    try:
        take_place(target, UNFINISHED)
    except OSError as error:
        raise _not_made(target, error) from error
    try:
        return _make(order, target, tell)
    except BaseException as error:
        clear(target, UNFINISHED)
        if there:
            (target / UNFINISHED).unlink(missing_ok=True)
        else:
            shutil.rmtree(target)
        if isinstance(error, OSError):
            raise _not_made(target, error) from error
        raise


def _not_made(target: Path, error: OSError) -> DataUnwritable:
    return DataUnwritable(f"no backup was made in {target}: {error}")


def _make(order: Order, target: Path, tell: Tell) -> Manifest:
    clock = SystemClock()
    made_ms = clock.now_ms()
    log, store = Path(order.log), Path(order.store)
    after, through = order.after.position, order.through.position
    tell("log", 0, 0)
    log_id = log_id_of(log)
    write_excerpt(target / "log", log_id, after, (frame.batch for frame in read_between(log, after, through)))
    files = [_named(hash_file(path, lambda _: None), path, target) for path in sorted((target / "log").iterdir())]
    sources = store_files(store)
    done_bytes, all_bytes = 0, sum(path.stat().st_size for path in sources)
    _refuse_full(target, all_bytes + _leave_bytes(order, target))
    tell("store", done_bytes, all_bytes)

    def advance(size_bytes: int) -> None:
        nonlocal done_bytes
        done_bytes += size_bytes
        tell("store", done_bytes, all_bytes)

    (target / "store").mkdir(mode=0o700)
    for source in sources:
        copy = target / "store" / source.name
        sha256 = copy_file(source, copy, advance)
        files.append(File(f"store/{copy.name}", copy.stat().st_size, sha256))
    sync_directory(target / "store")
    with looked_at(target / "store") as copied:
        machine = replay(copied, target / "log", after, through)
        sessions = sum(machine.counts.values())
        tell("reading", 0, sessions)
        digest = state_digest(machine, lambda done: tell("reading", done, sessions))
        counts = [Count(kind, phase, count) for (kind, phase), count in sorted(machine.counts.items())]
    manifest = Manifest(
        format=FORMAT,
        truba=__version__,
        made_ms=made_ms,
        host=socket.gethostname(),
        data=order.data,
        log_id=log_id.hex(),
        at=order.through,
        store=order.after,
        digest=digest,
        counts=counts,
        files=files,
    )
    sync_directory(target)
    write_under(target / UNFINISHED, target / NAME, manifest.encode())
    return manifest


def _leave_bytes(order: Order, target: Path) -> int:
    return order.leave_bytes if target.stat().st_dev == Path(order.store).stat().st_dev else 0


def _refuse_full(target: Path, needed_bytes: int) -> None:
    free_bytes = shutil.disk_usage(target).free
    if free_bytes < needed_bytes:
        raise OSError(errno.ENOSPC, f"the disk has {free_bytes} bytes free, and {needed_bytes} are needed", str(target))


def _named(file: File, path: Path, target: Path) -> File:
    return msgspec.structs.replace(file, name=path.relative_to(target).as_posix())
