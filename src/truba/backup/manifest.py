"""What a backup says of itself, and the names by which a directory is known for what it is. Pure: no I/O.

    BACKUP/MANIFEST.part    first of all: whatever ends the backup early leaves this, and no MANIFEST
    BACKUP/log/             the batches after the store's position, as segments that can be read like any log
    BACKUP/store/           the store as of its last commit
    BACKUP/MANIFEST         last of all: the act by which it becomes a backup

MANIFEST has two lines: JSON, and the SHA-256 of the first line in hex. `format` rises when an older truba would misread
it.
"""

from __future__ import annotations

from hashlib import sha256

import msgspec

from truba.errors import DataDamaged, DataNewer
from truba.types import Phase, Position

FORMAT = 1
NAME = "MANIFEST"
UNFINISHED = "MANIFEST.part"
RESTORING = "RESTORING"
"""In a data directory: what lies here is not whole yet."""
SCRATCH = "backing-up"
"""In a data directory, so that hard links reach it: what a backup of a running pipe holds meanwhile."""


class File(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A file of the backup; `name` is its path inside, with slashes."""

    name: str
    bytes: int
    sha256: str


class Count(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    kind: int
    phase: Phase
    sessions: int


class Place(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A `Position` as people can read it; `chain` in hex."""

    term: int
    seq: int
    chain: str

    @classmethod
    def of(cls, position: Position) -> Place:
        return cls(position.term, position.seq, position.chain.hex())

    @property
    def position(self) -> Position:
        return Position(self.term, self.seq, bytes.fromhex(self.chain))


class Manifest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    format: int
    truba: str  # the version that made it
    made_ms: int  # wall clock, when it was begun
    host: str
    data: str  # the directory that it is of, there
    log_id: str  # hex
    at: Place  # the state that the backup holds is that of the log through here
    store: Place  # the part of it that is in `store`
    digest: str  # `truba.machine.digest` of the state
    counts: list[Count]
    files: list[File]

    def encode(self) -> bytes:
        line = msgspec.json.encode(self)
        return line + b"\n" + sha256(line).hexdigest().encode() + b"\n"

    @property
    def sessions(self) -> int:
        return sum(count.sessions for count in self.counts)

    @property
    def bytes(self) -> int:
        return sum(file.bytes for file in self.files)


class _Format(msgspec.Struct):
    format: int


def read_manifest(text: bytes, where: object) -> Manifest:
    """DataDamaged when it is not what was written, DataNewer when a newer truba wrote it."""
    line, _, rest = text.partition(b"\n")
    try:
        if rest != sha256(line).hexdigest().encode() + b"\n":
            raise ValueError("its checksum does not hold")
        if (version := msgspec.json.decode(line, type=_Format).format) > FORMAT:
            raise DataNewer(f"{where} has format {version}; this truba reads up to {FORMAT}: use a newer truba")
        return msgspec.json.decode(line, type=Manifest)
    except (msgspec.MsgspecError, ValueError) as error:
        raise DataDamaged(f"{where} is not what was written: {error}; take another backup") from error
