"""Read a log for people: list its frames, verify its chain, repair it when an operator says so.

`frames` and `verify` change nothing and take no lock, so they work beside a running pipe. `repair` is the only function
of truba that gives up bytes that may have been acknowledged; nothing calls it but an operator.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from truba.errors import DataUnwritable
from truba.log.damage import Damage, LogDamaged
from truba.log.directory import Directory, refusing
from truba.log.disk import Disk, OsDisk
from truba.log.frame import SECTOR, Framing
from truba.log.recovery import Cut, first_position, read_frames, recover, written_end
from truba.log.segment import HEADER_BYTES, SegmentHeader, segment_number
from truba.ports.log import LogBatch
from truba.types import ORIGIN, Position

_LOOKS_MAX = 5  # a running pipe moves the log while it is read: trouble is reported once two looks agree on it
_TRIES_MAX = 100  # a look ends early when a segment is trimmed before it was read: on busy cores every third one


class FrameLine(NamedTuple):
    """One frame as it lies in the log."""

    segment: int
    offset: int
    size: int  # bytes, header and padding included
    batch: LogBatch
    position: Position


@dataclass(frozen=True, slots=True)
class Report:
    """What `verify` found. `torn` alone is no fault: the next start cuts it, since it was never acknowledged."""

    log_id: bytes  # empty: there is no log in the directory
    segments: int
    batches: int  # one frame each
    events: int
    frames_bytes: int
    begin: Position  # what the first frame follows; ORIGIN unless the log was trimmed, or begins in the middle
    tail: Position  # of the last whole frame before any damage
    torn: Cut | None
    damage: Damage | None

    @property
    def sound(self) -> bool:
        return self.damage is None


@dataclass(frozen=True, slots=True)
class Repair:
    """What `repair` did. `cut`: None if there was nothing to repair."""

    cut: Damage | None
    tail: Position
    kept: tuple[Path, ...]  # files that hold what was cut


def frames(path: Path, disk: Disk | None = None) -> Iterator[FrameLine]:
    """The log's frames in order, each verified. Ends before a torn tail; raises DataDamaged where there is damage."""
    with refusing(path):
        directory = Directory(path, disk or OsDisk())
    try:
        headers = directory.headers()
        if not headers:
            return
        framing = Framing(headers[0].log_id)
        live, later = directory.find_live(framing, headers)
        damage: Damage | None = None
        try:
            through = recover(framing, live, later).position.seq
        except LogDamaged as error:
            through, damage = _ENDLESS, error.damage  # what comes before the damage is shown first
        try:
            for header, frame in read_frames(framing, headers, directory.load, through):
                yield FrameLine(header.number, frame.offset, frame.end - frame.offset, frame.batch, frame.position)
        except LogDamaged as error:
            raise LogDamaged(_first(damage, error.damage)) from error
    except FileNotFoundError as error:
        raise DataUnwritable(f"the log in {path} was trimmed while it was read; read it again") from error
    finally:
        directory.close()


def verify(
    path: Path, progress: Callable[[int, int], None] = lambda done_bytes, all_bytes: None, disk: Disk | None = None
) -> Report:
    """Check the whole log. Raises DataForeign or DataNewer, but tells of damage in the report."""
    with refusing(path):
        directory = Directory(path, disk or OsDisk())
    try:
        report: Report | None = None
        looks = 0
        for _ in range(_TRIES_MAX):
            before = report
            try:
                report = _look(directory, progress)
            except FileNotFoundError:
                continue  # a segment was recycled under our eyes
            looks += 1
            if looks == _LOOKS_MAX or (report.damage is None and report.torn is None):
                break
            if before is not None and (before.damage, before.torn) == (report.damage, report.torn):
                break
        if report is None:
            raise DataUnwritable(f"the log in {path} changes too fast to be read; stop the pipe and verify again")
        return report
    finally:
        directory.close()


def repair(path: Path, disk: Disk | None = None) -> Repair:
    """Cut the log at its first damage, after keeping every byte from there on aside. Takes the lock.

    What is cut may have been acknowledged: the operator decides that a shorter log is better than none. Where the
    first segment itself is lost, so is the log: nothing is left of it, and `tail` is ORIGIN.
    """
    directory = Directory.create(path, disk or OsDisk())
    try:
        with refusing(path):
            report = _look(directory, lambda done_bytes, all_bytes: None)
            if report.damage is None:
                return Repair(None, report.tail, ())
            kept = _cut_at(directory, report)
            after = _look(directory, lambda done_bytes, all_bytes: None)
            if after.damage is not None and after.tail == ORIGIN:
                # Not one frame is left to say where the log ends.
                for name in directory.names():
                    directory.drop_segment(segment_number(name) or 0)
                after = _look(directory, lambda done_bytes, all_bytes: None)
            if after.damage is not None:
                raise LogDamaged(after.damage)
            return Repair(report.damage, after.tail, tuple(kept))
    finally:
        directory.close()


_ENDLESS = 2**64


def _look(directory: Directory, progress: Callable[[int, int], None]) -> Report:
    """Read the whole log once."""
    headers, damage = directory.sound_headers()
    if not headers:
        return Report(b"", 0, 0, 0, 0, ORIGIN, ORIGIN, None, damage)
    framing = Framing(headers[0].log_id)
    torn, through = None, _ENDLESS
    begin = tail = ORIGIN
    batches = events = frames_bytes = 0
    all_bytes, at = sum(header.size for header in headers), 0
    try:
        live, later = directory.find_live(framing, headers)
        found = recover(framing, live, later)
        through = found.position.seq
        # Where a later segment is bad, the end of those before it is not the end of the log.
        torn = None if damage else found.cut
    except LogDamaged as error:
        damage = error.damage
    try:
        begin = tail = first_position(framing, directory.peek(headers[0], HEADER_BYTES + SECTOR))
        for header, frame in read_frames(framing, headers, directory.load, through):
            batches += 1
            events += frame.batch.count
            frames_bytes += frame.end - frame.offset
            tail = frame.position
            if header.number != at:
                at = header.number
                progress(sum(before.size for before in headers if before.number < at), all_bytes)
    except LogDamaged as error:
        damage = _first(damage, error.damage)
    progress(all_bytes, all_bytes)
    return Report(headers[0].log_id, len(headers), batches, events, frames_bytes, begin, tail, torn, damage)


def _first(recovered: Damage | None, read: Damage) -> Damage:
    """The first bad place. Recovery knows better why it is bad, and alone knows of a file that is too short."""

    def place(damage: Damage) -> tuple[int, int]:
        return segment_number(damage.name) or 0, damage.offset

    return read if recovered is None or place(read) < place(recovered) else recovered


def _cut_at(directory: Directory, report: Report) -> list[Path]:
    damage = report.damage
    assert damage is not None
    number = segment_number(damage.name)
    assert number is not None
    kept = []
    for name in reversed(directory.names()):
        later = segment_number(name) or 0
        if later < number:
            break
        data = directory.bytes_of(name)
        if later > number or damage.offset < HEADER_BYTES:
            kept.append(directory.set_aside(name, damage.seq))
        else:
            end = written_end(data)
            kept.append(
                directory.cut(Cut(number, damage.offset, max(end, damage.offset), damage.seq, damage.reason), data)
            )
            header = SegmentHeader.decode(data[:HEADER_BYTES], name)
            if len(data) < header.size:
                directory.fill_up(header, len(data))
    return kept
