"""What is the file log's own: turning over segments, large batches, where it commits, closing with work under way."""

from __future__ import annotations

import asyncio
import threading
from pathlib import Path
from typing import Any

import pytest

from tests.log.support import HOME, SECTOR, FaultyDisk, bodies, contents, fill, open_log, segments, write
from truba.errors import DataDamaged, LogPoisoned
from truba.log.file import FileLog
from truba.log.opening import FIRST_SEGMENT_BYTES_MAX
from truba.testing.disk import SimulatedDisk
from truba.testing.log import batch, commit


class Gate(FaultyDisk):
    """A disk whose fdatasync waits until it is let through."""

    def __init__(self) -> None:
        super().__init__(SimulatedDisk())
        self.closed = False
        self.first_pass = 0  # so many are let through all the same
        self.waits = threading.Event()
        self.go_on = threading.Event()

    def fdatasync(self, fd: int) -> None:
        if self.closed and self.first_pass:
            self.first_pass -= 1
        elif self.closed:
            self.waits.set()
            assert self.go_on.wait(30)
        self.inner.fdatasync(fd)


def test_segments_turn_over_without_a_seam() -> None:
    disk = SimulatedDisk()
    entries = fill(disk, bodies(100, 300))
    assert len(segments(disk)) > 10
    log = open_log(HOME, disk=disk)
    for after in range(0, 100, 7):
        assert list(log.read(after)) == entries[after:]
        assert log.position_at(after + 1) == entries[after][1]
    log.close()


def test_the_chain_does_not_depend_on_the_segments() -> None:
    one, other = SimulatedDisk(1), SimulatedDisk(1)
    assert fill(one, bodies(30, 300)) == fill(other, bodies(30, 300), segment_bytes=64 * SECTOR)


@pytest.mark.parametrize("body_bytes", [8 * SECTOR - 96 - 8 - SECTOR, 8 * SECTOR - 96 - 8 - SECTOR + 1, 100_000])
def test_a_batch_larger_than_a_segment_gets_one_of_its_own(body_bytes: int) -> None:
    disk = SimulatedDisk()
    batches = [*bodies(2), batch(3, body=b"L" * body_bytes), *bodies(1, first=4), batch(5, body=b"M" * 90_000)]
    entries = fill(disk, batches)
    assert [each for each, _ in entries] == batches
    log = open_log(HOME, disk=disk)
    write(log, bodies(10, first=6))
    log.trim(9)
    log.close()
    assert [each.first_seq for each, _ in contents(disk)][-6:] == list(range(10, 16))


def test_the_first_segment_is_small_so_that_the_first_start_is_quick() -> None:
    disk = SimulatedDisk()
    open_log(HOME, disk=disk, segment_bytes=FIRST_SEGMENT_BYTES_MAX * 2, housekeeping="thread").close()
    assert len(next(iter(segments(disk).values()))) == FIRST_SEGMENT_BYTES_MAX


def test_a_trimmed_log_knows_where_it_begins() -> None:
    disk = SimulatedDisk()
    entries = fill(disk, bodies(30))
    log = open_log(HOME, disk=disk)
    log.trim(20)
    begin = log.begin
    assert 7 <= begin.seq <= 20
    assert begin == entries[begin.seq - 1][1] == log.position_at(begin.seq)
    assert log.position_at(begin.seq - 1) is None
    assert list(log.read(begin.seq)) == entries[begin.seq :]
    with pytest.raises(DataDamaged, match=f"begins after seq {begin.seq}"):
        log.read(begin.seq - 1)
    log.close()
    log = open_log(HOME, disk=disk)
    assert log.begin == begin
    log.close()


def test_size_counts_what_a_restart_reads() -> None:
    disk = SimulatedDisk()
    log = open_log(HOME, disk=disk)
    assert log.size_bytes == 0
    write(log, bodies(3))
    assert log.size_bytes == 3 * SECTOR
    write(log, bodies(30, first=4))
    assert log.size_bytes == 33 * SECTOR
    log.trim(21)
    assert log.size_bytes == 12 * SECTOR
    log.close()


async def test_a_slow_sync_does_not_stop_the_loop() -> None:
    disk = Gate()
    log = FileLog.open(HOME, disk=disk, segment_bytes=64 * SECTOR, commit="thread")
    disk.closed = True
    heard: list[Any] = []
    log.append(batch(1), heard.append)
    assert await asyncio.to_thread(disk.waits.wait, 30)
    assert heard == []
    assert log.tail.seq == 0
    with pytest.raises(ValueError, match="window"):
        log.append(batch(2), heard.append)
    disk.go_on.set()
    log.close()
    assert heard == [None]
    await asyncio.sleep(0)  # the loop hears of it a second time, and has nothing left to tell
    assert heard == [None]
    assert len(contents(disk.inner)) == 1


async def test_auto_goes_to_the_thread_when_syncs_are_slow_and_comes_back() -> None:
    disk = FaultyDisk(SimulatedDisk())
    where: list[bool] = []
    plain = disk.inner.fdatasync

    def noting(fd: int) -> None:
        where.append(threading.current_thread() is threading.main_thread())
        plain(fd)

    disk.inner.fdatasync = noting  # type: ignore[method-assign]
    log = open_log(HOME, disk=disk, segment_bytes=512 * SECTOR, commit="auto")
    where.clear()  # syncs of segments being made
    await commit(log, *bodies(10))
    assert all(where)
    disk.slow_s = 0.01
    await commit(log, *bodies(10, first=11))
    assert where[10:] == [True] + [False] * 9
    disk.slow_s = 0.0
    await commit(log, *bodies(200, first=21))
    assert where[-1] is True
    log.close()


async def test_a_large_batch_goes_to_the_thread_and_takes_no_other_along() -> None:
    disk = FaultyDisk(SimulatedDisk())
    log = open_log(HOME, disk=disk, segment_bytes=4 << 20, commit="auto")
    told: list[bool] = []

    def here(error: BaseException | None) -> None:
        told.append(error is None)

    await commit(log, *bodies(10))
    disk.slow_s = 1.0
    await commit(log, batch(11, body=b"L" * (300 << 10)))
    disk.slow_s = 0.0
    log.append(batch(12), here)
    assert told == [True], "committed before append returned"
    log.close()


async def test_an_error_on_the_thread_poisons_and_is_told_on_the_loop() -> None:
    disk = FaultyDisk(SimulatedDisk())
    log = FileLog.open(HOME, disk=disk, segment_bytes=64 * SECTOR, commit="thread")
    await commit(log, *bodies(2))
    disk.fails = lambda name, number: 5 if name == "fdatasync" else None
    told: asyncio.Future[tuple[BaseException | None, threading.Thread]] = asyncio.get_running_loop().create_future()
    log.append(batch(3), lambda error: told.set_result((error, threading.current_thread())))
    error, thread = await asyncio.wait_for(told, 30)
    assert isinstance(error, LogPoisoned)
    assert isinstance(error.__cause__, OSError)
    assert thread is threading.main_thread()
    with pytest.raises(LogPoisoned):
        log.append(batch(3), lambda error: None)
    log.close()
    assert len(contents(disk.inner)) in (2, 3)


async def test_trimming_to_the_end_while_a_segment_is_entered_keeps_the_end() -> None:
    """The first frame of a new segment is under way: the segment before still tells where the log ends."""
    disk = Gate()
    log = FileLog.open(
        HOME, disk=disk, segment_bytes=4 * SECTOR, reserve_bytes=0, commit="thread", housekeeping="inline"
    )
    tail = await commit(log, *bodies(3))
    disk.closed, disk.first_pass = True, 1  # the one of the next segment, which is made before this one is entered
    log.append(batch(4), lambda error: None)
    assert await asyncio.to_thread(disk.waits.wait, 30)
    made = {f"{HOME}/segment-000000000{number}.log" for number in (1, 2, 3)}
    assert set(disk.inner.files) >= made, "the frame is under way"
    log.trim(3)
    left = set(disk.inner.files)
    disk.go_on.set()
    log.close()
    assert left >= made
    assert log.begin.seq == 0
    assert tail.seq == 3


def test_a_segment_that_is_recycled_while_it_is_read_is_called_trimmed_not_damaged() -> None:
    """Its first bytes are still its own, the rest is the next segment's."""
    disk = SimulatedDisk()
    log = open_log(HOME, disk=disk)
    write(log, bodies(40, 300))
    frames = log.read(0)
    pread = disk.pread

    def half(fd: int, count: int, offset: int) -> bytes:
        disk.pread = pread  # type: ignore[method-assign]
        begun = pread(fd, count // 2, offset)
        log.trim(8)  # the first segment only, which becomes zeros, for later use
        return begun

    disk.pread = half  # type: ignore[method-assign]
    with pytest.raises(DataDamaged, match="have been trimmed"):
        list(frames)
    log.close()


def test_a_closed_log_does_nothing(tmp_path: Path) -> None:
    log = open_log(tmp_path / "log")
    log.close()
    with pytest.raises(ValueError, match="closed"):
        log.append(batch(1), lambda error: None)
    with pytest.raises(ValueError, match="closed"):
        log.read(0)


async def test_closing_does_not_wait_for_a_segment_being_made(tmp_path: Path) -> None:
    log = FileLog.open(tmp_path / "log", segment_bytes=64 << 20)
    await commit(log, *bodies(3))
    log.close()
    assert not list((tmp_path / "log").glob("*.tmp"))
    assert len(contents(None, tmp_path / "log")) == 3
