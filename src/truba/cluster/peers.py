"""Another node's peer door, from outside: one connection, one question at a time, each with its time limit.

Nothing that comes from there is believed before it is checked: sizes are bounded, names stay inside the directory,
files have the hashes that were told ahead of them.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import shutil
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from contextlib import asynccontextmanager, suppress
from errno import ECONNREFUSED
from pathlib import Path
from typing import TypeVar

import msgspec

from truba.address import Address, is_own_echo
from truba.client.requests import encode
from truba.cluster.answers import Answer, NoAnswer, read_answer
from truba.cluster.words import (
    EXTRA_BYTES_MAX,
    FILES_MAX,
    NAME_BYTES_MAX,
    PIECE_BYTES,
    Digest,
    Exported,
    FileNote,
    Status,
    is_plain,
)
from truba.errors import DataDamaged, OperationError, Unavailable, UnknownOutcome
from truba.tls import Contexts, HandshakeFailed, open_streams
from truba.types import Position
from truba.wire.patience import keep_alive

S = TypeVar("S", bound=msgspec.Struct)

TIMEOUT_S = 5.0
STEP_DOWN_TIMEOUT_S = 30.0
LONG_TIMEOUT_S = 600.0
"""For what the other side must read its whole store for: a digest, a checkpoint's hashes."""

STALL_TIMEOUT_S = 30.0
"""For each piece of a file."""

ANSWER_BYTES_MAX = 64 << 10
CONTENTS_BYTES_MAX = EXTRA_BYTES_MAX + FILES_MAX * (NAME_BYTES_MAX + 128)

Progress = Callable[[int, int], object]
"""Bytes so far, bytes in all."""


def _quiet(done_bytes: int, total_bytes: int) -> None:
    """Nobody watches."""


class Peer:
    """After anything but an OperationError that the other node itself answered, the connection is closed."""

    def __init__(self, where: Address, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, timeout_s: float):
        self.where = where
        self._reader = reader
        self._writer = writer
        self._timeout_s = timeout_s

    @classmethod
    async def connect(
        cls, where: Address, secret: bytes, timeout_s: float = TIMEOUT_S, *, tls: Contexts | None = None
    ) -> Peer:
        """A connection that has shown the secret. Unavailable, NoAuth. `timeout_s`: of this, and of short questions."""
        try:
            async with asyncio.timeout(timeout_s):
                reader, writer = await open_streams(*where, tls)
        except TimeoutError as error:
            raise Unavailable(f"{where} does not answer within {timeout_s:g} s") from error
        except OSError as error:
            raise Unavailable(f"no connection to {where}: {_plain(error)}") from error
        peer = cls(where, reader, writer, timeout_s)
        if is_own_echo(writer.transport):
            await peer.close()
            raise Unavailable(f"no connection to {where}: {os.strerror(ECONNREFUSED)}")
        try:
            keep_alive(writer.get_extra_info("socket"))
            await peer._ask(timeout_s, b"AUTH", secret)
        except BaseException:
            await peer.close()
            raise
        return peer

    @classmethod
    @asynccontextmanager
    async def visit(
        cls, where: Address, secret: bytes, timeout_s: float = TIMEOUT_S, *, tls: Contexts | None = None
    ) -> AsyncIterator[Peer]:
        """As `connect`, and closed at the end."""
        peer = await cls.connect(where, secret, timeout_s, tls=tls)
        try:
            yield peer
        finally:
            await peer.close()

    async def status(self) -> Status:
        """Unavailable."""
        return self._struct(await self._ask(self._timeout_s, b"STATUS"), Status)

    async def digest(self, timeout_s: float = LONG_TIMEOUT_S) -> Digest:
        """Unavailable, and what the other node refuses with. It reads all of its state."""
        return self._struct(await self._ask(timeout_s, b"DIGEST"), Digest)

    async def step_down(self, successor: str = "", timeout_s: float = STEP_DOWN_TIMEOUT_S) -> None:
        """Return once the other node leads no more. UnknownOutcome, and what the other node refuses with."""
        words = [b"STEPDOWN", successor.encode()] if successor else [b"STEPDOWN"]
        try:
            await self._ask(timeout_s, *words)
        except _Lost as error:
            raise UnknownOutcome(f"{error}; whether it stepped down is unknown") from error

    async def fetch(self, into: Path, progress: Progress = _quiet) -> Exported:
        """A checkpoint's files, in a new directory `into`, durable. Nothing is there unless all of it is.

        Unavailable; Busy; DataDamaged: a file came otherwise than it was; FileExistsError; OSError of the own disk.
        """
        part = into.with_name(f"{into.name}.part")
        await asyncio.to_thread(_begin, part, into)
        exported, notes = self._contents(await self._ask(LONG_TIMEOUT_S, b"CHECKPOINT", bytes_max=CONTENTS_BYTES_MAX))
        done_bytes, total_bytes = 0, sum(note.size_bytes for note in notes)
        try:
            await asyncio.to_thread(_make, part, notes)
            for note in notes:
                sha256, left_bytes = hashlib.sha256(), note.size_bytes
                while left_bytes:
                    piece = await self._piece(note, left_bytes)
                    await asyncio.to_thread(_append, part / note.name, piece, sha256)
                    left_bytes -= len(piece)
                    done_bytes += len(piece)
                    progress(done_bytes, total_bytes)
                if sha256.digest() != note.sha256:
                    raise DataDamaged(f"{note.name} of the checkpoint from {self.where} came otherwise than it was")
            if await self._answer(STALL_TIMEOUT_S, ANSWER_BYTES_MAX) != b"OK":
                raise self._garbage("more than it told of")
            await asyncio.to_thread(_settle, part, into, notes)
        except BaseException:
            self._writer.transport.abort()  # what is still to come is no answer to anything
            await asyncio.to_thread(shutil.rmtree, part, ignore_errors=True)  # the next try begins with that, too
            raise
        return exported

    async def close(self) -> None:
        self._writer.transport.abort()
        with suppress(OSError):
            await self._writer.wait_closed()

    async def _ask(self, timeout_s: float, *words: bytes, bytes_max: int = ANSWER_BYTES_MAX) -> Answer:
        self._writer.write(encode(*words))
        return await self._answer(timeout_s, bytes_max)

    async def _answer(self, timeout_s: float, bytes_max: int) -> Answer:
        try:
            async with asyncio.timeout(timeout_s):
                return await read_answer(self._reader, bytes_max)
        except OperationError:
            raise
        except TimeoutError as error:
            raise self._lost(f"{self.where} does not answer within {timeout_s:g} s") from error
        except NoAnswer as error:
            raise self._garbage(str(error)) from error
        except EOFError as error:
            raise self._lost(f"{self.where} closed the connection") from error
        except OSError as error:
            raise self._lost(f"the connection to {self.where} broke: {_plain(error)}") from error
        except BaseException:
            self._writer.transport.abort()
            raise

    def _lost(self, what: str) -> _Lost:
        self._writer.transport.abort()
        return _Lost(what)

    def _garbage(self, what: str) -> _Lost:
        return self._lost(f"what answers at {self.where} is no peer door of this version: {what}")

    async def _piece(self, note: FileNote, left_bytes: int) -> bytes:
        piece = await self._answer(STALL_TIMEOUT_S, PIECE_BYTES + 64)
        if not isinstance(piece, bytes) or not 0 < len(piece) <= left_bytes:
            raise self._garbage(f"{note.name} is not as long as told")
        return piece

    def _struct(self, answer: Answer, kind: type[S]) -> S:
        try:
            return msgspec.convert(_text(answer), kind)
        except msgspec.ValidationError as error:
            raise self._garbage(str(error)) from error

    def _contents(self, answer: Answer) -> tuple[Exported, list[FileNote]]:
        match answer:
            case {
                b"cluster": bytes(cluster),
                b"term": int(term),
                b"seq": int(seq),
                b"chain": bytes(chain),
                b"files": list(files),
                b"extra": bytes(extra),
            } if len(files) <= FILES_MAX and min(term, seq) >= 0 and len(chain) == len(cluster) == 16:
                notes = [self._note(file) for file in files]
                if len({note.name for note in notes}) == len(notes):
                    return Exported(cluster, Position(term, seq, chain), extra), notes
        raise self._garbage("this is no table of contents of a checkpoint")

    def _note(self, file: Answer) -> FileNote:
        match file:
            case [bytes(name), int(size_bytes), bytes(sha256)] if size_bytes >= 0:
                plain = name.decode("utf-8", "replace")
                if is_plain(plain):
                    return FileNote(plain, size_bytes, sha256)
        raise self._garbage(f"{file!r:.100} is no file of a checkpoint")


async def statuses(
    peers: Mapping[str, Address], secret: bytes, timeout_s: float = 2.0, *, tls: Contexts | None = None
) -> dict[str, Status]:
    """What each node says of itself, asked all at once; who does not answer in time is not in it."""

    async def ask(where: Address) -> Status | None:
        try:
            async with Peer.visit(where, secret, timeout_s, tls=tls) as peer:
                return await peer.status()
        except OperationError:
            return None

    answers = zip(peers, await asyncio.gather(*map(ask, peers.values())), strict=True)
    return {name: status for name, status in answers if status is not None}


class _Lost(Unavailable):
    """The connection is closed, and an answer may be lost."""


def _text(answer: Answer) -> object:
    match answer:
        case bytes():
            return answer.decode("utf-8", "replace")
        case list():
            return [_text(item) for item in answer]
        case dict():
            return {_text(key): _text(value) for key, value in answer.items()}
        case _:
            return answer


def _plain(error: OSError) -> str:
    """The system's own words; asyncio puts a sentence of its own in their place."""
    if isinstance(error, HandshakeFailed):
        return str(error)
    return os.strerror(error.errno) if error.errno and error.errno > 0 else str(error)


# -- on threads. No file stays open between two calls: a call that nobody waits for any more does no harm ------------


def _begin(part: Path, into: Path) -> None:
    if into.exists():
        raise FileExistsError(f"{into} is there already")
    if part.exists():  # of a try that was killed
        shutil.rmtree(part)


def _make(part: Path, notes: Iterable[FileNote]) -> None:
    """Every file, empty."""
    part.mkdir(mode=0o700)
    for note in notes:
        path = part / note.name
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))


def _append(path: Path, piece: bytes, sha256: hashlib._Hash) -> None:
    sha256.update(piece)
    handle = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC)
    try:
        rest = memoryview(piece)
        while rest:
            rest = rest[os.write(handle, rest) :]
    finally:
        os.close(handle)


def _settle(part: Path, into: Path, notes: Iterable[FileNote]) -> None:
    """Durable when it returns."""
    for note in notes:
        _sync(part / note.name)
    for directory in (part, *(path for path in part.rglob("*") if path.is_dir())):
        _sync(directory)
    part.rename(into)
    _sync(into.parent)


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
