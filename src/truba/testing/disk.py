"""A simulated disk: files in memory, and a crash that forgets what was not synced.

What a crash may leave is what the log assumes of a real one: a sector of 512 bytes is either as it was at the last sync
or as it was written last, each sector for itself; names change in the order of the calls, and those not synced may be
undone from the last one back. Runs are repeated by their seed.
"""

from __future__ import annotations

import errno
import os
import random
from collections.abc import Iterable, Mapping, Sequence

SECTOR = 512


class _File:
    def __init__(self) -> None:
        self.now = bytearray()
        self.synced = bytearray()
        self.dirty: set[int] = set()  # numbers of sectors written since the last sync

    def write(self, data: bytes, offset: int) -> None:
        end = offset + len(data)
        if len(self.now) < end:
            self.now.extend(bytes(end - len(self.now)))
        self.now[offset:end] = data
        self.dirty.update(range(offset // SECTOR, (end + SECTOR - 1) // SECTOR))

    def sync(self) -> None:
        del self.synced[len(self.now) :]
        self.synced.extend(bytes(len(self.now) - len(self.synced)))
        for sector in self.dirty:
            place = slice(sector * SECTOR, min((sector + 1) * SECTOR, len(self.now)))
            self.synced[place] = self.now[place]
        self.dirty.clear()

    def crash(self, dice: random.Random) -> None:
        after = bytearray(self.synced)
        kept = dice.random()
        for sector in sorted(self.dirty):
            if dice.random() < kept:
                start, end = sector * SECTOR, min((sector + 1) * SECTOR, len(self.now))
                if len(after) < end:
                    after.extend(bytes(end - len(after)))
                after[start:end] = self.now[start:end]
        self.now = after
        self.synced = bytearray(after)
        self.dirty.clear()


class SimulatedDisk:
    """Keeps the contract of `truba.log.disk.Disk`. One directory level per path; directories are made by `mkdir`."""

    def __init__(self, seed: int = 0) -> None:
        self.dice = random.Random(seed)
        self.files: dict[str, _File] = {}
        self.free = 1 << 40
        self._names_before: list[dict[str, _File]] = []  # one for each change of names since the last sync
        self._directories = {"/"}
        self._open: dict[int, _File | str] = {}
        self._locks: dict[_File, int] = {}
        self._fd = 100
        self._clock_s = 0.0

    def hold(self, files: Mapping[str, bytes], directories: Iterable[str] = ()) -> None:
        """Begin anew with these files and directories, all durable."""
        self.files = {}
        for path, data in files.items():
            file = self.files[path] = _File()
            file.now = bytearray(data)
            file.synced = bytearray(data)
        self._directories = {"/", *directories}
        self._names_before.clear()
        self._open.clear()
        self._locks.clear()

    def crash(self) -> None:
        """The power fails: every descriptor is gone, and what was not synced may be, in part."""
        histories = [*self._names_before, dict(self.files)]
        self.files = dict(self.dice.choice(histories))
        for file in set(self.files.values()):
            file.crash(self.dice)
        self._open.clear()
        self._locks.clear()
        self._names_before.clear()

    def kill(self) -> None:
        """The process dies, the machine does not: what was written is read again, synced or not."""
        self._open.clear()
        self._locks.clear()

    def forget(self) -> None:
        """A sync failed: pages not written count as written, for reads and for later syncs, until the power fails."""
        for file in self.files.values():
            file.dirty.clear()

    def open(self, path: str, flags: int, mode: int = 0o600) -> int:
        self._fd += 1
        if flags & os.O_DIRECTORY:
            if path not in self._directories:
                raise FileNotFoundError(errno.ENOENT, "no such directory", path)
            self._open[self._fd] = path
            return self._fd
        file = self.files.get(path)
        if file is None:
            if not flags & os.O_CREAT:
                raise FileNotFoundError(errno.ENOENT, "no such file", path)
            self._change_names()
            file = self.files[path] = _File()
        if flags & os.O_TRUNC:
            file.now.clear()
        self._open[self._fd] = file
        return self._fd

    def close(self, fd: int) -> None:
        file = self._open.pop(fd)
        if isinstance(file, _File) and self._locks.get(file) == fd:
            del self._locks[file]

    def pread(self, fd: int, count: int, offset: int) -> bytes:
        return bytes(self._file(fd).now[offset : offset + count])

    def pwritev(self, fd: int, parts: Sequence[bytes | memoryview], offset: int) -> int:
        data = b"".join(parts)
        self._file(fd).write(data, offset)
        return len(data)

    def fdatasync(self, fd: int) -> None:
        self._file(fd).sync()

    def fsync(self, fd: int) -> None:
        if isinstance(self._open[fd], str):
            self._names_before.clear()
        else:
            self._file(fd).sync()

    def rename(self, old: str, new: str) -> None:
        self._change_names()
        self.files[new] = self.files.pop(old)

    def unlink(self, path: str) -> None:
        if path not in self.files:
            raise FileNotFoundError(errno.ENOENT, "no such file", path)
        self._change_names()
        del self.files[path]

    def mkdir(self, path: str, mode: int) -> None:
        if path in self._directories:
            raise FileExistsError(errno.EEXIST, "exists", path)
        if (path.rpartition("/")[0] or "/") not in self._directories:
            raise FileNotFoundError(errno.ENOENT, "no such directory", path)
        self._directories.add(path)

    def listdir(self, path: str) -> list[str]:
        return [name.rpartition("/")[2] for name in self.files if name.rpartition("/")[0] == path]

    def size(self, fd: int) -> int:
        return len(self._file(fd).now)

    def free_bytes(self, path: str) -> int:
        return self.free

    def lock(self, fd: int) -> None:
        if self._locks.setdefault(self._file(fd), fd) != fd:
            raise BlockingIOError(errno.EWOULDBLOCK, "locked")

    def random(self, count: int) -> bytes:
        return self.dice.randbytes(count)

    def steady_s(self) -> float:
        self._clock_s += 0.0001
        return self._clock_s

    def stamp(self) -> str:
        return "20260101T000000"

    def _file(self, fd: int) -> _File:
        file = self._open[fd]
        assert isinstance(file, _File), "a directory is no file"
        return file

    def _change_names(self) -> None:
        self._names_before.append(dict(self.files))
