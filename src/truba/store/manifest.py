"""What must be ruled out before RocksDB reads its manifest: a record type on which it never returns.

A manifest is blocks of 32 KiB; in each, records behind headers of 7 bytes (little-endian), the rest zeros:

    checksum u32 | length u16 | type u8 | length bytes      type: 1 whole, 2 first, 3 middle, 4 last part of a record

The types 5 to 8 and 11 say the same of files that are written over, which a manifest never is. One flipped bit makes 5
of 1, and RocksDB (10.x, opened through rocksdict) then reads that header again and again, without an error and without
an end. All other damage it reports itself, so nothing else is judged here.
"""

from __future__ import annotations

import re
from pathlib import Path
from struct import Struct

from truba.errors import DataDamaged

BLOCK_BYTES = 32 << 10
_HEADER = Struct("<IHB")
_PARTS = range(1, 5)
_ENDLESS = (5, 6, 7, 8, 11)


def endless_record(manifest: bytes) -> int | None:
    """The offset of the first record whose type RocksDB would not come back from, if there is one."""
    for begin in range(0, len(manifest), BLOCK_BYTES):
        end = min(begin + BLOCK_BYTES, len(manifest))
        at = begin
        while at + _HEADER.size <= end:
            _, length, kind = _HEADER.unpack_from(manifest, at)
            if kind in _ENDLESS:
                return at
            if kind not in _PARTS:
                break  # the zeros that fill a block, or damage that RocksDB reports
            at += _HEADER.size + length
    return None


def judge_manifest(directory: Path) -> None:
    """DataDamaged when the manifest of the database in `directory` would keep RocksDB for ever. OSError."""
    name = (directory / "CURRENT").read_bytes().strip()
    if not re.fullmatch(rb"MANIFEST-\d+", name):
        return  # RocksDB says what is wrong with it
    path = directory / name.decode()
    if path.is_file() and (at := endless_record(path.read_bytes())) is not None:
        raise DataDamaged(
            f"store {directory} is damaged; restore the directory or rebuild it from the log: "
            f"{path.name} has a record of a foreign type at offset {at}"
        )
