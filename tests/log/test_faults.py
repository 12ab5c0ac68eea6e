"""Any system call may fail: the log is poisoned or refuses loudly, and what was acknowledged is there afterwards."""

from __future__ import annotations

import errno
import threading
from pathlib import Path
from typing import Any

import pytest

from tests.log.support import HOME, FaultyDisk, bodies, contents, open_log, write
from truba.errors import DataError, LogPoisoned
from truba.log.file import FileLog
from truba.testing.disk import SimulatedDisk
from truba.testing.log import batch

BATCHES = [*bodies(3), batch(4, body=b"z" * 5000), *bodies(5, 700, first=5), *bodies(3, 1500, first=10)]


def work(disk: FaultyDisk, acknowledged: list[Any]) -> None:
    """Fill and trim a log that turns over its segments, and write down what was acknowledged."""
    log = open_log(HOME, disk=disk)
    try:
        for each in BATCHES:
            write(log, [each])
            acknowledged.append((each, log.tail))
            if each.first_seq in (6, 9):
                log.trim(each.first_seq - 2)
        log.position_at(0)  # hears of a failure after the last batch
    finally:
        log.close()


def count_calls() -> int:
    disk = FaultyDisk(SimulatedDisk())
    work(disk, [])
    return len(disk.calls)


@pytest.mark.parametrize("half", [False, True])
@pytest.mark.parametrize("code", [errno.EIO, errno.ENOSPC])
def test_the_nth_call_fails(code: int, half: bool) -> None:
    for number in range(1, count_calls() + 1):
        simulated = SimulatedDisk(number)
        disk = FaultyDisk(simulated)
        disk.half = half
        disk.fails = lambda name, call, number=number: code if call == number else None  # type: ignore[misc]
        acknowledged: list[Any] = []
        told: Exception | None = None
        try:
            work(disk, acknowledged)
        except (LogPoisoned, DataError) as error:
            told = error
        assert told is None or f"Errno {code}" in str(told)
        # A full disk does not stop a log while its reserve lasts; anything else must be heard of.
        assert told or code == errno.ENOSPC, f"call {number}, {disk.calls[number - 1]}"
        if number % 2:
            simulated.crash()
        found = contents(simulated)
        kept = [entry for entry in acknowledged if not found or entry[0].first_seq >= found[0][0].first_seq]
        assert found[: len(kept)] == kept, f"call {number}, {disk.calls[number - 1]}"
        assert len(found) <= len(kept) + 1
        assert bool(found) == bool(acknowledged) or len(found) == 1


@pytest.mark.parametrize("name", ["pwritev", "fdatasync"])
def test_a_failed_commit_is_never_tried_again(name: str) -> None:
    disk = FaultyDisk(SimulatedDisk())
    log = open_log(HOME, disk=disk)
    write(log, bodies(2))
    tail = log.tail
    disk.fails = lambda call, number: errno.EIO if call == name else None
    heard: list[BaseException | None] = []
    log.append(batch(3), heard.append)
    assert isinstance(heard[0], LogPoisoned)
    assert isinstance(heard[0].__cause__, OSError)
    disk.fails = lambda call, number: None
    before = len(disk.calls)
    with pytest.raises(LogPoisoned, match="Input/output error"):
        log.append(batch(3), heard.append)
    with pytest.raises(LogPoisoned):
        log.read(0)
    assert len(heard) == 1
    assert len(disk.calls) == before
    assert log.tail == tail
    log.close()


def test_short_writes_are_completed() -> None:
    disk = FaultyDisk(SimulatedDisk())
    disk.short = True
    log = open_log(HOME, disk=disk)
    write(log, BATCHES)
    log.close()
    assert [each for each, _ in contents(disk.inner)] == BATCHES


def test_a_write_that_writes_nothing_is_an_error() -> None:
    simulated = SimulatedDisk()
    log = open_log(HOME, disk=simulated)
    log._pwritev = lambda fd, parts, offset: 0  # noqa: SLF001 - the bound call is the seam here
    simulated.pwritev = lambda fd, parts, offset: 0  # type: ignore[method-assign]
    with pytest.raises(LogPoisoned, match="wrote nothing"):
        write(log, bodies(1))
    log.close()


def test_an_interrupted_commit_poisons() -> None:
    simulated = SimulatedDisk()
    log = open_log(HOME, disk=simulated)

    def interrupt(fd: int) -> None:
        raise KeyboardInterrupt

    log._fdatasync = interrupt  # noqa: SLF001
    heard: list[BaseException | None] = []
    with pytest.raises(KeyboardInterrupt):
        log.append(batch(1), heard.append)
    assert isinstance(heard[0], LogPoisoned)
    with pytest.raises(LogPoisoned):
        log.append(batch(1), heard.append)
    log.close()


def test_the_housekeeper_poisons_too() -> None:
    disk = FaultyDisk(SimulatedDisk())
    log = open_log(HOME, disk=disk)
    write(log, bodies(7))
    disk.fails = lambda name, number: errno.EIO if name == "rename" else None
    write(log, bodies(1, first=8))  # takes the segment that was ready; making the next one fails
    with pytest.raises(LogPoisoned, match="Input/output error"):
        write(log, bodies(1, first=9))
    log.close()
    assert [each.first_seq for each, _ in contents(disk.inner)] == list(range(1, 9))


async def test_a_commit_for_which_no_thread_can_be_had_poisons(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It must not wait in the queue of a thread that never was; and the directory is given back."""

    def none_left(self: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    log = FileLog.open(tmp_path, commit="thread", segment_bytes=8 * 512, reserve_bytes=0)
    told: list[BaseException | None] = []
    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", none_left)
        with pytest.raises(LogPoisoned, match="can't start new thread"):
            log.append(batch(1), told.append)
    with pytest.raises(LogPoisoned):
        log.append(batch(1), told.append)
    assert told == []
    log.close()
    FileLog.open(tmp_path, segment_bytes=8 * 512, reserve_bytes=0).close()


async def test_a_start_for_which_no_thread_can_be_had_leaves_the_directory_free(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def none_left(self: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", none_left)
        with pytest.raises(RuntimeError, match="can't start new thread"):
            FileLog.open(tmp_path, segment_bytes=8 * 512, reserve_bytes=0)
    FileLog.open(tmp_path, segment_bytes=8 * 512, reserve_bytes=0).close()
