"""A segment: one file of the log, its name and its first sector, and how one comes to be.

A segment gets its number, its header and its final name before any frame is written to it, and holds zeros from there
on; so taking the next one costs the commit path no system call. Never reads frames.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Callable
from hashlib import sha256
from typing import NamedTuple

from truba.errors import DataNewer
from truba.log.damage import Damage, LogDamaged
from truba.log.disk import Disk, write_all
from truba.log.frame import SECTOR, is_zero
from truba.types import Position

# Little-endian; the first 64 bytes keep this meaning in every version. Frames follow from byte 512. The second part is
# written only where a log begins in the middle of its history (version 2, the first segment of all); it is zeros in all
# other segments (version 1), whose first frames tell what they follow.
#
#      0                   8         12        16                                      32
#      +-------------------+---------+---------+---------------------------------------+
#      | "TRUBALOG"        | version | sector  | log id (16, random)                   |
#      |                   | 1 or 2  | 512     |                                       |
#   32 +-------------------+---------+---------+---------------------------------------+
#      | segment number    | file size         | first 16 bytes of sha256(bytes 0..48) |
#      +-------------------+-------------------+---------------------------------------+
#   64 | term before       | seq before        | chain hash before                     |
#      +-------------------+-------------------+---------------------------------------+
#   96 | first 16 bytes of sha256(bytes 0..96) | zeros up to 512                       |
#      +---------------------------------------+---------------------------------------+
VERSION = 1
VERSION_BEGUN = 2
HEADER_BYTES = SECTOR
_MAGIC = b"TRUBALOG"
_HEADER = struct.Struct("<8sII16sQQ16s")
_HASHED_BYTES = 48
_BEGIN = struct.Struct("<QQ16s16s")
_BEGIN_AT = _HEADER.size
_BEGIN_HASHED_BYTES = 96
_NAME = re.compile(r"segment-(\d{10,})\.log")
_FILL = memoryview(bytes(1 << 19))


class SegmentHeader(NamedTuple):
    log_id: bytes
    number: int
    size: int  # of the file, bytes
    begin: Position | None = None  # what the first frame follows, where the header is to tell it

    def encode(self) -> bytes:
        version = VERSION if self.begin is None else VERSION_BEGUN
        fields = _HEADER.pack(_MAGIC, version, SECTOR, self.log_id, self.number, self.size, bytes(16))[:_HASHED_BYTES]
        fields += _digest(fields)
        if self.begin is not None:
            fields += _BEGIN.pack(*self.begin, bytes(16))[:-16]
            fields += _digest(fields)
        return fields.ljust(HEADER_BYTES, b"\0")

    @classmethod
    def decode(cls, sector: bytes | memoryview, name: str) -> SegmentHeader:
        """Raises LogDamaged or DataNewer, naming the file."""
        if len(sector) == HEADER_BYTES:
            magic, version, _, log_id, number, size, digest = _HEADER.unpack_from(sector)
            if magic == _MAGIC and _digest(sector[:_HASHED_BYTES]) == digest:
                if version not in (VERSION, VERSION_BEGUN):
                    raise DataNewer(
                        f"{name}: format version {version}, this truba reads up to {VERSION_BEGUN}; use a newer one"
                    )
                begin, rest = None, _BEGIN_AT
                if version == VERSION_BEGUN:
                    *before, digest = _BEGIN.unpack_from(sector, _BEGIN_AT)
                    rest += _BEGIN.size
                    if _digest(sector[:_BEGIN_HASHED_BYTES]) == digest:
                        begin = Position(*before)
                whole = (version == VERSION_BEGUN) == (begin is not None)
                if whole and is_zero(sector[rest:]) and number == segment_number(name):
                    return cls(log_id, number, size, begin)
        raise LogDamaged(Damage(name.rpartition("/")[2], 0, 0, "the segment's header is not what was written"))


def _digest(data: bytes | memoryview) -> bytes:
    return sha256(data).digest()[:16]


def segment_name(number: int) -> str:
    return f"segment-{number:010d}.log"


def segment_number(name: str) -> int | None:
    """The number of the segment with that file name (a path's last part counts); None when it is no segment's name."""
    last = name.rpartition("/")[2]
    match = _NAME.fullmatch(last)
    return int(match[1]) if match and segment_name(int(match[1])) == last else None


def write_zeros(disk: Disk, fd: int, start: int, end: int, go_on: Callable[[], bool] = lambda: True) -> None:
    """Really write zeros, and sync them piece by piece.

    Space that was only promised to a file makes the first sync of every frame a slow one. One sync of a whole segment
    at the end makes the frames that are committed beside it wait: 64 KiB batches took 6 to 7 ms at worst in a thousand
    then, and take 0.7 ms when every piece is synced.
    """
    while start < end and go_on():
        piece = _FILL[: min(len(_FILL), end - start)]
        write_all(disk, fd, [piece], start)
        disk.fdatasync(fd)
        start += len(piece)
