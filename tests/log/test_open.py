"""Opening: what is refused, with which words, and what an empty directory becomes."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
import time
from hashlib import sha256
from pathlib import Path

import pytest

from tests.log.support import HOME, SECTOR, FaultyDisk, bodies, contents, fill, open_log, segments, write
from truba.errors import DataForeign, DataLocked, DataNewer, DataUnwritable
from truba.log.file import FileLog
from truba.testing.disk import SimulatedDisk
from truba.types import ORIGIN


def test_an_empty_directory_is_ready_at_once(tmp_path: Path) -> None:
    started_s = time.monotonic()
    log = FileLog.open(tmp_path / "data" / "log")
    assert time.monotonic() - started_s < 0.5
    assert log.tail == ORIGIN
    assert (tmp_path / "data" / "log").stat().st_mode & 0o777 == 0o700
    assert (tmp_path / "data").stat().st_mode & 0o777 == 0o700
    log.close()


def test_a_log_in_use_names_its_process(tmp_path: Path) -> None:
    log = open_log(tmp_path / "log")
    with pytest.raises(DataLocked, match=f"in use by process {os.getpid()};"):
        open_log(tmp_path / "log")
    log.close()
    open_log(tmp_path / "log").close()


def test_the_lock_ends_with_its_process(tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from truba.log.file import FileLog;"
        f"FileLog.open(Path({str(tmp_path / 'log')!r})); print('open', flush=True); sys.stdin.read()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == "open\n"
        with pytest.raises(DataLocked, match=f"process {child.pid};"):
            open_log(tmp_path / "log")
        child.kill()
        child.wait(10)
    open_log(tmp_path / "log").close()


def dup_of_lock(directory: Path) -> int:
    """As a process has it that was forked from this one, until it runs another program."""
    (fd,) = (fd for fd in Path("/proc/self/fd").iterdir() if fd.resolve() == directory.resolve() / "LOCK")
    return os.dup(int(fd.name))


def test_a_process_that_was_forked_meanwhile_does_not_keep_the_lock(tmp_path: Path) -> None:
    log = open_log(tmp_path / "log")
    with os.fdopen(dup_of_lock(tmp_path / "log")):
        log.close()
        open_log(tmp_path / "log").close()


def test_a_forked_process_that_closes_its_copy_does_not_give_up_the_lock(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = open_log(tmp_path / "log")
    with os.fdopen(dup_of_lock(tmp_path / "log")):  # that of the process which has opened it
        with monkeypatch.context() as forked:
            forked.setattr(os, "getpid", lambda: 1)
            log.close()
        with pytest.raises(DataLocked):
            open_log(tmp_path / "log")


def test_foreign_content(tmp_path: Path) -> None:
    (tmp_path / "log").mkdir()
    (tmp_path / "log" / "notes.txt").write_text("mine")
    with pytest.raises(DataForeign, match=r"notes\.txt"):
        open_log(tmp_path / "log")
    assert (tmp_path / "log" / "notes.txt").read_text() == "mine"
    assert not list((tmp_path / "log").glob("segment-*"))


def test_a_file_in_place_of_the_directory(tmp_path: Path) -> None:
    (tmp_path / "log").write_text("")
    with pytest.raises(DataForeign, match="not a directory"):
        open_log(tmp_path / "log")
    with pytest.raises(DataForeign, match="not a directory"):
        open_log(tmp_path / "log" / "below")


@pytest.mark.parametrize("code", [errno.EACCES, errno.EROFS])
@pytest.mark.parametrize("name", ["mkdir", "open", "pwritev"])
def test_a_directory_that_cannot_be_written(code: int, name: str) -> None:
    disk = FaultyDisk(SimulatedDisk())
    disk.fails = lambda call, number: code if call == name else None
    with pytest.raises(DataUnwritable, match=os.strerror(code)):
        open_log(HOME, disk=disk)


def test_a_newer_format() -> None:
    disk = SimulatedDisk()
    fill(disk, bodies(2))
    data = next(iter(segments(disk).values()))
    data[8] = 3
    data[48:64] = sha256(data[:48]).digest()[:16]
    with pytest.raises(DataNewer, match="version 3"):
        contents(disk)


@pytest.mark.parametrize("segment_bytes", [0, 512, 2000, 4 * SECTOR + 1])
def test_segment_bytes_that_cannot_be(segment_bytes: int, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="segment_bytes"):
        FileLog.open(tmp_path, segment_bytes=segment_bytes)


def test_a_thread_needs_a_loop(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="event loop"):
        FileLog.open(tmp_path / "log", commit="thread")


def test_the_segment_size_may_change_between_starts() -> None:
    disk = SimulatedDisk()
    fill(disk, bodies(10), segment_bytes=4 * SECTOR)
    log = open_log(HOME, disk=disk, segment_bytes=16 * SECTOR)
    write(log, bodies(10, 3000, first=11))  # a frame larger than the segments were
    write(log, bodies(20, first=21))
    assert [each.first_seq for each, _ in log.read(0)] == list(range(1, 41))
    log.trim(25)
    log.close()
    log = open_log(HOME, disk=disk, segment_bytes=8 * SECTOR)
    write(log, bodies(30, first=41))
    assert [each.first_seq for each, _ in log.read(25)] == list(range(26, 71))
    log.close()
