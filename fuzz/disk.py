"""What is read back from the disk: frames, segments and what a crash left of them, batches, values of the store, marks.

Bytes with checksums give nothing away to random damage, so most of these targets write something real first, then
damage it where the input says, and hold the reader against what is known to have been written.
"""

from __future__ import annotations

import json
import random
import tempfile
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import msgspec

from fuzz.target import Tape, Target
from truba.codec.batch import decode_batch, encode_batch
from truba.errors import DataDamaged, DataLocked, DataNewer
from truba.install import settle
from truba.log.frame import HEAD_BYTES, SECTOR, Frame, Framing, frame_bytes
from truba.log.recovery import Loaded, has_frame, read_frames, recover
from truba.log.segment import HEADER_BYTES, SegmentHeader, segment_name
from truba.machine.events import Appended, Created, Deleted, Opened, Parked, Repeated, Replaced, Resumed, Stored
from truba.ports.log import LogBatch
from truba.ports.store import Head, Summary
from truba.store.keys import chunk_value, head_key, head_value, meta_value, read_chunk, read_head, read_meta
from truba.store.mark import NAME, read_mark
from truba.types import ORIGIN, Cause, Phase, Position

LOG_ID = bytes(range(16))
_ROOM = Path("/dev/shm") if Path("/dev/shm").is_dir() else None
"""Where the files of a run go: nothing of this is about the disk itself."""


def damaged(tape: Tape, data: bytes) -> bytes:
    """A few changes of the kinds that disks and crashes make."""
    image = bytearray(data)
    for _ in range(tape.number(4)):
        at = tape.number(len(image) + 1)
        match tape.number(6):
            case 0 if at < len(image):
                image[at] ^= 1 + tape.number(255)
            case 1:  # a run of sectors that were never written
                begin = at // SECTOR * SECTOR
                end = min(len(image), begin + SECTOR * (1 + tape.number(8)))
                image[begin:end] = bytes(end - begin)
            case 2:  # a sector of another place, or of an earlier life
                begin, other = at // SECTOR * SECTOR, tape.number(len(image) + 1) // SECTOR * SECTOR
                piece = image[other : other + SECTOR]
                image[begin : begin + len(piece)] = piece
            case 3:
                del image[at:]
            case 4:
                end = min(len(image), at + tape.number(64))
                image[at:end] = bytes(end - at)
            case _:
                noise = tape.take(tape.number(64))[: len(image) - at]
                image[at : at + len(noise)] = noise
    return bytes(image)


# -- the log -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Written:
    """A frame as it was written: bytes [at, end) of segment `segment`, leading to `position`."""

    segment: int
    at: int
    end: int
    batch: LogBatch
    position: Position


def _body(tape: Tape) -> bytes:
    size = (0, 1, 40, 404, 408, 412, 500, 1_500)[tape.number(8)]
    match tape.number(4):
        case 0:
            return bytes(size)  # frames have sectors of zeros of their own
        case 1:
            return tape.take(min(size, 8)) + bytes(size)
        case _:
            return (tape.take(4) * (size // 4 + 1))[:size]


def _log(tape: Tape) -> tuple[dict[int, bytes], list[Written]]:
    """Segments by number, and what was written to them."""
    framing, after, frames = Framing(LOG_ID), ORIGIN, list[Written]()
    images: dict[int, bytes] = {}
    for number in range(1, 2 + tape.number(3)):
        header = SegmentHeader(LOG_ID, number, SECTOR * (8 + tape.number(12)))
        image = bytearray(header.encode().ljust(header.size, b"\0"))
        at = HEADER_BYTES
        for _ in range(tape.number(5)):
            batch = LogBatch(max(1, after.term + tape.number(3) // 2), after.seq + 1, 1 + tape.number(3), _body(tape))
            encoded = framing.encode(number, after, batch)
            if at + encoded.size > header.size:
                break
            image[at : at + encoded.size] = b"".join(encoded.parts)
            after = Position(batch.term, batch.last_seq, encoded.chain)
            frames.append(Written(number, at, at + encoded.size, batch, after))
            at += encoded.size
        images[number] = bytes(image)
        if at == HEADER_BYTES:
            break  # a segment is taken once the one before it is full
    return images, frames


def recovery(data: bytes) -> None:
    """What recovery keeps is what was written; what it cuts shows that it was never written in full."""
    tape = Tape(data)
    before, frames = _log(tape)
    images = {number: image[:HEADER_BYTES] + damaged(tape, image[HEADER_BYTES:]) for number, image in before.items()}
    framing = Framing(LOG_ID)
    segments = {n: Loaded(SegmentHeader(LOG_ID, n, len(before[n])), memoryview(image)) for n, image in images.items()}
    try:
        live = max((n for n in segments if has_frame(framing, segments[n])), default=1)
        found = recover(framing, segments[live], [segments[n] for n in segments if n > live])
    except (DataDamaged, DataNewer):
        assert images != before
        return
    kept = [frame for frame in frames if frame.position.seq <= found.position.seq]
    assert found.position == (kept[-1].position if kept else ORIGIN)
    _read_back(framing, segments, kept, found.position.seq)
    lost = frames[len(kept) :]
    if lost:
        _explained(lost, images, before)
    else:
        assert found.cut is None or images != before
        if kept:
            assert (found.number, found.offset) == (kept[-1].segment, kept[-1].end)


def _read_back(framing: Framing, segments: dict[int, Loaded], kept: list[Written], through_seq: int) -> None:
    """Frames are read as they were written, or reported."""
    expected = iter(kept)
    with suppress(DataDamaged, DataNewer):
        headers = [segment.header for segment in segments.values()]
        for header, frame in read_frames(framing, headers, lambda header: segments[header.number], through_seq):
            wrote = next(expected)
            assert (header.number, frame.offset, frame.end) == (wrote.segment, wrote.at, wrote.end)
            assert (frame.batch, frame.position) == (wrote.batch, wrote.position)
            data = segments[header.number].data[frame.offset : frame.end]
            assert b"".join(framing.encode(header.number, _before(kept, wrote), frame.batch).parts) == data
        assert next(expected, None) is None or not through_seq


def _before(frames: list[Written], frame: Written) -> Position:
    at = frames.index(frame)
    return frames[at - 1].position if at else ORIGIN


def _explained(lost: list[Written], images: dict[int, bytes], before: dict[int, bytes]) -> None:
    """A crash can leave one frame in part, with space in it that was never written, and nothing whole after it."""
    first, *later = lost
    shown = images[first.segment][first.at : first.end]
    wrote = before[first.segment][first.at : first.end]
    sectors = range(0, len(wrote), SECTOR)
    unwritten = (
        len(shown) < len(wrote)
        or not shown[-1]
        or not any(shown[HEAD_BYTES - 1 : SECTOR])
        or any(not any(shown[at : at + SECTOR]) and any(wrote[at : at + SECTOR]) for at in sectors)
    )
    assert unwritten, f"a frame was cut that shows no unwritten space: {first}"
    for frame in later:
        head = slice(frame.at, frame.at + HEAD_BYTES)
        assert images[frame.segment][head] != before[frame.segment][head], f"cut, although {frame} follows"


def frame(data: bytes) -> None:
    """A decoded frame encodes to the very bytes; a header is believed only as it was written."""
    tape = Tape(data)
    framing = Framing(LOG_ID)
    batch = LogBatch(1 + tape.number(3), 1 + tape.number(256), 1 + tape.number(3), _body(tape))
    after = Position(1, batch.first_seq - 1, tape.take(1) * 16)
    image = b"".join(framing.encode(3, after, batch).parts)
    real = tape.number(4) > 0
    changed = damaged(tape, image) if real else tape.rest()[: 64 * SECTOR]
    for follows in (after, None):
        try:
            found = framing.decode(memoryview(changed), 0, 3, len(image) + tape.number(3) * SECTOR, follows)
        except DataNewer:
            assert changed != image
            continue
        if isinstance(found, Frame):
            assert found.end == frame_bytes(len(found.batch.body))
            again = framing.encode(3, follows or Position(1, after.seq, after.chain), found.batch)
            assert b"".join(again.parts) == changed[: found.end]
        else:
            assert changed != image


def segment(data: bytes) -> None:
    """A header that is taken is, byte for byte, the one that was written."""
    tape = Tape(data)
    begin = None if tape.number(2) else Position(tape.number(9), tape.number(9), tape.take(16))
    number = 1 + tape.number(9)
    header = SegmentHeader(LOG_ID, number, SECTOR * (1 + tape.number(256)), begin)
    wrote = header.encode()
    changed = tape.rest()[:HEADER_BYTES] if tape.number(8) == 0 else damaged(tape, wrote)
    try:
        found = SegmentHeader.decode(changed, f"log/{segment_name(number)}")
    except (DataDamaged, DataNewer):
        assert changed != wrote
        return
    assert found.encode() == changed


# -- what the log and the store hold -----------------------------------------------------------------------------------


def _events(dice: random.Random) -> Iterator[object]:
    def number() -> int:
        return dice.choice((0, 1, 127, 128, 255, 65_536, 2**32, 2**63 - 1))

    def records() -> list[bytes]:
        return [dice.randbytes(dice.choice((0, 1, 30, 300))) for _ in range(dice.randrange(4))]

    yield Opened(number(), dice.choice(("", "node-a", "ü" * 9)))
    yield Created(number(), number(), dice.randbytes(16), number(), -1, records())
    yield Appended(number(), records())
    yield Replaced(number(), dice.randbytes(20))
    yield Deleted(number())
    yield Stored(number(), number(), dice.choice(tuple(Cause)), dice.choice(("", "it failed")))
    yield Repeated(number(), b"", number())
    yield Parked(number(), Cause.FAILED, "25 attempts")
    yield Resumed(number(), number(), number())


def _batch(dice: random.Random) -> bytes:
    events = list(_events(dice))
    return encode_batch(dice.sample(events, dice.randrange(len(events) + 1)))


def batch(data: bytes) -> None:
    """What decodes is the same once encoded and decoded again, and fits the log's own words."""
    try:
        events = decode_batch(data)
    except DataDamaged:
        return
    body = encode_batch(events)
    assert decode_batch(body) == events
    assert encode_batch(decode_batch(body)) == body


def _head(dice: random.Random) -> Head:
    numbers = [dice.choice((0, 1, 200, 70_000, 2**40)) for _ in range(13)]
    phase, cause = dice.choice(tuple(Phase)), dice.choice(tuple(Cause))
    return Head(
        3, dice.randrange(256), 7, phase, *numbers[:7], cause, "detail", dice.randbytes(16), *numbers[7:], (0, 5)
    )


def _value(dice: random.Random) -> bytes:
    head = _head(dice)
    match dice.randrange(3):
        case 0:
            return bytes((head.number,)) + head_value(head)
        case 1:
            return b"\0" + chunk_value([dice.randbytes(dice.randrange(60)) for _ in range(dice.randrange(9))])
        case _:
            counts = {(dice.randrange(9), phase): dice.randrange(1, 9) for phase in Phase}
            return b"\0" + meta_value(Summary(Position(3, dice.randrange(2**40), dice.randbytes(16)), counts))


def values(data: bytes) -> None:
    """The store's values: what is read is the same when it is written and read again."""
    key, value = head_key(data[0] if data else 0), data[1:]
    with suppress(DataDamaged):
        head = read_head(key, value)
        assert head.number == data[0]
        assert read_head(key, head_value(head)) == head
    with suppress(DataDamaged):
        records = read_chunk(key, value)
        assert read_chunk(key, chunk_value(records)) == records
    with suppress(DataDamaged, DataNewer):
        summary = read_meta(value)
        assert len(summary.applied.chain) == 16
        assert read_meta(meta_value(summary)) == summary


def _sealed(text: bytes) -> bytes:
    from zlib import crc32

    return text + b" %08x\n" % crc32(text)


def _mark(dice: random.Random) -> bytes:
    text = b"1 %d %d %b" % (dice.randrange(9), dice.randrange(2**40), dice.randbytes(16).hex().encode())
    return dice.choice((b"s" + text, b"r" + _sealed(text)))


def mark(data: bytes) -> None:
    """A mark that is believed is one that this truba writes. `s`: with a checksum that holds, whatever is in it."""
    line = _sealed(data[1:]) if data[:1] == b"s" else data[1:]
    with tempfile.TemporaryDirectory(dir=_ROOM) as room:
        (Path(room) / NAME).write_bytes(line)
        try:
            found = read_mark(Path(room))
        except DataDamaged:
            return
    assert found is not None
    assert _sealed(f"1 {found.term} {found.seq} {found.chain.hex()}".encode()) == line
    assert len(found.chain) == 16


def _ready(dice: random.Random) -> bytes:
    aside = dice.choice(("replaced-1", "replaced-12", "../out", "log", "store", "incoming", "other", ""))
    plan = {"aside": aside, "keep": dice.random() < 0.5}
    return bytes((dice.randrange(256),)) + msgspec.json.encode(plan)


def arrival(data: bytes) -> None:
    """A start that finds a decided checkpoint puts it in place or changes nothing; it never leaves its directory."""
    with tempfile.TemporaryDirectory(dir=_ROOM) as room:
        home = Path(room) / "data"
        there = data[0] if data else 0
        names = ("log", "store", "incoming/log", "incoming/store", "replaced-1", "other")
        for bit, name in enumerate(names):
            if there >> bit & 1:
                (home / name).mkdir(parents=True)
                (home / name / f"of {name.replace('/', ' ')}").touch()
        (home / "incoming").mkdir(parents=True, exist_ok=True)
        (home / "incoming" / "READY").write_bytes(data[1:])
        before = _tree(Path(room))
        if not _harmless(data[1:], Path(room)):
            return
        try:
            settled = settle(home)
        except (DataDamaged, DataLocked, OSError):
            settled = "nothing"
        after = _tree(Path(room))
        assert {path for path in after if not path.startswith("data")} == set()
        assert [path for path in after if "of other" in path] == [path for path in before if "of other" in path]
        if settled == "installed":
            for part in ("log", "store"):
                arrived = f"data/incoming/{part}/of incoming {part}"
                assert (f"data/{part}/of incoming {part}" in after) == (arrived in before)


def _harmless(ready: bytes, room: Path) -> bool:
    """Should a defect let any name through, nothing but this run's own files is at stake."""
    with suppress(ValueError, RecursionError):
        plan = json.loads(ready)
        aside = plan.get("aside") if isinstance(plan, dict) else None
        return not isinstance(aside, str) or "\0" in aside or (room / "data" / aside).resolve().is_relative_to(room)
    return True


def _tree(room: Path) -> list[str]:
    return sorted(str(path.relative_to(room)) for path in room.rglob("*"))


def _noise(dice: random.Random) -> bytes:
    return dice.randbytes(dice.randrange(20, 90))


TARGETS = (
    Target("recovery", recovery, _noise),
    Target("frame", frame, _noise),
    Target("segment", segment, _noise),
    Target(
        "batch", batch, _batch, (b"\xdd\xff\xff\xff\xff", b"\xc6\xff\xff\xff\xff", b"\xdf\xff\xff\xff\xff", b"\xc0")
    ),
    Target("store-values", values, _value, (b"\xdd\xff\xff\xff\xff", b"\xc6\xff\xff\xff\xff", b"\xcf" + b"\xff" * 8)),
    Target("mark", mark, _mark, (b" ", b"+", b"_", b"00")),
    Target("arrival", arrival, _ready, (b"..", b"/", b"log", b"store", b"incoming", b"other", b"true", b"false")),
)
