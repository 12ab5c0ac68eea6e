"""A log that begins in the middle: after the position of a checkpoint that a peer gave."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from tests.log.support import (
    HOME,
    SECTOR,
    FaultyDisk,
    bodies,
    contents,
    fill,
    open_log,
    restore,
    save,
    segments,
    write,
)
from truba.errors import DataDamaged, DataError, DataForeign, DataLocked, DataNewer, DataUnwritable
from truba.log.disk import Disk
from truba.log.inspect import frames, repair, verify
from truba.log.plant import plant
from truba.log.segment import HEADER_BYTES, SegmentHeader
from truba.testing.disk import SimulatedDisk
from truba.testing.log import batch
from truba.types import ORIGIN, Position

LOG_ID = b"sixteen bytes id"
BEGIN = Position(3, 70, b"chain of a peer.")


def planted(disk: Disk, begin: Position = BEGIN, path: Path = HOME) -> None:
    plant(path, LOG_ID, begin, segment_bytes=8 * SECTOR, disk=disk)


def after(count: int, first: int = 71, body_bytes: int = 100) -> list[Any]:
    return [batch(each.first_seq, term=3, body=each.body) for each in bodies(count, body_bytes, first)]


def test_it_is_empty_and_stands_where_the_checkpoint_ends() -> None:
    disk = SimulatedDisk()
    planted(disk)
    for _ in range(2):
        log = open_log(HOME, disk=disk, log_id=LOG_ID)
        assert log.tail == log.begin == BEGIN == log.position_at(70)
        assert log.log_id == LOG_ID
        assert log.size_bytes == 0
        assert list(log.read(70)) == []
        assert log.position_at(69) is log.position_at(71) is None
        with pytest.raises(DataDamaged, match="begins after seq 70"):
            log.read(0)
        for wrong in (batch(1, term=3), batch(70, term=3), batch(72, term=3), batch(71, term=2)):
            with pytest.raises(ValueError, match="cannot follow 3-70"):
                log.append(wrong, lambda error: None)
        log.trim(70)
        log.close()


def test_it_goes_on_as_the_log_that_the_checkpoint_was_taken_of() -> None:
    """Position by position, whatever was trimmed there: the chain is the same."""
    there, here = SimulatedDisk(1), SimulatedDisk(2)
    entries = fill(there, bodies(40), log_id=LOG_ID)
    planted(here, entries[19][1])
    assert fill(here, bodies(20, first=21)) == entries[20:]


@pytest.mark.parametrize("body_bytes", [100, 8 * SECTOR, 100_000])
def test_its_first_segment_is_left_behind_like_any_other(body_bytes: int) -> None:
    disk = SimulatedDisk()
    planted(disk)
    entries = fill(disk, after(30, body_bytes=body_bytes))
    assert [each for each, _ in entries] == after(30, body_bytes=body_bytes)
    log = open_log(HOME, disk=disk)
    log.trim(90)
    assert 70 < log.begin.seq <= 90
    write(log, after(30, first=101))
    begin = log.begin
    log.close()
    assert f"{HOME}/segment-0000000001.log" not in disk.files
    headers = [SegmentHeader.decode(data[:HEADER_BYTES], name) for name, data in segments(disk).items()]
    assert [header.begin for header in headers] == [None] * len(headers)
    log = open_log(HOME, disk=disk)
    assert log.begin == begin
    log.close()


def test_at_the_origin_it_is_a_log_like_any_other() -> None:
    one, other = SimulatedDisk(), SimulatedDisk()
    planted(one, ORIGIN)
    open_log(HOME, disk=other, log_id=LOG_ID).close()
    name = f"{HOME}/segment-0000000001.log"
    assert one.files[name].now == other.files[name].now


def test_only_a_log_that_begins_in_the_middle_needs_a_newer_reader() -> None:
    """An ordinary segment is what it always was; an older truba calls the other newer, not damaged."""
    plain = SegmentHeader(LOG_ID, 1, 4096).encode()
    fields = b"TRUBALOG" + b"\1\0\0\0" + b"\0\2\0\0" + LOG_ID + (1).to_bytes(8, "little") + (4096).to_bytes(8, "little")
    assert plain[:64] == fields + bytes.fromhex("3d0750c9971a53b33a7aa798ec622404")
    assert plain[64:] == bytes(448)
    begun = SegmentHeader(LOG_ID, 1, 4096, BEGIN).encode()
    assert begun[8:12] == b"\2\0\0\0"
    assert begun[64:96] == (3).to_bytes(8, "little") + (70).to_bytes(8, "little") + BEGIN.chain
    assert SegmentHeader.decode(begun, "segment-0000000001.log").begin == BEGIN


def test_every_flipped_bit_of_its_header_is_found() -> None:
    disk = SimulatedDisk()
    planted(disk)
    fill(disk, after(3))
    name = next(iter(segments(disk)))
    saved = save(disk)
    for at in range(HEADER_BYTES):
        for bit in (1, 128):
            restore(disk, saved)
            disk.files[name].now[at] ^= bit
            with pytest.raises((DataDamaged, DataNewer)):
                contents(disk)


@pytest.mark.parametrize("wrong", [Position(3, 71, BEGIN.chain), Position(2, 70, BEGIN.chain), Position(3, 70, LOG_ID)])
def test_frames_that_follow_something_else_are_damage(wrong: Position) -> None:
    disk = SimulatedDisk()
    planted(disk)
    fill(disk, after(3))
    data = next(iter(segments(disk).values()))
    data[:HEADER_BYTES] = SegmentHeader(LOG_ID, 1, len(data), wrong).encode()
    with pytest.raises(DataDamaged, match="the frame follows 3-70"):
        contents(disk)


def test_a_directory_that_holds_a_log_is_left_alone(tmp_path: Path) -> None:
    disk = SimulatedDisk()
    entries = fill(disk, bodies(3))
    with pytest.raises(DataForeign, match="holds a log already"):
        planted(disk)
    assert contents(disk) == entries
    log = open_log(tmp_path / "log")
    with pytest.raises(DataLocked):
        planted(FaultyDisk(), path=tmp_path / "log")
    log.close()


@pytest.mark.parametrize(
    ("log_id", "begin"), [(b"short", BEGIN), (LOG_ID, Position(1, 1, b"short")), (LOG_ID, Position(1, -1, LOG_ID))]
)
def test_what_no_log_can_be_planted_with(tmp_path: Path, log_id: bytes, begin: Position) -> None:
    with pytest.raises(ValueError, match=r"id has 16 bytes|can begin at"):
        plant(tmp_path / "log", log_id, begin)
    assert not (tmp_path / "log").exists()


def test_another_logs_id_is_refused() -> None:
    disk = SimulatedDisk()
    log = open_log(HOME, disk=disk, log_id=LOG_ID)
    assert log.log_id == LOG_ID
    write(log, bodies(3))
    log.close()
    before = save(disk)
    with pytest.raises(DataForeign, match=f"holds log {LOG_ID.hex()}, not log {bytes(16).hex()}: name"):
        open_log(HOME, disk=disk, log_id=bytes(16))
    assert {name: data for name, data in save(disk).items() if "LOCK" not in name} == {
        name: data for name, data in before.items() if "LOCK" not in name
    }
    with pytest.raises(ValueError, match="16 bytes"):
        open_log(HOME, disk=disk, log_id=b"short")
    assert len(contents(disk, log_id=LOG_ID)) == 3


def test_two_new_logs_have_two_ids(tmp_path: Path) -> None:
    ids = set()
    for name in ("one", "other"):
        log = open_log(tmp_path / name)
        ids.add(log.log_id)
        log.close()
    assert len(ids) == 2


@pytest.mark.parametrize("end", ["kill", "crash"])
def test_planting_that_dies_at_any_call_leaves_nothing_or_all(end: str) -> None:
    whole = nothing = 0
    for seed in range(3):
        for last in range(1, 40):
            disk = FaultyDisk(SimulatedDisk(seed))
            disk.fails = lambda name, number, last=last: 5 if number >= last else None  # type: ignore[misc]
            disk.half = True
            try:
                planted(disk)
                acknowledged = True
            except DataError:
                acknowledged = False
            getattr(disk.inner, end)()
            if segments(disk.inner):
                assert contents(disk.inner) == []
                log = open_log(HOME, disk=disk.inner)
                assert (log.tail, log.log_id) == (BEGIN, LOG_ID)
                log.close()
                whole += 1
            else:
                assert not acknowledged
                planted(disk.inner)
                assert contents(disk.inner) == []
                nothing += 1
            if acknowledged:
                break
        else:
            raise AssertionError("it never came to its end")
    assert whole >= 3
    assert nothing >= 10


def test_a_full_disk_is_told(tmp_path: Path) -> None:
    disk = FaultyDisk()
    disk.fails = lambda name, number: 28 if name == "pwritev" and number > 6 else None
    with pytest.raises(DataUnwritable, match="No space"):
        planted(disk, path=tmp_path / "log")
    assert [name for name in os.listdir(tmp_path / "log") if name != "LOCK"] == []  # noqa: PTH208
    planted(FaultyDisk(), path=tmp_path / "log")


@pytest.mark.parametrize("count", [0, 3, 30])
def test_it_can_be_looked_at(count: int) -> None:
    disk = SimulatedDisk()
    planted(disk)
    entries = fill(disk, after(count))
    report = verify(HOME, disk=disk)
    assert (report.sound, report.log_id, report.batches) == (True, LOG_ID, count)
    assert report.begin == BEGIN
    assert report.tail == (entries[-1][1] if entries else BEGIN)
    assert [(line.batch, line.position) for line in frames(HOME, disk)] == entries


def test_cut_at_its_first_frame_it_still_knows_where_it_begins() -> None:
    disk = SimulatedDisk()
    planted(disk)
    fill(disk, after(20))
    next(iter(segments(disk).values()))[SECTOR + 100] ^= 1
    assert repair(HOME, disk).tail == BEGIN
    fill(disk, after(5))
    assert [each.first_seq for each, _ in contents(disk)] == [71, 72, 73, 74, 75]
