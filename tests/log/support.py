"""What the tests of the log share: disks that fail, and small logs made on purpose."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from truba.log.disk import Disk, OsDisk
from truba.log.file import FileLog
from truba.ports.log import LogBatch
from truba.testing.disk import SimulatedDisk
from truba.testing.log import batch
from truba.types import Position

SECTOR = 512
SMALL = {"segment_bytes": 8 * SECTOR, "reserve_bytes": 0, "commit": "inline", "housekeeping": "inline"}
HOME = Path("/log")  # on a simulated disk

Entries = list[tuple[LogBatch, Position]]


class FaultyDisk:
    """Counts the calls that change something; `fails(name, number)` gives an errno to make one fail."""

    CALLS: tuple[str, ...] = ("open", "pwritev", "fdatasync", "fsync", "rename", "unlink", "mkdir")

    def __init__(self, inner: Disk | None = None) -> None:
        self.inner = inner or OsDisk()
        self.fails: Callable[[str, int], int | None] = lambda name, number: None
        self.calls: list[str] = []
        self.free: int | None = None
        self.half = False  # a failing write writes part of it first
        self.short = False  # every write of more than one byte writes part
        self.part = 0.5
        self.slow_s = 0.0  # how much longer each sync takes, by this disk's clock
        self._ahead_s = 0.0

    def __getattr__(self, name: str) -> Any:
        call = getattr(self.inner, name)
        if name not in self.CALLS:
            return call

        def counted(*args: Any) -> Any:
            self.calls.append(name)
            error = self.fails(name, len(self.calls))
            if name == "fdatasync":
                self._ahead_s += self.slow_s
            if name == "pwritev" and (self.short or (error and self.half)):
                fd, parts, offset = args
                whole = b"".join(parts)
                args = (fd, [whole[: max(1, int(len(whole) * self.part))]], offset)
                if error:
                    call(*args)
            if error:
                raise OSError(error, os.strerror(error))
            return call(*args)

        return counted

    def steady_s(self) -> float:
        return self.inner.steady_s() + self._ahead_s

    def free_bytes(self, path: str) -> int:
        return self.inner.free_bytes(path) if self.free is None else self.free


def open_log(path: Path, **options: Any) -> FileLog:
    return FileLog.open(path, **{**SMALL, **options})


def write(log: FileLog, batches: Sequence[LogBatch]) -> None:
    """Append in the caller's thread; each is durable when this returns."""
    for each in batches:
        errors: list[BaseException | None] = []
        log.append(each, errors.append)
        if errors != [None]:
            raise errors[0] or AssertionError("done was not called")


def fill(disk: Any, batches: Sequence[LogBatch], path: Path = HOME, **options: Any) -> Entries:
    """Append these batches to the log in `path`, and close it; all that it holds then."""
    log = open_log(path, disk=disk, **options)
    write(log, batches)
    log.close()
    return contents(disk, path)


def contents(disk: Any, path: Path = HOME, **options: Any) -> Entries:
    log = open_log(path, disk=disk, **options)
    try:
        return list(log.read(log.begin.seq))
    finally:
        log.close()


def bodies(count: int, body_bytes: int = 100, first: int = 1) -> list[LogBatch]:
    """Batches of one event each, with bodies that differ and hold no zeros."""
    return [batch(seq, body=bytes([seq % 255 + 1]) * body_bytes) for seq in range(first, first + count)]


def segments(disk: SimulatedDisk) -> dict[str, bytearray]:
    """The bytes of the segment files, by name, to be changed in place."""
    return {name: file.now for name, file in sorted(disk.files.items()) if name.endswith(".log")}


def restore(disk: SimulatedDisk, saved: dict[str, bytes]) -> None:
    """Put a saved state of the whole disk back."""
    for name in list(disk.files):
        if name not in saved:
            del disk.files[name]
    for name, data in saved.items():
        if name not in disk.files:
            fd = disk.open(name, os.O_CREAT)
            disk.close(fd)
        disk.files[name].now[:] = data


def save(disk: SimulatedDisk) -> dict[str, bytes]:
    return {name: bytes(file.now) for name, file in disk.files.items()}
