"""What a crash left: the durable prefix, a torn tail that may be cut, or damage that may not. Decides; never does I/O.

The log has one batch under way and syncs it before the next is written. So a crash can leave at most one frame in
part, it is the last thing in the log, and, since it went into zeros, it shows zeros where it was not written. A tail
is cut only when all three hold. Everything else is damage: bytes that were durable are not what was written. So is a
file that has become shorter.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

from truba.log.damage import Damage, LogDamaged
from truba.log.frame import SECTOR, Flaw, Frame, Framing, Head, is_zero
from truba.log.segment import HEADER_BYTES, SegmentHeader, segment_name
from truba.types import ORIGIN, Position


class Loaded(NamedTuple):
    """A segment and the bytes of its file, header included; fewer than `header.size` if the file was cut."""

    header: SegmentHeader
    data: memoryview


class Cut(NamedTuple):
    """A proven torn tail: bytes [start, end) of that segment, once the frame with `first_seq`, never acknowledged."""

    number: int
    start: int
    end: int
    first_seq: int
    reason: str


class Recovered(NamedTuple):
    """The durable prefix ends at `offset` of segment `number`; the next frame may go there once `cut` is zeroed."""

    number: int
    last: int  # offset of the last whole frame; `offset` itself if the segment holds none
    offset: int
    position: Position
    begin: Position  # what the first frame of that segment follows
    cut: Cut | None


def has_frame(framing: Framing, segment: Loaded) -> bool:
    """Whether the segment begins with a whole frame."""
    return isinstance(decode_at(framing, segment, HEADER_BYTES, None), Frame)


def decode_at(framing: Framing, segment: Loaded, offset: int, after: Position | None) -> Frame | Flaw:
    """What stands at that offset of a segment, when it must follow `after`."""
    return framing.decode(segment.data, offset, segment.header.number, segment.header.size, after)


def recover(framing: Framing, live: Loaded, later: Sequence[Loaded]) -> Recovered:
    """Find the end of the log.

    `live` is the last segment that `has_frame` (the first segment of all when none has). `later` are those of the
    segments after it that hold anything but zeros after their header, in order. Raises DataDamaged.
    """
    begin = position = first_position(framing, live)
    last = offset = HEADER_BYTES
    while isinstance(found := decode_at(framing, live, offset, position), Frame):
        position, last, offset = found.position, offset, found.end
    for segment in (live, *later):
        if len(segment.data) < segment.header.size:
            raise _too_short(segment, offset if segment is live else HEADER_BYTES, position.seq + 1)
    suspects = [segment for segment in later if not is_zero(segment.data[HEADER_BYTES:])]
    if not is_zero(live.data[offset:]):
        suspects.insert(0, live)
    if not suspects:
        return Recovered(live.header.number, last, offset, position, begin, None)
    suspect = suspects[0]
    start = offset if suspect is live else HEADER_BYTES
    flaw: Frame | Flaw = found
    if suspect is not live:
        flaw = decode_at(framing, suspect, start, position)
    assert isinstance(flaw, Flaw)

    def damage(reason: str) -> LogDamaged:
        return LogDamaged(Damage(segment_name(suspect.header.number), start, position.seq + 1, reason))

    if flaw.kind == "damaged":
        raise damage(flaw.reason)
    if len(suspects) > 1 or suspect.header.number > live.header.number + 1:
        raise damage(f"{flaw.reason}, yet something was written to {segment_name(suspects[-1].header.number)}")
    for head, at in _heads(framing, suspect, start + SECTOR):
        if head.first_seq > position.seq:
            raise damage(f"{flaw.reason}, yet a later frame (seq {head.first_seq}) begins at {at}")
    cut = Cut(suspect.header.number, start, written_end(suspect.data), position.seq + 1, flaw.reason)
    return Recovered(live.header.number, last, offset, position, begin, cut)


def _too_short(segment: Loaded, offset: int, seq: int) -> LogDamaged:
    """A segment is whole before it has its name, and never gets shorter: what is missing may have been acknowledged."""
    reason = f"the file has {len(segment.data)} bytes, and had {segment.header.size} when it was made"
    return LogDamaged(Damage(segment_name(segment.header.number), offset, seq, reason))


def first_position(framing: Framing, segment: Loaded) -> Position:
    """What the first frame of a segment follows: by the segment's header where that tells it (a log that begins in the
    middle), ORIGIN in the first segment of any other log, else by the frame's own word.
    """
    if segment.header.begin is not None:
        return segment.header.begin
    head = framing.head(segment.data, HEADER_BYTES)
    if segment.header.number == 1:
        return ORIGIN
    if head is None:
        raise LogDamaged(
            Damage(segment_name(segment.header.number), HEADER_BYTES, 0, "the log's first frame is not there")
        )
    return head.before


def read_frames(
    framing: Framing,
    segments: Sequence[SegmentHeader],
    load: Callable[[SegmentHeader], Loaded],
    through_seq: int,
) -> Iterator[tuple[SegmentHeader, Frame]]:
    """Whole frames of consecutive segments, in order, each checked against its hash and the frame before it.

    Loads one segment at a time. Raises DataDamaged if any frame through `through_seq` is not there.
    """
    after: Position | None = None
    where, offset, reason = "", 0, "the log is empty"
    for header in segments:
        loaded = load(header)
        data, number, size = loaded.data, header.number, header.size
        if after is None:
            after = first_position(framing, loaded)
            if after.seq >= through_seq:
                return
        offset = HEADER_BYTES
        while isinstance(found := framing.decode(data, offset, number, size, after), Frame):
            yield header, found
            after, offset = found.position, found.end
            if after.seq >= through_seq:
                return
        where, reason = segment_name(number), found.reason
        if found.kind != "end" or not is_zero(data[offset:]):
            break
        reason = f"frames through seq {through_seq} are missing"
    seq = after.seq + 1 if after else 0
    raise LogDamaged(Damage(where, offset, seq, reason))


def written_end(data: memoryview) -> int:
    """The end of the last sector that holds anything."""
    end = (len(data) + SECTOR - 1) // SECTOR * SECTOR
    step = 1 << 16
    while end > step and is_zero(data[end - step : end]):
        end -= step
    while end > 0 and is_zero(data[end - SECTOR : end]):
        end -= SECTOR
    return min(end, len(data))


def _heads(framing: Framing, segment: Loaded, start: int) -> Iterator[tuple[Head, int]]:
    """Headers that hold, at any sector from `start` on."""
    for at in range(start, len(segment.data), SECTOR):
        head = framing.head(segment.data, at)
        if head is not None and head.segment == segment.header.number:
            yield head, at
