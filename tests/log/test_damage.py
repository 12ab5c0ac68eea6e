"""Bytes that are not what was written are never served, and the end of the log is never cut on their account."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.log.support import HOME, SECTOR, Entries, bodies, contents, fill, open_log, restore, save, segments, write
from truba.errors import DataDamaged, DataError
from truba.log.inspect import repair
from truba.testing.disk import SimulatedDisk
from truba.testing.log import batch
from truba.types import ORIGIN

SEGMENT = 8 * SECTOR


def three_segments() -> tuple[SimulatedDisk, Entries]:
    """Segments 1 and 2 full of frames of different sizes, 3 with two frames, 4 empty."""
    disk = SimulatedDisk()
    sizes = [100, 900, 50, 1000, 700, 10, 1200, 400, 420, 300]
    batches = [batch(seq, body=bytes([seq]) * size) for seq, size in enumerate(sizes, 1)]
    entries = fill(disk, batches, segment_bytes=SEGMENT)
    assert [len(data) for data in segments(disk).values()] == [SEGMENT] * 4
    return disk, entries


def frame_ends(data: bytes | bytearray) -> list[int]:
    """Where frames end, told by their last bytes; the header's end first."""
    return [SECTOR] + [
        at + SECTOR for at in range(0, len(data), SECTOR) if data[at + SECTOR - 8 : at + SECTOR] == b"TRUBAEND"
    ]


def flips(data: bytearray) -> Iterator[tuple[int, int]]:
    """Every byte once, each with another bit, and with all bits."""
    for at in range(len(data)):
        yield at, 1 << (at * 5 % 8)
        if data[at]:
            yield at, 0xFF


@pytest.mark.parametrize("number", [1, 2, 3, 4])
def test_a_flipped_byte_is_damage_or_changes_nothing(number: int) -> None:
    disk, entries = three_segments()
    name = f"{HOME}/segment-{number:010d}.log"
    data = disk.files[name].now
    saved = save(disk)
    refused = 0
    for at, mask in flips(data):
        if at % 4 and mask != 0xFF and not data[at]:
            continue  # unwritten space: a quarter of it is enough
        data[at] ^= mask
        try:
            found = contents(disk, segment_bytes=SEGMENT)
        except DataDamaged:
            refused += 1
            data[at] ^= mask
        else:
            assert found == entries, at
            restore(disk, saved)
            data = disk.files[name].now
    assert refused > SECTOR / 8


def test_every_bit_of_the_last_acknowledged_frame() -> None:
    disk = SimulatedDisk()
    fill(disk, [batch(1, body=b"first"), batch(2, body=b"last" * 100)], segment_bytes=SEGMENT)
    data = next(iter(segments(disk).values()))
    for at in range(2 * SECTOR, 3 * SECTOR):
        for bit in range(8):
            data[at] ^= 1 << bit
            with pytest.raises(DataDamaged, match="offset 1024, seq 2"):
                contents(disk)
            data[at] ^= 1 << bit


@pytest.mark.parametrize("number", [1, 2])
def test_a_sector_of_zeros_before_the_last_frame_is_damage(number: int) -> None:
    disk, _ = three_segments()
    data = disk.files[f"{HOME}/segment-{number:010d}.log"].now
    ends = frame_ends(data)
    for at in range(0, ends[-1], SECTOR):
        kept = bytes(data)
        data[at : at + SECTOR] = bytes(SECTOR)
        with pytest.raises(DataDamaged):
            contents(disk)
        data[:] = kept


@pytest.mark.parametrize(
    ("sector", "garbage"),
    [
        (0, b"\xaa" * 511 + b"\0"),
        (0, b"\xaa" * 94 + bytes(418)),
        (2, b"\xaa" * 511 + b"\0"),
        (2, b"\xaa" * 505 + b"TRUBAE\0"),
    ],
)
def test_garbage_that_ends_in_zeros_does_not_pass_for_unwritten_space(sector: int, garbage: bytes) -> None:
    """A write that went astray onto the first or the last sector of the last acknowledged frame."""
    disk = SimulatedDisk()
    fill(disk, [batch(1, body=b"a"), batch(2, body=b"b" * 1200)])
    data = next(iter(segments(disk).values()))
    start = (2 + sector) * SECTOR
    data[start : start + SECTOR] = garbage
    with pytest.raises(DataDamaged, match="offset 1024, seq 2"):
        contents(disk)


def test_a_sector_of_zeros_in_the_live_segment_is_torn_only_in_the_last_frame() -> None:
    disk = SimulatedDisk()
    entries = fill(disk, bodies(6, 600), segment_bytes=20 * SECTOR)
    name, data = next(iter(segments(disk).items()))
    saved, ends = save(disk), frame_ends(data)
    assert len(ends) == 7
    for at in range(SECTOR, ends[-1], SECTOR):
        restore(disk, saved)
        disk.files[name].now[at : at + SECTOR] = bytes(SECTOR)
        if at < ends[-2]:
            with pytest.raises(DataDamaged, match="yet a later frame"):
                contents(disk)
            assert save(disk) == {**saved, name: bytes(disk.files[name].now)}, "a refusal changes nothing"
        else:
            assert contents(disk) == entries[:-1]


@pytest.mark.parametrize("number", [3, 4])
def test_a_file_that_has_become_shorter_is_damage(number: int) -> None:
    """Wherever it ends, even between two frames: a crash leaves zeros there, and the file as long as it was made."""
    disk, entries = three_segments()
    name = f"{HOME}/segment-{number:010d}.log"
    saved = save(disk)
    whole = [sum(end <= at for end in frame_ends(saved[name])) - 1 for at in range(SEGMENT + 1)]
    for cut in {*range(0, SEGMENT, 7), *range(0, SEGMENT, SECTOR), SEGMENT - 1}:
        disk.files[name].now[:] = saved[name][:cut]
        with pytest.raises(DataDamaged, match=f"the file has {cut} bytes, and had 4096" if cut >= SECTOR else "header"):
            contents(disk, segment_bytes=SEGMENT)
        assert disk.files[name].now == saved[name][:cut], "a refusal changes nothing"
    for cut in range(SECTOR, SEGMENT, 100):
        # An operator's repair gives up what is missing, and nothing else.
        restore(disk, {**saved, name: saved[name][:cut]})
        repair(HOME, disk)
        lost = whole[SEGMENT] - whole[cut]
        assert contents(disk, segment_bytes=SEGMENT) == entries[: len(entries) - lost]
        assert len(disk.files[name].now) == SEGMENT


def test_frames_swapped_repeated_or_dropped() -> None:
    disk = SimulatedDisk()
    entries = fill(disk, bodies(5), segment_bytes=SEGMENT)
    name, data = next(iter(segments(disk).items()))
    saved = save(disk)
    frames = [bytes(data[at : at + SECTOR]) for at in range(SECTOR, 6 * SECTOR, SECTOR)]
    orders = [
        [0, 2, 1, 3, 4],
        [0, 1, 2, 4, 3],
        [4, 3, 2, 1, 0],
        [0, 1, 2, 3, 4, 4],
        [0, 1, 2, 3, 4, 0],
        [0, 1, 3, 4],
        [1, 2, 3, 4],
    ]
    for order in orders:
        restore(disk, saved)
        disk.files[name].now[SECTOR:] = b"".join(frames[i] for i in order).ljust(7 * SECTOR, b"\0")
        with pytest.raises(DataDamaged):
            contents(disk)
    restore(disk, saved)
    assert contents(disk) == entries


def test_segments_swapped_repeated_or_dropped() -> None:
    disk, entries = three_segments()
    saved = save(disk)
    names = list(segments(disk))

    def refused() -> None:
        with pytest.raises(DataDamaged):
            contents(disk)
        restore(disk, saved)

    disk.files[names[0]].now, disk.files[names[1]].now = disk.files[names[1]].now, disk.files[names[0]].now
    refused()
    disk.files[names[3]].now[:] = saved[names[0]]
    refused()
    for gone in (1, 2):
        disk.unlink(names[gone])
        refused()
    # A log that lacks its first segment looks like a trimmed one: whoever needs what was there is refused.
    disk.unlink(names[0])
    log = open_log(HOME, disk=disk)
    assert log.begin.seq > 0
    with pytest.raises(DataDamaged, match="trimmed"):
        log.read(0)
    log.close()
    restore(disk, saved)
    assert contents(disk) == entries


def test_the_end_of_an_earlier_segment_cannot_vanish() -> None:
    """Frames before the live segment are checked when they are read: the next segment tells what they led to."""
    disk, _ = three_segments()
    data = disk.files[f"{HOME}/segment-0000000002.log"].now
    ends = frame_ends(data)
    data[ends[-2] :] = bytes(len(data) - ends[-2])
    with pytest.raises(DataDamaged, match="follows"):
        contents(disk)


def test_recycled_bytes_never_look_valid() -> None:
    """A segment that kept its old frames under a new header (zeros that were never written) is refused, not read."""
    disk = SimulatedDisk()
    fill(disk, bodies(20))
    names = list(segments(disk))
    old = bytes(disk.files[names[0]].now)
    empty = disk.files[names[-1]].now
    empty[SECTOR:] = old[SECTOR:]
    with pytest.raises(DataDamaged, match="was written for segment 1"):
        contents(disk)


def test_a_segment_of_another_log_is_foreign() -> None:
    disk, other = SimulatedDisk(1), SimulatedDisk(2)
    fill(disk, bodies(20))
    fill(other, bodies(20))
    name = list(segments(disk))[1]
    disk.files[name].now[:] = other.files[name].now
    with pytest.raises(DataError, match="belongs to another log"):
        contents(disk)


def test_two_torn_places_are_damage() -> None:
    disk, _ = three_segments()
    names = list(segments(disk))
    disk.files[names[2]].now[-SECTOR] = 1
    disk.files[names[3]].now[SECTOR] = 1
    with pytest.raises(DataDamaged):
        contents(disk)


def test_a_torn_first_frame_of_a_segment_leaves_the_one_before_in_use() -> None:
    disk = SimulatedDisk()
    entries = fill(disk, bodies(6), segment_bytes=SEGMENT)  # one sector is left in segment 1
    log = open_log(HOME, disk=disk)
    write(log, [batch(7, body=b"x" * 1000)])
    log.close()
    second = disk.files[f"{HOME}/segment-0000000002.log"].now
    second[2 * SECTOR : 3 * SECTOR] = bytes(SECTOR)
    log = open_log(HOME, disk=disk)
    assert log.cut is not None
    assert (log.cut.number, log.cut.first_seq) == (2, 7)
    assert log.tail == entries[-1][1]
    write(log, [batch(7, body=b"fits into segment 1"), batch(8, body=b"y" * 1000)])
    log.close()
    assert [each.first_seq for each, _ in contents(disk)] == list(range(1, 9))


def test_reading_a_log_that_changes_under_us_is_damage() -> None:
    disk = SimulatedDisk()
    fill(disk, bodies(3))
    log = open_log(HOME, disk=disk)
    next(iter(segments(disk).values()))[SECTOR + 200] ^= 1
    with pytest.raises(DataDamaged, match="seq 1"):
        list(log.read(0))
    assert log.position_at(0) == ORIGIN
    log.close()
