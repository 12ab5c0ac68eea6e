"""A simulated disk: files in memory, and a crash that forgets what was not synced.

What a crash may leave is what the log assumes of a real one: a sector of 512 bytes is either as it was at the last sync
or as it was written last, each sector for itself; names change in the order of the calls, and those not synced may be
undone from the last one back. A `Mount` is the disk as one process sees it: its calls can be made to fail, and end
with the process. Runs are repeated by their seed.
"""

from __future__ import annotations

import errno
import os
import random
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress

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

    def lose_some(self, dice: random.Random) -> None:
        """A sync failed: some sectors were written, and all count as written from now on."""
        kept = dice.random()
        for sector in sorted(self.dirty):
            if dice.random() >= kept:
                self.dirty.discard(sector)
        written = self.dirty
        self.dirty = set()
        for sector in sorted(written):
            start, end = sector * SECTOR, min((sector + 1) * SECTOR, len(self.now))
            if len(self.synced) < end:
                self.synced.extend(bytes(end - len(self.synced)))
            self.synced[start:end] = self.now[start:end]

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
        self.capacity_bytes = 1 << 40
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
        for file in dict.fromkeys(self.files.values()):  # in order of names: a set's order is another in each run
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
        file = self._file(fd)
        if (growth := offset + len(data) - len(file.now)) > 0 and growth > (free := self._room_bytes()):
            data = data[: max(0, len(data) - growth + free)]
            if not data:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        file.write(data, offset)
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
        return self._room_bytes()

    def lock(self, fd: int) -> None:
        if self._locks.setdefault(self._file(fd), fd) != fd:
            raise BlockingIOError(errno.EWOULDBLOCK, "locked")

    def unlock(self, fd: int) -> None:
        if self._locks.get(self._file(fd)) == fd:
            del self._locks[self._file(fd)]

    def random(self, count: int) -> bytes:
        return self.dice.randbytes(count)

    def steady_s(self) -> float:
        self._clock_s += 0.0001
        return self._clock_s

    def stamp(self) -> str:
        return "20260101T000000"

    def fail_sync(self, fd: int) -> None:
        """What a failed sync of that file leaves behind; the call itself does not reach the disk."""
        if isinstance(file := self._open[fd], _File):
            file.lose_some(self.dice)

    def _room_bytes(self) -> int:
        return max(0, self.capacity_bytes - sum(len(file.now) for file in self.files.values()))

    def _file(self, fd: int) -> _File:
        file = self._open[fd]
        assert isinstance(file, _File), "a directory is no file"
        return file

    def _change_names(self) -> None:
        self._names_before.append(dict(self.files))


class ProcessGone(BaseException):  # no `except Exception` may go on as if it were alive
    """The process has ended: none of its calls reaches the disk any more."""


class Mount:
    """The disk as one process sees it. Keeps the contract of `truba.log.disk.Disk`.

    `before` is called with the name of each call that is about to change something. What it raises is what the caller
    gets: an OSError is a fault of the disk, which has then done half of a write, or forgotten part of what a sync was
    to keep; at ProcessGone the process dies in the middle of that call, and `died` is called to act on it.
    """

    def __init__(
        self, disk: SimulatedDisk, before: Callable[[str], None], died: Callable[[], None] = lambda: None
    ) -> None:
        self._disk = disk
        self._before = before
        self._died = died
        self.gone = False
        # What changes nothing, and what a process does without the disk.
        self.pread = disk.pread
        self.listdir = disk.listdir
        self.size = disk.size
        self.free_bytes = disk.free_bytes
        self.random = disk.random
        self.steady_s = disk.steady_s
        self.stamp = disk.stamp
        self.lock = disk.lock

    def _enter(self, name: str, fd: int = -1, whole: bytes = b"", offset: int = 0) -> None:
        if self.gone:
            raise ProcessGone(name)
        try:
            self._before(name)
        except (OSError, ProcessGone) as trouble:
            if whole:
                with suppress(OSError):
                    # A write ends early between two sectors, never inside one: the system copies page by page.
                    end = offset + self._disk.dice.randrange(len(whole) + 1)
                    if part := whole[: max(0, end - end % SECTOR - offset)]:
                        self._disk.pwritev(fd, [part], offset)
            elif fd >= 0 and isinstance(trouble, OSError):
                self._disk.fail_sync(fd)
            if isinstance(trouble, ProcessGone):
                self.gone = True
                self._died()
            raise

    def open(self, path: str, flags: int, mode: int = 0o600) -> int:
        self._enter("open")
        return self._disk.open(path, flags, mode)

    def close(self, fd: int) -> None:
        if not self.gone:
            self._disk.close(fd)

    def unlock(self, fd: int) -> None:
        if not self.gone:
            self._disk.unlock(fd)

    def pwritev(self, fd: int, parts: Sequence[bytes | memoryview], offset: int) -> int:
        whole = b"".join(parts)
        self._enter("pwritev", fd, whole, offset)
        return self._disk.pwritev(fd, [whole], offset)

    def fdatasync(self, fd: int) -> None:
        self._enter("fdatasync", fd)
        self._disk.fdatasync(fd)

    def fsync(self, fd: int) -> None:
        self._enter("fsync", fd)
        self._disk.fsync(fd)

    def rename(self, old: str, new: str) -> None:
        self._enter("rename")
        self._disk.rename(old, new)

    def unlink(self, path: str) -> None:
        self._enter("unlink")
        self._disk.unlink(path)

    def mkdir(self, path: str, mode: int) -> None:
        self._enter("mkdir")
        self._disk.mkdir(path, mode)
