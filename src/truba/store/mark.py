"""How far the store had come, kept beside it: RocksDB alone cannot tell that it went back.

A manifest cut off at the end of a record opens without complaint at an earlier commit, and the tables of the later ones
are then deleted as garbage. So each commit, once durable, is followed by this small file, and a store that is found
behind it is refused before RocksDB may clean up. After a crash between the two the
mark lags behind the store, which is fine.

    APPLIED: "1 <term> <seq> <chain, hex> <CRC-32 of all before it, hex>\\n"
"""

from __future__ import annotations

import os
import zlib
from pathlib import Path

from truba.errors import DataDamaged
from truba.types import ORIGIN, Position

NAME = "APPLIED"


def mark_line(applied: Position) -> bytes:
    text = f"1 {applied.term} {applied.seq} {applied.chain.hex()}"
    return f"{text} {zlib.crc32(text.encode()):08x}\n".encode()


def write_mark(directory: Path, applied: Position) -> None:
    """Durable when it returns. OSError when it cannot be written."""
    line = mark_line(applied)
    young = directory / f"{NAME}.tmp"
    handle = os.open(young, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    try:
        while line:
            line = line[os.write(handle, line) :]
        os.fdatasync(handle)
    finally:
        os.close(handle)
    young.replace(directory / NAME)
    sync_directory(directory)


def read_mark(directory: Path) -> Position | None:
    """None before the first commit. DataDamaged when the file is not what was written."""
    try:
        line = (directory / NAME).read_bytes()
    except FileNotFoundError:
        return None
    try:
        _, term, seq, chain, _ = line.decode("ascii").split(" ")
        applied = Position(int(term), int(seq), bytes.fromhex(chain))
        if mark_line(applied) == line and len(applied.chain) == len(ORIGIN.chain):
            return applied
    except ValueError:
        pass  # told below, with the bytes
    raise DataDamaged(f"{directory / NAME} is not what was written: {line[:100]!r}")


def sync_directory(directory: Path) -> None:
    handle = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
