"""A stretch of a log: read from a directory that a running pipe goes on writing to, and written as a log of its own.

Reading changes nothing and takes no lock; whoever reads names both ends, and knows that both are durable and will not
be trimmed meanwhile. What is written has no zeros and no room: the frames, in segments that end where they end.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from itertools import chain
from pathlib import Path

from truba.errors import DataDamaged
from truba.log.damage import LogDamaged
from truba.log.directory import Directory, refusing
from truba.log.disk import Disk, OsDisk, write_all
from truba.log.frame import SECTOR, Frame, Framing
from truba.log.recovery import first_position, read_frames
from truba.log.segment import HEADER_BYTES, SegmentHeader, segment_name
from truba.ports.log import LogBatch
from truba.types import ORIGIN, Position

SEGMENT_BYTES = 32 << 20
"""About how long a written segment becomes."""

SEGMENT_BYTES_MIN = HEADER_BYTES + 4 * SECTOR


def log_id_of(path: Path, disk: Disk | None = None) -> bytes:
    """The id of the log in that directory. DataDamaged: there is none."""
    with refusing(path):
        directory = Directory(path, disk or OsDisk())
    try:
        return _newest(directory).log_id
    finally:
        directory.close()


def read_between(path: Path, after: Position, through: Position, disk: Disk | None = None) -> Iterator[Frame]:
    """The frames after `after` through `through`, each verified. DataDamaged: the log does not lead from one to the
    other."""
    if after == through:
        return
    with refusing(path):
        directory = Directory(path, disk or OsDisk())
    try:
        headers = _headers(directory, after)
        framing = Framing(headers[0].log_id)
        at = first_position(framing, directory.peek(headers[0], HEADER_BYTES + SECTOR))
        begun = False
        for _, frame in read_frames(framing, headers, directory.load, through.seq):
            if not begun and frame.position.seq > after.seq:
                if at != after:
                    break
                begun = True
            at = frame.position
            if begun:
                yield frame
        if at != through:
            raise _elsewhere(path, after, through)
    finally:
        directory.close()


def write_excerpt(
    path: Path, log_id: bytes, begin: Position, batches: Iterable[LogBatch], disk: Disk | None = None
) -> Position:
    """Make the directory, with a log of these batches after `begin`; where it leads. Durable, files and names, except
    for the name of the directory itself. FileExistsError, OSError."""
    disk = disk or OsDisk()
    disk.mkdir(str(path), 0o700)
    directory = Directory(path, disk)
    try:
        framing, at = Framing(log_id), begin
        waiting = iter(batches)
        for number in range(1, 1 << 32):
            first = next(waiting, None)
            if first is None and number > 1:
                break
            at = _write_segment(directory, framing, number, at, () if first is None else chain((first,), waiting))
        directory.sync()
        return at
    finally:
        directory.close()


def _write_segment(
    directory: Directory, framing: Framing, number: int, begin: Position, batches: Iterable[LogBatch]
) -> Position:
    disk, offset, at = directory.disk, HEADER_BYTES, begin
    fd = disk.open(directory.file(segment_name(number)), os.O_RDWR | os.O_CREAT | os.O_EXCL)
    try:
        for batch in batches:
            parts, size, linked = framing.encode(number, at, batch)
            write_all(disk, fd, parts, offset)
            at = Position(batch.term, batch.last_seq, linked)
            offset += size
            if offset >= SEGMENT_BYTES:
                break
        if offset < SEGMENT_BYTES_MIN:
            write_all(disk, fd, [bytes(SEGMENT_BYTES_MIN - offset)], offset)
        size = max(offset, SEGMENT_BYTES_MIN)
        told = begin if number == 1 and begin != ORIGIN else None
        write_all(disk, fd, [SegmentHeader(framing.log_id, number, size, told).encode()], 0)
        disk.fsync(fd)
    finally:
        disk.close(fd)
    return at


def _headers(directory: Directory, after: Position) -> list[SegmentHeader]:
    """From the segment that holds what follows `after` to the last that holds anything. Looks at no earlier one: they
    may be trimmed at any moment."""
    found: list[SegmentHeader] = []
    for name in reversed(directory.names()):
        header = directory.header(name)
        found.insert(0, header)
        try:
            if first_position(Framing(header.log_id), directory.peek(header, HEADER_BYTES + SECTOR)).seq <= after.seq:
                return found
        except LogDamaged:
            continue  # nothing was written to it yet; if there was, reading the one before ends too early, and says so
    raise DataDamaged(f"the log in {directory.path} has no event {after.seq + 1} any more")


def _newest(directory: Directory) -> SegmentHeader:
    names = directory.names()
    if not names:
        raise DataDamaged(f"{directory.path} holds no log")
    return directory.header(names[-1])


def _elsewhere(path: Path, after: Position, through: Position) -> DataDamaged:
    return DataDamaged(
        f"the log in {path} does not lead from {after.term}-{after.seq} ({after.chain.hex()}) to"
        f" {through.term}-{through.seq} ({through.chain.hex()})"
    )
