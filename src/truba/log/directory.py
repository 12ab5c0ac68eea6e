"""The directory of a log: its lock, its segment files, and what was kept aside. Never looks into frames.

Files: `LOCK`, `segment-<number>.log`, `lost-<seq>-<time>.bin` (bytes cut from the log), and `*.tmp` (unfinished;
dropped at the next start). Anything else is foreign, and the directory is refused. A file gets its name only once it
is whole and synced, and the directory is synced after each change of names.
"""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from truba.errors import DataForeign, DataLocked, DataUnwritable
from truba.log.damage import Damage, LogDamaged
from truba.log.disk import Disk, read_all, write_all
from truba.log.frame import Framing
from truba.log.recovery import Cut, Loaded, has_frame
from truba.log.segment import HEADER_BYTES, SegmentHeader, segment_name, segment_number, write_zeros

_LOST = re.compile(r"lost-\d+-.*\.bin")
_TEMPORARY = ".tmp"
_NO_SYNC = (errno.EINVAL, errno.ENOTSUP, errno.ENOSYS)
"""Of a file system, far above, that knows no sync of a directory."""


@contextmanager
def refusing(path: Path) -> Iterator[None]:
    """Turn an OSError of opening a log into a refusal to use its directory."""
    try:
        yield
    except LogDamaged as error:
        raise LogDamaged(error.damage, path) from error
    except (NotADirectoryError, FileExistsError) as error:
        raise DataForeign(f"{path} is not a directory; name a directory that is empty or does not exist yet") from error
    except OSError as error:
        raise DataUnwritable(f"the log in {path} cannot be opened: {error}") from error


class NamesUnsynced(OSError):
    """A sync of the directory failed: which files are there after a crash is unknown, whatever the errno."""


class Directory:
    """An open directory of a log; `lock` it before changing anything."""

    def __init__(self, path: Path, disk: Disk) -> None:
        self.path = path
        self.disk = disk
        self._fd = disk.open(str(path), os.O_RDONLY | os.O_DIRECTORY)
        self._lock_fd = -1
        self._locked_by = 0  # the process

    @classmethod
    def create(cls, path: Path, disk: Disk) -> Directory:
        """Open it, made (0700) if it is not there, and lock it. Raises DataError."""
        with refusing(path):
            cls._make(path, disk)
            directory = cls(path, disk)
            try:
                directory.names()  # in a foreign directory not even a file to lock is made
                directory._lock()
            except BaseException:
                directory.close()
                raise
            return directory

    def file(self, name: str) -> str:
        return f"{self.path}/{name}"

    def find_live(self, framing: Framing, headers: Sequence[SegmentHeader]) -> tuple[Loaded, list[Loaded]]:
        """The last segment that holds frames (else the first of all), and those after it; what `recover` asks for."""
        later: list[Loaded] = []
        for header in reversed(headers):
            segment = self.load(header)
            if has_frame(framing, segment):
                return segment, later
            later.insert(0, segment)
        return later[0], later[1:]

    def sync(self) -> None:
        try:
            self.disk.fsync(self._fd)
        except OSError as error:
            raise NamesUnsynced(error.errno, error.strerror, str(self.path)) from error

    def sync_above(self) -> None:
        """This directory's own name is durable, and those of all that lead to it, whoever made them: he may have been
        killed before he had synced them."""
        for above in self.path.absolute().parents:
            try:
                fd = self.disk.open(str(above), os.O_RDONLY | os.O_DIRECTORY)
            except PermissionError:
                return  # nothing was made there by anybody who had this directory
            try:
                self.disk.fsync(fd)
            except OSError as error:
                if error.errno not in _NO_SYNC:
                    raise
            finally:
                self.disk.close(fd)

    def close(self) -> None:
        """Give up the lock and the directory."""
        # A process that was forked meanwhile has the descriptor too, until it runs another program: without a word the
        # lock would stay. From a forked process that word would take it from us.
        if self._lock_fd >= 0 and self._locked_by == os.getpid():
            with suppress(OSError):  # as below
                self.disk.unlock(self._lock_fd)
        for fd in (self._lock_fd, self._fd):
            if fd >= 0:
                with suppress(OSError):  # closing changes nothing on disk: everything was synced before
                    self.disk.close(fd)
        self._lock_fd = self._fd = -1

    def names(self) -> list[str]:
        """Segment names in order. DataForeign if anything is here that no log puts here."""
        numbers = []
        for name in self.disk.listdir(str(self.path)):
            if (number := segment_number(name)) is not None:
                numbers.append(number)
            elif name != "LOCK" and not name.endswith(_TEMPORARY) and not _LOST.fullmatch(name):
                raise DataForeign(
                    f"{self.path} holds {name!r}, which truba did not write; give it a directory of its own"
                )
        return [segment_name(number) for number in sorted(numbers)]

    def drop_temporary(self) -> None:
        for name in self.disk.listdir(str(self.path)):
            if name.endswith(_TEMPORARY):
                self.disk.unlink(self.file(name))

    def headers(self) -> list[SegmentHeader]:
        """The segments' headers: consecutive numbers of one log. Raises DataError."""
        headers, damage = self.sound_headers()
        if damage is not None:
            raise LogDamaged(damage)
        return headers

    def sound_headers(self) -> tuple[list[SegmentHeader], Damage | None]:
        """Headers of consecutive segments, up to the first that is bad or missing."""
        headers: list[SegmentHeader] = []
        for name in self.names():
            try:
                header = self.header(name, headers)
            except LogDamaged as error:
                return headers, error.damage
            if headers and header.number != headers[-1].number + 1:
                missing = segment_name(headers[-1].number + 1)
                return headers, Damage(missing, 0, 0, f"the segment is missing, yet {name} is there")
            headers.append(header)
        return headers, None

    def header(self, name: str, before: Sequence[SegmentHeader] = ()) -> SegmentHeader:
        """The header of one segment; DataForeign if those before it are of another log."""
        header = SegmentHeader.decode(self._read(name, HEADER_BYTES), name)
        if before and header.log_id != before[0].log_id:
            raise DataForeign(f"{self.file(name)} belongs to another log than {segment_name(before[0].number)}")
        return header

    def peek(self, header: SegmentHeader, count: int) -> Loaded:
        """The first bytes of a segment only."""
        return Loaded(header, self._read(segment_name(header.number), count))

    def load(self, header: SegmentHeader) -> Loaded:
        """All of a segment. DataDamaged if it cannot be read, or its header is not what it was."""
        name = segment_name(header.number)
        data = self._read(name, header.size)
        if SegmentHeader.decode(data[:HEADER_BYTES], self.file(name)) != header:
            raise LogDamaged(Damage(name, 0, 0, "the segment's header has changed"))
        return Loaded(header, data)

    def open_segment(self, header: SegmentHeader) -> int:
        return self.disk.open(self.file(segment_name(header.number)), os.O_RDWR)

    def put_away(self, number: int, later: int) -> None:
        """A trimmed segment leaves the log, for good; `make_segment` of number `later` will use its file again."""
        self.disk.rename(self.file(segment_name(number)), self.file(segment_name(later) + _TEMPORARY))
        self.sync()

    def make_segment(self, header: SegmentHeader, go_on: Callable[[], bool] = lambda: True) -> int | None:
        """A segment of zeros under its final name, durable; its descriptor. None if told to stop half-way."""
        disk, name = self.disk, self.file(segment_name(header.number))
        temporary = name + _TEMPORARY
        fd = disk.open(temporary, os.O_RDWR | os.O_CREAT)
        try:
            write_zeros(disk, fd, 0, header.size, go_on)
            if go_on():
                write_all(disk, fd, [header.encode()], 0)
                disk.fsync(fd)
                disk.rename(temporary, name)
                self.sync()
                return fd
        except BaseException:
            disk.close(fd)
            with suppress(OSError):  # the next start drops it
                disk.unlink(temporary)
            raise
        disk.close(fd)
        disk.unlink(temporary)
        return None

    def make_full_segment(self, header: SegmentHeader, parts: list[bytes]) -> int:
        """A segment that holds one frame and nothing else, durable in one act; replaces an empty one of that number."""
        name = self.file(segment_name(header.number))
        fd = self.disk.open(name + _TEMPORARY, os.O_RDWR | os.O_CREAT)
        try:
            write_all(self.disk, fd, [header.encode(), *parts], 0)
            self.disk.fsync(fd)
            self.disk.rename(name + _TEMPORARY, name)
            self.sync()
        except BaseException:
            self.disk.close(fd)
            raise
        return fd

    def drop_segment(self, number: int) -> None:
        self.disk.unlink(self.file(segment_name(number)))
        self.sync()

    def cut(self, cut: Cut, data: memoryview) -> Path:
        """Keep the cut bytes aside, then write zeros in their place. Returns where they are kept."""
        kept = self.keep_aside(cut.first_seq, data[cut.start : cut.end])
        fd = self.disk.open(self.file(segment_name(cut.number)), os.O_RDWR)
        try:
            write_zeros(self.disk, fd, cut.start, cut.end)
            self.disk.fsync(fd)
        finally:
            self.disk.close(fd)
        return kept

    def rewrite(self, header: SegmentHeader, data: memoryview, offset: int) -> None:
        """Write bytes of a segment once more, and sync it."""
        fd = self.open_segment(header)
        try:
            write_all(self.disk, fd, [data], offset)
            self.disk.fsync(fd)
        finally:
            self.disk.close(fd)

    def fill_up(self, header: SegmentHeader, length: int) -> None:
        """A segment whose file had become too short is as long as it was again; what was there is zeros."""
        fd = self.open_segment(header)
        try:
            write_zeros(self.disk, fd, length, header.size)
            self.disk.fsync(fd)
        finally:
            self.disk.close(fd)

    def set_aside(self, name: str, seq: int) -> Path:
        """A whole segment leaves the log and is kept under another name."""
        kept = self.lost_name(seq)
        self.disk.rename(self.file(name), self.file(kept))
        self.sync()
        return self.path / kept

    def keep_aside(self, seq: int, data: memoryview) -> Path:
        """A file of its own for bytes that the log gives up, durable."""
        name = self.lost_name(seq)
        fd = self.disk.open(self.file(name + _TEMPORARY), os.O_RDWR | os.O_CREAT | os.O_TRUNC)
        try:
            if data:
                write_all(self.disk, fd, [data], 0)
            self.disk.fsync(fd)
        finally:
            self.disk.close(fd)
        self.disk.rename(self.file(name + _TEMPORARY), self.file(name))
        self.sync()
        return self.path / name

    def bytes_of(self, name: str) -> memoryview:
        fd = self.disk.open(self.file(name), os.O_RDONLY)
        try:
            return read_all(self.disk, fd, self.disk.size(fd))
        finally:
            self.disk.close(fd)

    def lost_name(self, seq: int) -> str:
        taken = set(self.disk.listdir(str(self.path)))
        stem = f"lost-{seq}-{self.disk.stamp()}"
        name, number = f"{stem}.bin", 1
        while name in taken:
            number += 1
            name = f"{stem}-{number}.bin"
        return name

    def _read(self, name: str, count: int) -> memoryview:
        fd = self.disk.open(self.file(name), os.O_RDONLY)
        try:
            return read_all(self.disk, fd, min(count, self.disk.size(fd)))
        except OSError as error:
            raise LogDamaged(Damage(name, 0, 0, f"the file cannot be read: {error}")) from error
        finally:
            self.disk.close(fd)

    def _lock(self) -> None:
        self._lock_fd = self.disk.open(self.file("LOCK"), os.O_RDWR | os.O_CREAT)
        try:
            self.disk.lock(self._lock_fd)
        except OSError as error:
            if error.errno not in (errno.EWOULDBLOCK, errno.EAGAIN, errno.EACCES):
                raise
            holder = bytes(read_all(self.disk, self._lock_fd, 32)).split(b"\n")[0].decode("ascii", "replace")
            raise DataLocked(f"{self.path} is in use by process {holder or 'unknown'}; stop it first") from error
        self._locked_by = os.getpid()
        write_all(self.disk, self._lock_fd, [f"{os.getpid()}\n".encode().ljust(32)], 0)

    @classmethod
    def _make(cls, path: Path, disk: Disk) -> None:
        """The directory and those above it that are missing. Their names are synced before a log begins here."""
        try:
            disk.mkdir(str(path), 0o700)
        except FileExistsError:
            return
        except FileNotFoundError:
            cls._make(path.parent, disk)
            disk.mkdir(str(path), 0o700)
