"""Files of a backup: copied, synced and hashed, a piece at a time. Everything blocks."""

from __future__ import annotations

import errno
import hashlib
import os
import re
import shutil
import stat
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import BinaryIO

from truba.backup.manifest import File
from truba.errors import DataForeign, DataUnwritable
from truba.store.mark import sync_directory
from truba.store.rocks import RocksStore

_STORE = re.compile(r"CURRENT|MANIFEST-\d+|\d+\.sst|APPLIED")

PIECE_BYTES = 1 << 20
SYNC_BYTES = 4 << 20
"""A copy is synced that often. Synced once at its end, it would make every commit of the pipe beside it wait."""

Advance = Callable[[int], object]
"""Told of each piece, in bytes."""


def is_regular(path: Path) -> bool:
    """Whether it is a file itself. What is not there is none."""
    try:
        return stat.S_ISREG(path.lstat().st_mode)
    except FileNotFoundError:
        return False


def open_regular(path: Path) -> BinaryIO:
    """For reading, without a buffer. OSError when it is anything else than a file: nobody may ever come to the other
    end of a FIFO, to open a device may be an act, and a link leads to what was not backed up."""
    if not stat.S_ISREG(path.lstat().st_mode):
        raise OSError(errno.EINVAL, "it is no regular file", str(path))
    # Should it become another one just now, this neither waits nor follows.
    return os.fdopen(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC), "rb", buffering=0)


def copy_file(source: Path, target: Path, advance: Advance) -> str:
    """A new file with the bytes of `source`, durable but for its name; their SHA-256 in hex."""
    sha256 = hashlib.sha256()
    handle = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        with open_regular(source) as file:
            unsynced_bytes = 0
            while piece := file.read(PIECE_BYTES):
                sha256.update(piece)
                rest = memoryview(piece)
                while rest:
                    rest = rest[os.write(handle, rest) :]
                unsynced_bytes += len(piece)
                if unsynced_bytes >= SYNC_BYTES:
                    os.fdatasync(handle)
                    unsynced_bytes = 0
                advance(len(piece))
        os.fsync(handle)
        # What is read back to be verified comes from the disk, and the pipe keeps its place in the page cache.
        os.posix_fadvise(handle, 0, 0, os.POSIX_FADV_DONTNEED)
    finally:
        os.close(handle)
    return sha256.hexdigest()


def hash_file(path: Path, advance: Advance) -> File:
    """`name` is that of the file alone."""
    sha256, size_bytes = hashlib.sha256(), 0
    with open_regular(path) as file:
        while piece := file.read(PIECE_BYTES):
            sha256.update(piece)
            size_bytes += len(piece)
            advance(len(piece))
    return File(path.name, size_bytes, sha256.hexdigest())


def write_under(young: Path, name: Path, content: bytes) -> None:
    """Write into the file `young`, then give it its name: whole and durable there, or not there at all."""
    with young.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    young.replace(name)
    sync_directory(name.parent)


def store_files(store: Path) -> list[Path]:
    """What there is to copy of a store that nobody writes to; all else are settings, locks and RocksDB's diary."""
    return [path for path in sorted(store.iterdir()) if _STORE.fullmatch(path.name)]


def take_place(target: Path, sign: str) -> None:
    """Make the directory, or take the empty one, and put an empty file there that says what it is to become.

    DataForeign: it holds something. Durable with all directories above that were missing.
    """
    missing = [path for path in (target, *target.parents) if not path.exists()]
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise DataForeign(f"{target} is not empty; name a directory that is new or empty. Nothing was changed")
    target.mkdir(mode=0o700, parents=True, exist_ok=True)
    target.chmod(0o700)
    try:
        (target / sign).touch(0o600, exist_ok=False)
    except FileExistsError as error:
        raise DataForeign(f"{target} was taken by another process just now; nothing was changed") from error
    sync_directory(target)
    for path in missing:
        sync_directory(path.parent)


def clear(directory: Path, keep: str) -> None:
    """Remove all that lies in it but `keep`."""
    for path in directory.iterdir():
        if path.name != keep:
            shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()


@contextmanager
def looked_at(store: Path) -> Iterator[RocksStore]:
    """A store read where it lies, with nothing of it changed: through links, since RocksDB's binding writes a file of
    settings into every directory that it opens, and the store may lie on a medium that is read-only. DataError;
    DataUnwritable: it cannot be looked at, which says nothing of what is in it."""
    with ExitStack() as held:
        try:
            view = Path(held.enter_context(TemporaryDirectory(prefix="truba-look-")))
            for path in store_files(store):
                (view / path.name).symlink_to(path.absolute())
            opened = RocksStore.open(view, read_only=True)
        except (OSError, DataUnwritable) as error:
            raise DataUnwritable(
                f"the store {store} cannot be looked at: {error}. It is read through links in a temporary directory,"
                " which needs room for them; TMPDIR names another place"
            ) from error
        held.callback(opened.close)
        yield opened
