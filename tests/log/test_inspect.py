"""Reading a log for people, beside a running pipe, and repairing one."""

from __future__ import annotations

import errno
from pathlib import Path

import pytest

from tests.log.support import HOME, SECTOR, FaultyDisk, bodies, contents, fill, open_log, save, segments, write
from truba.errors import DataDamaged, DataForeign, DataLocked, DataUnwritable
from truba.log.inspect import frames, repair, verify
from truba.testing.disk import SimulatedDisk
from truba.types import ORIGIN


def test_frames_as_they_lie() -> None:
    disk = SimulatedDisk()
    entries = fill(disk, bodies(10, 600))
    lines = list(frames(HOME, disk))
    assert [(line.batch, line.position) for line in lines] == entries
    assert [(line.segment, line.offset, line.size) for line in lines[:4]] == [
        (1, 512, 1024),
        (1, 1536, 1024),
        (1, 2560, 1024),
        (2, 512, 1024),
    ]


def test_a_sound_log() -> None:
    disk = SimulatedDisk()
    entries = fill(disk, bodies(30, 600))
    before = save(disk)
    seen: list[tuple[int, int]] = []
    report = verify(HOME, lambda done_bytes, all_bytes: seen.append((done_bytes, all_bytes)), disk)
    assert report.sound
    assert report.torn is None
    assert (report.batches, report.events, report.frames_bytes) == (30, 30, 30 * 1024)
    assert (report.begin, report.tail) == (ORIGIN, entries[-1][1])
    assert seen == sorted(seen)
    assert seen[-1][0] == seen[-1][1]
    assert save(disk) == before


def test_an_empty_directory_and_none() -> None:
    disk = SimulatedDisk()
    with pytest.raises(DataUnwritable):
        verify(HOME, disk=disk)
    disk.mkdir(str(HOME), 0o700)
    assert verify(HOME, disk=disk).segments == 0
    assert list(frames(HOME, disk)) == []
    disk.files[f"{HOME}/other"] = next(iter(SimulatedDisk().files.values()), None)  # type: ignore[assignment]
    with pytest.raises(DataForeign):
        verify(HOME, disk=disk)


def test_a_trimmed_log_begins_later() -> None:
    disk = SimulatedDisk()
    fill(disk, bodies(30))
    log = open_log(HOME, disk=disk)
    log.trim(20)
    begin = log.begin
    log.close()
    report = verify(HOME, disk=disk)
    assert report.sound
    assert report.begin == begin
    assert report.batches == 30 - begin.seq


def test_a_torn_tail_is_told_and_left_alone() -> None:
    disk = SimulatedDisk()
    entries = fill(disk, bodies(5, 600), segment_bytes=16 * SECTOR)
    name = next(iter(segments(disk)))
    disk.files[name].now[SECTOR + 4 * 1024 + SECTOR : SECTOR + 5 * 1024] = bytes(SECTOR)
    before = save(disk)
    report = verify(HOME, disk=disk)
    assert report.sound
    assert report.torn is not None
    assert (report.torn.first_seq, report.batches, report.tail) == (5, 4, entries[3][1])
    assert len(list(frames(HOME, disk))) == 4
    assert repair(HOME, disk).cut is None
    assert {name: data for name, data in save(disk).items() if not name.endswith("LOCK")} == {
        name: data for name, data in before.items() if not name.endswith("LOCK")
    }


@pytest.mark.parametrize("seq", [1, 2, 7, 8, 15, 20])
def test_damage_is_told_with_its_place_and_repaired(seq: int) -> None:
    disk = SimulatedDisk()
    entries = fill(disk, bodies(20))  # seven to a segment
    number, place = (seq - 1) // 7 + 1, ((seq - 1) % 7 + 1) * SECTOR
    name = f"segment-{number:010d}.log"
    disk.files[f"{HOME}/{name}"].now[place + 100] ^= 1
    before = save(disk)
    report = verify(HOME, disk=disk)
    assert not report.sound
    assert report.damage is not None
    assert report.damage[:3] == (name, place, seq)
    assert report.batches == seq - 1
    assert report.tail.seq == seq - 1
    shown = []
    with pytest.raises(DataDamaged, match=f"{name}, offset {place}, seq {seq}"):
        shown.extend(frames(HOME, disk))
    with pytest.raises(DataDamaged, match=f"{name}, offset {place}, seq {seq}"):
        contents(disk)
    assert {name: data for name, data in save(disk).items() if "LOCK" not in name} == {
        name: data for name, data in before.items() if "LOCK" not in name
    }
    done = repair(HOME, disk)
    assert done.cut == report.damage
    assert done.tail == report.tail
    kept = b"".join(bytes(disk.files[str(path)].now) for path in reversed(done.kept))
    for each, _ in entries[seq:]:
        assert each.body in kept
    assert contents(disk) == entries[: seq - 1]
    log = open_log(HOME, disk=disk)
    write(log, bodies(20, first=seq))
    log.close()
    assert verify(HOME, disk=disk).batches == seq + 19


@pytest.mark.parametrize(
    ("what", "number"), [("header", 1), ("header", 2), ("header", 3), ("missing", 2), ("missing", 3)]
)
def test_a_segment_without_its_header_or_itself(what: str, number: int) -> None:
    disk = SimulatedDisk()
    entries = fill(disk, bodies(20))
    name = f"{HOME}/segment-{number:010d}.log"
    if what == "header":
        disk.files[name].now[20] ^= 4
    else:
        disk.unlink(name)
    report = verify(HOME, disk=disk)
    assert report.damage is not None
    assert report.damage.name in name
    assert report.batches == (number - 1) * 7
    with pytest.raises(DataDamaged):
        contents(disk)
    done = repair(HOME, disk)
    assert done.tail.seq == (number - 1) * 7
    assert contents(disk) == entries[: (number - 1) * 7]


def test_verify_beside_a_running_log(tmp_path: Path) -> None:
    log = open_log(tmp_path / "log")
    write(log, bodies(20))
    assert verify(tmp_path / "log").batches == 20
    assert len(list(frames(tmp_path / "log"))) == 20
    write(log, bodies(20, first=21))
    assert verify(tmp_path / "log").tail == log.tail
    with pytest.raises(DataLocked):
        repair(tmp_path / "log")
    log.close()


@pytest.mark.parametrize("trims", [5, 60])
def test_a_log_that_is_trimmed_at_every_look_is_looked_at_again(trims: int) -> None:
    """Segments that vanish before they were read are no trouble of the log, however often it happens."""
    disk = FaultyDisk(SimulatedDisk())
    fill(disk, bodies(20))
    opens: list[str] = []

    def vanish(name: str, number: int) -> int | None:
        if name == "open":
            opens.append(name)
        return errno.ENOENT if name == "open" and 1 < len(opens) <= 1 + trims else None

    disk.fails = vanish
    assert verify(HOME, disk=disk).batches == 20


def test_a_log_that_never_holds_still_is_told() -> None:
    disk = FaultyDisk(SimulatedDisk())
    fill(disk, bodies(20))
    before = len(disk.calls)
    disk.fails = lambda name, number: errno.ENOENT if number > before + 1 else None
    with pytest.raises(DataUnwritable, match="changes too fast"):
        verify(HOME, disk=disk)


def test_nothing_to_repair() -> None:
    disk = SimulatedDisk()
    entries = fill(disk, bodies(20))
    done = repair(HOME, disk)
    assert (done.cut, done.tail, done.kept) == (None, entries[-1][1], ())
