"""Open what is in a log's directory: find its end, mend what a crash left, begin a log where there is none.

Acts on what `recovery` decides, and makes durable whatever it believes. Never reads more than the last segments.
"""

from __future__ import annotations

from collections import deque
from pathlib import Path
from typing import NamedTuple

from truba.errors import DataForeign
from truba.log.directory import Directory
from truba.log.frame import SECTOR, Framing
from truba.log.recovery import Cut, Loaded, Recovered, first_position, recover
from truba.log.segment import HEADER_BYTES, SegmentHeader
from truba.types import Position

FIRST_SEGMENT_BYTES_MAX = 4 << 20  # the first segment is made before the log is open: an empty directory must be quick


class Kept(NamedTuple):
    """A segment that holds frames: what its first one follows, and how many bytes of frames there are (at most)."""

    header: SegmentHeader
    begin: Position
    frames_bytes: int


class Opened(NamedTuple):
    framing: Framing
    kept: list[Kept]  # in order; the last one is the live segment
    tail: Position
    ahead: deque[tuple[SegmentHeader, int]]  # empty segments after it, with their descriptors
    cut: Cut | None  # the torn tail that was found
    cut_kept: Path | None  # where its bytes are now


def check_options(segment_bytes: int, log_id: bytes | None = None) -> None:
    """ValueError for what no log can be made with."""
    if segment_bytes % SECTOR or segment_bytes < 4 * SECTOR:
        raise ValueError(f"segment_bytes must be a multiple of {SECTOR} from {4 * SECTOR} on, not {segment_bytes}")
    if log_id is not None and len(log_id) != 16:
        raise ValueError(f"a log's id has 16 bytes, not {len(log_id)}")


def open_directory(directory: Directory, segment_bytes: int, log_id: bytes | None = None) -> Opened:
    """Recover the log in a locked directory, which has this id (None: any). Raises DataError or OSError."""
    headers = directory.headers()
    if headers and log_id not in (None, headers[0].log_id):
        raise DataForeign(
            f"{directory.path} holds log {headers[0].log_id.hex()}, not log {(log_id or b'').hex()}: name the directory"
            " of that log, or move this one aside to begin with an empty one"
        )
    directory.drop_temporary()
    directory.sync()  # a segment may have got its name just before the process was killed
    if not headers:
        headers = [make_first(directory, log_id or directory.disk.random(16), segment_bytes)]
    framing = Framing(headers[0].log_id)
    live, later = directory.find_live(framing, headers)
    found = recover(framing, live, later)
    cut_kept = _mend(directory, found, [live, *later])
    kept = [
        Kept(header, first_position(framing, directory.peek(header, HEADER_BYTES + SECTOR)), header.size - HEADER_BYTES)
        for header in headers
        if header.number < found.number
    ]
    kept.append(Kept(live.header, found.begin, found.offset - HEADER_BYTES))
    ahead = [header for header in headers if header.number > found.number]
    if any(header.size < segment_bytes for header in ahead):
        # Made when segments were to be smaller: a frame that fits into a segment must fit into each of these.
        while ahead:
            directory.drop_segment(ahead.pop().number)
    opened = deque((header, directory.open_segment(header)) for header in ahead)
    return Opened(framing, kept, found.position, opened, found.cut, cut_kept)


def make_first(directory: Directory, log_id: bytes, segment_bytes: int, begin: Position | None = None) -> SegmentHeader:
    """Begin a log in a directory without one: its first segment, durable, there whole or not at all."""
    directory.sync_above()  # so where there is a segment, the names that lead to it are durable
    first = SegmentHeader(log_id, 1, min(segment_bytes, FIRST_SEGMENT_BYTES_MAX), begin)
    if (fd := directory.make_segment(first)) is not None:
        directory.disk.close(fd)
    return first


def _mend(directory: Directory, found: Recovered, segments: list[Loaded]) -> Path | None:
    """Make the durable prefix durable and the rest zeros. Returns where the bytes of a torn tail are kept."""
    live = segments[0]
    if found.last < found.offset:
        # The last write may have reached memory only: the process was killed before the sync, or the sync failed and
        # the system called the pages clean. It is durable once its bytes are written again and synced.
        directory.rewrite(live.header, live.data[found.last : found.offset], found.last)
    cut_kept = None
    if found.cut is not None:
        torn = next(segment for segment in segments if segment.header.number == found.cut.number)
        cut_kept = directory.cut(found.cut, torn.data)
    return cut_kept
