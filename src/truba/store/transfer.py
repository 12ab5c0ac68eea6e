"""A copy of a store on its way to another node: what is sent, and how it arrives. Never decides what becomes of it.

The sender exports the store, lists the copy's files with their hashes, and answers for pieces of them; the receiver
asks for one piece after the other. No file is believed before its hash holds. Which way the bytes take is not known
here. Everything here blocks: call it on a thread.
"""

from __future__ import annotations

import os
import re
from hashlib import file_digest, sha256
from pathlib import Path
from typing import Annotated

import msgspec

from truba.errors import DataDamaged, DataUnwritable
from truba.store.mark import sync_directory
from truba.types import Position

PIECE_BYTES_MAX = 1 << 20
"""Of one answer: large enough for the way to be idle seldom, small enough to be held in memory many times."""

FILES_MAX = 100_000
"""Tables have 64 MiB and more, so no store has as many; a list that claims more is not believed."""

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")

Bytes16 = Annotated[bytes, msgspec.Meta(min_length=16, max_length=16)]
Bytes32 = Annotated[bytes, msgspec.Meta(min_length=32, max_length=32)]
Count = Annotated[int, msgspec.Meta(ge=0)]


class SentFile(msgspec.Struct, frozen=True, array_like=True):
    name: str
    size_bytes: Count
    sha256: Bytes32


class Manifest(msgspec.Struct, frozen=True, array_like=True):
    """What a copy consists of. The files hold the state of log `log_id` through the position (term, seq, chain)."""

    log_id: Bytes16
    term: Count
    seq: Count
    chain: Bytes16
    files: Annotated[tuple[SentFile, ...], msgspec.Meta(max_length=FILES_MAX)]

    @property
    def applied(self) -> Position:
        return Position(self.term, self.seq, self.chain)

    @property
    def size_bytes(self) -> int:
        return sum(file.size_bytes for file in self.files)

    def encode(self) -> bytes:
        """MessagePack."""
        return msgspec.msgpack.encode(self)

    @classmethod
    def decode(cls, data: bytes) -> Manifest:
        """From another node: nothing in it is believed. DataDamaged."""
        try:
            manifest = msgspec.msgpack.decode(data, type=cls)
        except msgspec.MsgspecError as error:
            raise DataDamaged(f"the list of a checkpoint's files cannot be read: {error}") from error
        names = [file.name for file in manifest.files]
        for name in names:
            if not _NAME.fullmatch(name):
                raise DataDamaged(f"a checkpoint cannot have a file named {name[:100]!r}")
        if len(set(names)) != len(names):
            raise DataDamaged("the list of a checkpoint's files names one of them twice")
        return manifest


def describe(directory: Path, log_id: bytes, applied: Position) -> Manifest:
    """The manifest of a copy that `RocksStore.export` made and said to hold `applied`. Reads all of it."""
    files = []
    for path in sorted(directory.iterdir()):
        with path.open("rb") as file:
            files.append(SentFile(path.name, path.stat().st_size, file_digest(file, "sha256").digest()))
    return Manifest(log_id, *applied, tuple(files))


def read_piece(directory: Path, manifest: Manifest, name: str, offset: int) -> bytes:
    """What a receiver asks for: `name` from `offset` on, at most PIECE_BYTES_MAX. KeyError: no such place."""
    size_bytes = next((file.size_bytes for file in manifest.files if file.name == name), -1)
    if not 0 <= offset < size_bytes:
        raise KeyError((name, offset))
    with (directory / name).open("rb") as file:
        file.seek(offset)
        return file.read(min(PIECE_BYTES_MAX, size_bytes - offset))


class Incoming:
    """The files of a manifest, arriving in an empty directory one after the other, each verified and synced.

    Close it; what has arrived by then stays. The directory is complete and durable once `wanted` is None.
    """

    def __init__(self, directory: Path, manifest: Manifest) -> None:
        """DataUnwritable when there is no room for all of it. OSError."""
        stat = os.statvfs(directory)
        free_bytes = stat.f_bavail * stat.f_frsize
        if manifest.size_bytes > free_bytes:
            raise DataUnwritable(
                f"the checkpoint has {manifest.size_bytes} bytes, {directory} has room for {free_bytes}: make room"
            )
        self._directory = directory
        self._files = manifest.files
        self._at = 0  # index of the file that is arriving
        self._fd = -1
        try:
            self._begin_file()
        except BaseException:
            self.close()
            raise

    @property
    def wanted(self) -> tuple[str, int] | None:
        """The next piece: name of a file and offset in it. None: everything is there."""
        if self._at == len(self._files):
            return None
        return self._files[self._at].name, self._offset

    def feed(self, data: bytes) -> None:
        """The piece that was `wanted`; it may be of any size, but not go beyond its file.

        DataDamaged when it does, or when it completes a file whose hash then is not the sender's: begin anew. OSError.
        """
        if self._at == len(self._files):
            raise DataDamaged(f"{len(data)} bytes of a checkpoint arrived after its end")
        file = self._files[self._at]
        if self._offset + len(data) > file.size_bytes:
            raise DataDamaged(f"the checkpoint's file {file.name} has {file.size_bytes} bytes, but more arrived")
        rest = memoryview(data)
        while rest:
            rest = rest[os.write(self._fd, rest) :]
        self._hash.update(data)
        self._offset += len(data)
        if self._offset == file.size_bytes:
            self._end_file()

    def close(self) -> None:
        fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)

    def _begin_file(self) -> None:
        """Go on to the next file that has any bytes."""
        self._offset, self._hash = 0, sha256()
        if self._at == len(self._files):
            sync_directory(self._directory)
            return
        file = self._files[self._at]
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
        self._fd = os.open(self._directory / file.name, flags, 0o600)
        if not file.size_bytes:
            self._end_file()

    def _end_file(self) -> None:
        file = self._files[self._at]
        if self._hash.digest() != file.sha256:
            raise DataDamaged(f"the checkpoint's file {file.name} arrived, but is not what was sent: its hash differs")
        os.fsync(self._fd)
        self.close()
        self._at += 1
        self._begin_file()
