"""A disk that writes down all that a workload does to it, and what the workload was told meanwhile.

The journal is a list of operations (what changes the disk, or makes a change durable) with facts between them: what the
one who works on the disk knows from there on. `states` makes of it what a crash at any point may leave.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from truba.testing.disk import SimulatedDisk

Image = dict[str, bytes]
"""The files of a disk, by path."""


class Write(NamedTuple):
    file: int  # an inode, so to speak: a file keeps it whatever its name is
    offset: int
    data: bytes


class Truncate(NamedTuple):
    file: int


class Sync(NamedTuple):
    file: int


class MakeDirectory(NamedTuple):
    path: str


class Create(NamedTuple):
    path: str
    file: int


class Rename(NamedTuple):
    old: str
    new: str
    file: int


class Unlink(NamedTuple):
    path: str
    file: int


class SyncNames(NamedTuple):
    directory: str


class Fact(NamedTuple):
    """Not an operation: what is known from here on, in the words of the workload."""

    what: object


class Killed(BaseException):
    """The process is gone: what it would have done is not done, what it has done the next one sees."""


NameChange = MakeDirectory | Create | Rename | Unlink
Operation = Write | Truncate | Sync | NameChange | SyncNames


class RecordingDisk(SimulatedDisk):
    """`start`: the files that are there, and durable, when the recording begins. Their numbers are their order."""

    def __init__(self, start: Mapping[str, bytes] | None = None, directories: Sequence[str] = ()) -> None:
        super().__init__()
        self.hold(start or {}, directories)
        self.start: Image = dict(start or {})
        self.start_directories = tuple(directories)
        self.journal: list[Operation | Fact] = []
        self.free = 1 << 40  # bytes, as the disk says
        self.operations_left = -1  # until the process is killed; below zero: it is not
        self._numbers = {file: number for number, file in enumerate(self.files.values())}

    def note(self, what: object) -> None:
        self.journal.append(Fact(what))

    def _write_down(self, operation: Operation) -> None:
        """Before it is done: the last one of a killed process is not."""
        if self.operations_left == 0:
            raise Killed
        self.operations_left -= 1
        self.journal.append(operation)

    def open(self, path: str, flags: int, mode: int = 0o600) -> int:
        if not flags & os.O_DIRECTORY:
            if (file := self.files.get(path)) is None and flags & os.O_CREAT:
                self._write_down(Create(path, len(self._numbers)))
            elif file is not None and flags & os.O_TRUNC:
                self._write_down(Truncate(self._numbers[file]))
        fd = super().open(path, flags, mode)
        if not flags & os.O_DIRECTORY:
            self._numbers.setdefault(self._file(fd), len(self._numbers))
        return fd

    def pwritev(self, fd: int, parts: Sequence[bytes | memoryview], offset: int) -> int:
        data = b"".join(parts)
        if self.operations_left == 0 and len(data) > 1:
            # A write may be interrupted half-way.
            half = data[: len(data) // 2]
            self.journal.append(Write(self._numbers[self._file(fd)], offset, half))
            super().pwritev(fd, [half], offset)
        self._write_down(Write(self._numbers[self._file(fd)], offset, data))
        return super().pwritev(fd, parts, offset)

    def fdatasync(self, fd: int) -> None:
        self._write_down(Sync(self._numbers[self._file(fd)]))
        super().fdatasync(fd)

    def fsync(self, fd: int) -> None:
        place = self._open[fd]
        self._write_down(SyncNames(place) if isinstance(place, str) else Sync(self._numbers[place]))
        super().fsync(fd)

    def rename(self, old: str, new: str) -> None:
        self._write_down(Rename(old, new, self._numbers[self.files[old]]))
        super().rename(old, new)

    def free_bytes(self, path: str) -> int:
        return self.free

    def unlink(self, path: str) -> None:
        if path in self.files:
            self._write_down(Unlink(path, self._numbers[self.files[path]]))
        super().unlink(path)

    def mkdir(self, path: str, mode: int) -> None:
        if path not in self._directories:
            self._write_down(MakeDirectory(path))
        super().mkdir(path, mode)
