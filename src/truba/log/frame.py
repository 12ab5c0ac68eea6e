"""One batch as bytes: the frame. Encodes and decodes; never does I/O, never decides what a bad frame means for a log.

A frame is built so that three things can be told apart by looking at it alone:

* *whole*: every byte is what was written;
* *torn*: it shows space that was never written. Frames go into space filled with zeros, and a frame has no sector
  of zeros of its own (one that has, since a record holds many zeros, says how many);
* *damaged*: it is not whole and shows no unwritten space, so no crash can explain it.
"""

from __future__ import annotations

import struct
from typing import Literal, NamedTuple
from zlib import crc32

from truba.codec.chain import LINK, Chain
from truba.errors import DataNewer
from truba.ports.log import LogBatch
from truba.types import Position

# Little-endian. A frame starts at a multiple of 512 bytes and fills whole sectors.
#
#       0               4   5   6       8               12              16
#       +---------------+---+---+-------+---------------+---------------+
#    0  | "TRBF"        |ver|flg|   0   | body length   | ~ body length |   version 1, flags 0
#       +---------------+---+---+-------+---------------+---------------+
#   16  | segment number                | zero sectors  | event count   |
#       +-------------------------------+---------------+---------------+
#   32  | term                          | first seq                     |
#       +-------------------------------+-------------------------------+
#   48  | previous frame's term         | previous frame's              |
#       +-------------------------------+                               |
#   64  | chain hash                    | chain hash                    |
#       +-------------------------------+                               |
#   80  |                               | checksum      | "HEAD"        |
#       +-------------------------------+---------------+---------------+
#   96  | body ...                                                      |
#       |                +----------------------------------------------+
#       |                | zeros ...                                    |
#       +----------------+--------------+-------------------------------+
#       | zeros up to the last sector's | "TRUBAEND"                    |
#       +-------------------------------+-------------------------------+
#
# body length   stands twice, so that nothing is allocated or skipped on the word of a flipped bit.
# zero sectors  how many sectors of this frame are all zeros because its body is; see "torn" above.
# chain hash    of the log id, bytes 28..72 of the header and the body: see truba.codec.chain.
# checksum      crc32 of bytes 0..88, seeded with the log id: a header of another log, or one that a client put into
#               a record, is not a header here. It makes a header usable before its body is read.
SECTOR = 512
HEAD_BYTES = 96
BODY_BYTES_MAX = 2**32 - 1
VERSION = 1
_MAGIC = b"TRBF"
_MARK = b"HEAD"
_END = b"TRUBAEND"
_PLACE = struct.Struct("<4sBBHIIQI")
_SEAL = struct.Struct("<I4s")
_HEAD = struct.Struct("<4sBBHIIQIIQQQ16s16sI4s")
_SEALED_BYTES = HEAD_BYTES - _SEAL.size
_PADS = tuple(bytes(n) + _END for n in range(SECTOR))  # by number of zeros
_ZEROS = bytes(SECTOR)
_BLANK = memoryview(bytes(1 << 16))
_ZERO_RUN = bytes(128)  # every sector of zeros inside a frame holds at least this run from its body


class Encoded(NamedTuple):
    """A frame ready to be written: `parts` one after the other, `size` bytes in all, leading to `chain`."""

    parts: list[bytes]
    size: int
    chain: bytes


class Head(NamedTuple):
    """A header whose checksum holds: written by this log, though its body may be anything."""

    length: int
    segment: int
    zero_sectors: int
    events: int
    term: int
    first_seq: int
    prev_term: int
    prev_chain: bytes
    chain: bytes

    @property
    def before(self) -> Position:
        """The position that this frame follows."""
        return Position(self.prev_term, self.first_seq - 1, self.prev_chain)


class Frame(NamedTuple):
    """A whole frame: its bytes are [offset, end) of the data, it leads to `position`."""

    offset: int
    end: int
    batch: LogBatch
    position: Position


class Flaw(NamedTuple):
    """Why no whole frame starts at `offset`. `end`: nothing was written in its first sector."""

    kind: Literal["end", "torn", "damaged"]
    offset: int
    reason: str


def frame_bytes(body_bytes: int) -> int:
    """Size on disk of a frame with that much body."""
    return (HEAD_BYTES + body_bytes + len(_END) + SECTOR - 1) // SECTOR * SECTOR


class Framing(Chain):
    """Encodes and decodes the frames of the log with this id (16 bytes)."""

    __slots__ = ("_crc_seed",)

    def __init__(self, log_id: bytes) -> None:
        super().__init__(log_id)
        self._crc_seed = crc32(log_id)

    def encode(self, segment: int, after: Position, batch: LogBatch) -> Encoded:
        body = batch.body
        length = len(body)
        size = (HEAD_BYTES + length + 8 + SECTOR - 1) // SECTOR * SECTOR
        pad = _PADS[size - HEAD_BYTES - length - 8]
        zero_sectors = 0
        if _ZERO_RUN in body:
            zero_sectors = count_zero_sectors(_MAGIC.ljust(HEAD_BYTES, b"\0") + body + pad)
        link = LINK.pack(batch.count, batch.term, batch.first_seq, after.term, after.chain)
        digest = self._hash_seed.copy()
        digest.update(link)
        digest.update(body)
        chain = digest.digest()[:16]
        place = _PLACE.pack(_MAGIC, VERSION, 0, 0, length, length ^ 0xFFFFFFFF, segment, zero_sectors)
        head = place + link + chain
        return Encoded([head + _SEAL.pack(crc32(head, self._crc_seed), _MARK), body, pad], size, chain)

    def head(self, data: bytes | memoryview, offset: int = 0) -> Head | None:
        """The header at that offset, if its checksum holds. DataNewer if a newer truba wrote it."""
        if len(data) - offset < HEAD_BYTES:
            return None
        fields = _HEAD.unpack_from(data, offset)
        magic, version, flags, _, length, unlength, _, _, *_, crc, mark = fields
        if magic != _MAGIC or mark != _MARK or length ^ unlength != 0xFFFFFFFF:
            return None
        if crc32(data[offset : offset + _SEALED_BYTES], self._crc_seed) != crc:
            return None
        if version != VERSION or flags:
            raise DataNewer(f"a frame of version {version}, flags {flags}: this truba reads {VERSION}; use a newer one")
        return Head(length, *fields[6:14])

    def decode(
        self, data: memoryview, offset: int, segment: int, declared_bytes: int, after: Position | None
    ) -> Frame | Flaw:
        """What stands at `offset` of a segment's bytes.

        `data` may be shorter than the segment's `declared_bytes`: the file was cut. `after` is the position that the
        frame must follow; None takes the frame's own word for it (the first frame of a log that was trimmed).
        """
        head = self.head(data, offset)
        if head is None:
            return self._headless(data, offset, declared_bytes)
        if head.segment != segment:
            return Flaw("damaged", offset, f"the frame was written for segment {head.segment}")
        if after is None:
            after = head.before
        if head.prev_chain != after.chain or head.first_seq != after.seq + 1 or head.prev_term != after.term:
            return Flaw("damaged", offset, f"the frame follows {_place(head.before)}, expected {_place(after)}")
        if not head.events or head.term < head.prev_term:
            return Flaw(
                "damaged", offset, f"a header with {head.events} events, term {head.term} after {head.prev_term}"
            )
        end = offset + frame_bytes(head.length)
        if end > declared_bytes:
            return Flaw("damaged", offset, f"the frame reaches to {end}, its segment ends at {declared_bytes}")
        if end > len(data):
            return Flaw("torn", offset, f"the file ends at {len(data)}, inside the frame")
        body_at = offset + HEAD_BYTES
        body_end = body_at + head.length
        batch = LogBatch(head.term, head.first_seq, head.events, bytes(data[body_at:body_end]))
        if self.chain(after, batch) == head.chain and data[body_end:end] == _PADS[end - body_end - 8]:
            return Frame(offset, end, batch, Position(head.term, batch.last_seq, head.chain))
        if data[end - 1] == 0 and _written_up_to_a_byte(data[end - 8 : end], _END):
            return Flaw("torn", offset, "the end of the frame was never written")
        if count_zero_sectors(data[offset:end]) > head.zero_sectors:
            return Flaw("torn", offset, "a sector of the frame was never written")
        return Flaw("damaged", offset, "the frame's bytes do not match its hash")

    def _headless(self, data: memoryview, offset: int, declared_bytes: int) -> Flaw:
        sector = data[offset : offset + SECTOR]
        if is_zero(sector):
            return Flaw("end", offset, "nothing was written here")
        if is_zero(sector[HEAD_BYTES - 1 :]) and _written_up_to_a_byte(sector[:4], _MAGIC):
            # Also a file that ends inside the header: nothing is left to look at.
            return Flaw("torn", offset, "the frame's header was written in part")
        if len(data) < declared_bytes and offset + SECTOR > len(data):
            return Flaw("torn", offset, f"the file ends at {len(data)}, inside the frame")
        return Flaw("damaged", offset, "the header's checksum does not hold")


def _written_up_to_a_byte(data: bytes | memoryview, whole: bytes) -> bool:
    """Whether these are the first bytes of `whole`, however few, and zeros where the others would be."""
    return whole.startswith(bytes(data).rstrip(b"\0"))


def is_zero(data: bytes | memoryview) -> bool:
    """Whether these bytes were never written, compared a piece at a time."""
    step = len(_BLANK)
    return all(data[at : at + step] == _BLANK[: min(step, len(data) - at)] for at in range(0, len(data), step))


def count_zero_sectors(frame: bytes | memoryview) -> int:
    """How many sectors are all zeros; `frame` starts at a sector."""
    return sum(frame[at : at + SECTOR] == _ZEROS for at in range(0, len(frame), SECTOR))


def _place(position: Position) -> str:
    return f"{position.term}-{position.seq} ({position.chain.hex()[:8]})"
