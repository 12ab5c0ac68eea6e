"""The door to the operating system: every system call of the log goes through a `Disk`.

A test hands in one whose n-th call fails; a simulation one that forgets what was not synced. Nothing here knows what
a log is, and nothing here retries.
"""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Sequence
from contextlib import suppress
from typing import Protocol


class Disk(Protocol):
    """System calls, with the meaning and the errors (OSError) of the functions of `os` that they are named after."""

    def open(self, path: str, flags: int, mode: int = 0o600) -> int: ...

    def close(self, fd: int) -> None: ...

    def pread(self, fd: int, count: int, offset: int) -> bytes: ...

    def pwritev(self, fd: int, parts: Sequence[bytes | memoryview], offset: int) -> int: ...

    def fdatasync(self, fd: int) -> None: ...

    def fsync(self, fd: int) -> None: ...

    def rename(self, old: str, new: str) -> None: ...

    def unlink(self, path: str) -> None: ...

    def mkdir(self, path: str, mode: int) -> None: ...

    def listdir(self, path: str) -> list[str]: ...

    def size(self, fd: int) -> int: ...

    def free_bytes(self, path: str) -> int:
        """Space of the file system that this process may still use."""

    def lock(self, fd: int) -> None:
        """Take the file for this open descriptor alone; BlockingIOError when another has it."""

    def unlock(self, fd: int) -> None:
        """Give it up, whoever else has the descriptor."""

    def random(self, count: int) -> bytes:
        """Bytes that no other log has."""

    def steady_s(self) -> float:
        """Monotonic clock, seconds; how long calls take."""

    def stamp(self) -> str:
        """Now, for the name of a file that people will read: `20260131T235959`."""


class OsDisk:
    """The real one."""

    def open(self, path: str, flags: int, mode: int = 0o600) -> int:
        return os.open(path, flags, mode)  # whose own default lets everybody read

    close = staticmethod(os.close)
    pread = staticmethod(os.pread)
    pwritev = staticmethod(os.pwritev)
    fdatasync = staticmethod(os.fdatasync)
    fsync = staticmethod(os.fsync)
    rename = staticmethod(os.rename)
    unlink = staticmethod(os.unlink)
    mkdir = staticmethod(os.mkdir)
    listdir = staticmethod(os.listdir)
    random = staticmethod(os.urandom)
    steady_s = staticmethod(time.perf_counter)

    def size(self, fd: int) -> int:
        return os.fstat(fd).st_size

    def free_bytes(self, path: str) -> int:
        while True:
            # Python repeats every other call here that a signal interrupts, but not this one; it changes nothing.
            with suppress(InterruptedError):
                stat = os.statvfs(path)
                break
        return stat.f_bavail * stat.f_frsize

    def lock(self, fd: int) -> None:
        # flock, not lockf: POSIX record locks vanish when any descriptor of the file is closed in this process.
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)

    def unlock(self, fd: int) -> None:
        fcntl.flock(fd, fcntl.LOCK_UN)

    def stamp(self) -> str:
        return time.strftime("%Y%m%dT%H%M%S", time.gmtime())


def write_all(disk: Disk, fd: int, parts: Sequence[bytes | memoryview], offset: int) -> None:
    """Write all parts one after the other, however short the single writes are."""
    left = sum(map(len, parts))
    wrote = disk.pwritev(fd, parts, offset)
    while wrote < left:
        if wrote == 0:
            raise OSError(5, "the system wrote nothing and reported no error")
        whole = memoryview(b"".join(parts))[wrote:]
        parts, offset, left = [whole], offset + wrote, left - wrote
        wrote = disk.pwritev(fd, parts, offset)


def read_all(disk: Disk, fd: int, size: int, offset: int = 0) -> memoryview:
    """Up to `size` bytes from `offset`; fewer only where the file ends."""
    first = disk.pread(fd, size, offset)
    if len(first) == size or not first:
        return memoryview(first)
    pieces, at = [first], offset + len(first)
    while at < offset + size and (piece := disk.pread(fd, offset + size - at, at)):
        pieces.append(piece)
        at += len(piece)
    return memoryview(b"".join(pieces))
