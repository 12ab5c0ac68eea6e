"""A full disk: the reserve is kept for what frees data, and space that comes back is noticed."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from tests.log.support import HOME, SECTOR, FaultyDisk, bodies, contents, open_log, segments, write
from truba.errors import LogPoisoned
from truba.log.disk import OsDisk
from truba.testing.disk import SimulatedDisk

PER_SEGMENT = 7  # frames of one sector


def zeroing(disk: FaultyDisk) -> bool:
    """Whether the call under way is the first write to a new file."""
    return disk.calls[-2:] == ["open", "pwritev"]


def test_low_while_no_segment_can_be_made_and_plenty_after_a_trim() -> None:
    disk = FaultyDisk(SimulatedDisk())
    log = open_log(HOME, disk=disk)
    assert log.space == "plenty"
    write(log, bodies(PER_SEGMENT))
    full = [True]
    disk.fails = lambda name, number: (
        errno.ENOSPC if full[0] and name == "pwritev" and disk.calls[-2] == "open" else None
    )
    write(log, bodies(1, first=8))  # into the segment that was ready; no further one can be made
    assert log.space == "low"
    write(log, bodies(PER_SEGMENT - 1, first=9))  # the reserve
    full[0] = False
    log.trim(PER_SEGMENT)
    assert log.space == "plenty"
    write(log, bodies(20, first=15))
    log.close()
    assert [each.first_seq for each, _ in contents(disk.inner)] == list(range(8, 35))


def test_low_below_the_reserve_of_free_space() -> None:
    disk = FaultyDisk(SimulatedDisk())
    log = open_log(HOME, disk=disk, reserve_bytes=1 << 20)
    assert log.space == "plenty"
    disk.free = (1 << 20) - 1
    write(log, bodies(PER_SEGMENT + 1))
    assert log.space == "low"
    disk.free = 1 << 30
    write(log, bodies(PER_SEGMENT, first=9))
    assert log.space == "plenty"
    log.close()


def test_no_segment_is_made_of_the_reserve() -> None:
    """One byte less than a segment on top of it: what is left is for what ends sessions."""
    disk = FaultyDisk(SimulatedDisk())
    log = open_log(HOME, disk=disk, reserve_bytes=1 << 20)
    assert len(segments(disk.inner)) == 2
    disk.free = (1 << 20) + 8 * SECTOR - 1
    write(log, bodies(PER_SEGMENT + 1))
    assert (log.space, len(segments(disk.inner))) == ("low", 2)
    disk.free += 1
    write(log, bodies(PER_SEGMENT, first=PER_SEGMENT + 2))
    assert (log.space, len(segments(disk.inner))) == ("plenty", 4)
    log.close()


def test_low_from_the_start_though_a_segment_is_ready() -> None:
    disk = FaultyDisk(SimulatedDisk())
    open_log(HOME, disk=disk).close()
    disk.free = 1000
    log = open_log(HOME, disk=disk, reserve_bytes=1001)
    assert len(segments(disk.inner)) == 2
    assert log.space == "low"
    log.close()


def test_without_any_space_left_it_is_poisoned() -> None:
    disk = FaultyDisk(SimulatedDisk())
    log = open_log(HOME, disk=disk)
    disk.fails = lambda name, number: errno.ENOSPC if zeroing(disk) else None
    write(log, bodies(2 * PER_SEGMENT))
    assert log.space == "low"
    with pytest.raises(LogPoisoned, match="No space left"):
        write(log, bodies(1, first=2 * PER_SEGMENT + 1))
    log.close()
    assert len(contents(disk.inner)) == 2 * PER_SEGMENT


def test_trimmed_segments_are_used_again_and_the_rest_given_back() -> None:
    disk = SimulatedDisk()
    log = open_log(HOME, disk=disk)
    for first in range(1, 20 * PER_SEGMENT, PER_SEGMENT):
        write(log, bodies(PER_SEGMENT, first=first))
        log.trim(log.tail.seq)
        assert len(segments(disk)) <= 5
    write(log, bodies(10 * PER_SEGMENT, first=log.tail.seq + 1))
    log.trim(log.tail.seq)
    assert len(segments(disk)) <= 3
    for data in list(segments(disk).values())[1:]:
        assert not any(data[SECTOR:]), "a segment ahead holds zeros only"
    log.close()


def test_a_full_disk_while_opening() -> None:
    disk = FaultyDisk(SimulatedDisk())
    disk.fails = lambda name, number: errno.ENOSPC if name == "pwritev" else None
    with pytest.raises(Exception, match="No space left"):
        open_log(HOME, disk=disk)
    disk.fails = lambda name, number: None
    assert contents(disk) == []


def test_a_look_at_the_space_that_a_signal_interrupts_is_repeated(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ask, answers = os.statvfs, [InterruptedError(errno.EINTR, "interrupted")]

    def statvfs(path: str) -> os.statvfs_result:
        if answers:
            raise answers.pop()
        return ask(path)

    monkeypatch.setattr(os, "statvfs", statvfs)
    assert OsDisk().free_bytes(str(tmp_path)) > 0
    assert not answers
