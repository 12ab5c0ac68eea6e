"""A stretch of a log: read beside the pipe that writes it, and written as a log of its own."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from truba.errors import DataDamaged
from truba.log import excerpt, inspect
from truba.log.excerpt import log_id_of, read_between, write_excerpt
from truba.log.file import FileLog
from truba.ports.log import LogBatch
from truba.types import ORIGIN, Position


def sure(error: BaseException | None) -> None:
    assert error is None


def append(log: FileLog, seq: int, size: int = 700) -> None:
    log.append(LogBatch(1, seq, 2, bytes([seq % 255 + 1]) * size), sure)


@pytest.fixture
def log(tmp_path: Path) -> Iterator[FileLog]:
    """Ten batches of two events, a few to a segment."""
    log = FileLog.open(tmp_path / "log", segment_bytes=4096, reserve_bytes=0, commit="inline", housekeeping="inline")
    for at in range(10):
        append(log, 1 + 2 * at)
    yield log
    log.close()


def positions(log: FileLog) -> list[Position]:
    return [log.begin, *(position for _, position in log.read(log.begin.seq))]


def test_between_any_two_places(log: FileLog, tmp_path: Path) -> None:
    places = positions(log)
    whole = [batch for batch, _ in log.read(0)]
    for start, after in enumerate(places):
        for end, through in enumerate(places[start:], start):
            assert [frame.batch for frame in read_between(tmp_path / "log", after, through)] == whole[start:end]


def test_what_was_written_since_is_not_looked_at(log: FileLog, tmp_path: Path) -> None:
    places = positions(log)
    reader = read_between(tmp_path / "log", places[2], places[8])
    seen = [next(reader).batch.first_seq]
    for at in range(10, 20):
        append(log, 1 + 2 * at)
    seen += [frame.batch.first_seq for frame in reader]
    assert seen == [5, 7, 9, 11, 13, 15]


def test_what_was_trimmed_before_it_does_not_matter(log: FileLog, tmp_path: Path) -> None:
    places = positions(log)
    reader = read_between(tmp_path / "log", places[6], places[10])
    first = next(reader).batch.first_seq
    log.trim(places[6].seq)
    assert [first, *(frame.batch.first_seq for frame in reader)] == [13, 15, 17, 19]
    with pytest.raises(DataDamaged, match="no event 1 any more"):
        list(read_between(tmp_path / "log", ORIGIN, places[10]))


def test_places_that_it_does_not_lead_to_are_refused(log: FileLog, tmp_path: Path) -> None:
    places = positions(log)
    for after, through in (
        (places[2]._replace(chain=bytes(16)), places[8]),
        (places[2], places[8]._replace(chain=bytes(16))),
        (places[2], Position(1, 100, bytes(16))),
        (Position(1, 5, places[2].chain), places[8]),
    ):
        with pytest.raises(DataDamaged):
            list(read_between(tmp_path / "log", after, through))


def test_a_directory_without_a_log_is_told(tmp_path: Path) -> None:
    (tmp_path / "log").mkdir()
    with pytest.raises(DataDamaged, match="holds no log"):
        log_id_of(tmp_path / "log")


@pytest.mark.parametrize("start", [0, 3, 10])
@pytest.mark.parametrize("segment_bytes", [1, 5000, 1 << 20])
def test_what_is_written_is_a_log_that_goes_on_there(
    log: FileLog, start: int, segment_bytes: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(excerpt, "SEGMENT_BYTES", segment_bytes)
    places = positions(log)
    after, through = places[start], places[-1]
    batches = [batch for batch, _ in log.read(after.seq)]
    assert write_excerpt(tmp_path / "copy", log.log_id, after, batches) == through
    report = inspect.verify(tmp_path / "copy")
    assert (report.sound, report.torn, report.begin, report.tail) == (True, None, after, through)
    assert report.segments == (max(1, len(batches)) if segment_bytes == 1 else report.segments)
    assert [frame.batch for frame in read_between(tmp_path / "copy", after, through)] == batches
    assert log_id_of(tmp_path / "copy") == log.log_id
    copy = FileLog.open(tmp_path / "copy", reserve_bytes=0, commit="inline", housekeeping="inline", segment_bytes=4096)
    assert (copy.begin, copy.tail) == (after, through)
    append(copy, through.seq + 1)
    copy.close()
    assert inspect.verify(tmp_path / "copy").tail.seq == through.seq + 2


def test_it_never_writes_over_anything(log: FileLog, tmp_path: Path) -> None:
    with pytest.raises(FileExistsError):
        write_excerpt(tmp_path / "log", log.log_id, ORIGIN, [])
