"""The peer door: a node's private address, where the other nodes and operators ask it about itself.

    AUTH secret            OK; first on each connection, within AUTH_TIMEOUT_S. Nothing else is answered before
    STATUS                 map: `truba.cluster.words.Status`
    DIGEST                 map: `Digest`
    STEPDOWN [successor]   OK once this node leads no more; written to the audit log
    CHECKPOINT             map of cluster, term, seq, chain, extra, and files: [[name, size, sha256] ...]; then the
                           bytes of each file in pieces, as bulk strings (none for an empty file); then OK. An error
                           in place of a piece ends the transfer. BUSY while another one runs

Requests are read as clients' are, answers are RESP3. What a node is and does it learns from its `Host`; it never
touches log, store or stream. With `tls` each side shows a certificate of the cluster's authority, and then the secret;
without, nothing is encrypted, and the door belongs on a private network.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import os
import shutil
import tempfile
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path
from typing import ClassVar, TypeVar, cast

import msgspec
import structlog

from truba.address import Address
from truba.cluster.words import (
    EXTRA_BYTES_MAX,
    FILES_MAX,
    PIECE_BYTES,
    Digest,
    Exported,
    FileNote,
    Host,
    Status,
    is_plain,
)
from truba.entrance import Entrance
from truba.errors import BadRequest, Busy, DataError, NoAuth, OperationError, Unavailable
from truba.ports.audit import AuditLog
from truba.protocols import replies
from truba.protocols.resp import FramingLost, Limits, RequestParser
from truba.rejections import Rejections
from truba.tls import Contexts
from truba.wire.patience import keep_alive

T = TypeVar("T")

log = structlog.get_logger("truba.door")

AUTH_TIMEOUT_S = 3.0
STALL_TIMEOUT_S = 30.0
"""A peer that takes nothing for so long is left: it would keep others from their transfer."""

CONNECTIONS_MAX = 64
"""Six peers and some operators, with room for strangers, who are gone after AUTH_TIMEOUT_S."""

REQUEST_LIMITS = Limits(args_max=4, request_bytes_max=2_048, inline_bytes_max=2_048)
"""A secret of 1024 bytes and its framing; nothing that is asked here is longer."""

STRANGERS_MAX = 32
READ_BYTES = 2_048
PROTO = 3
PEER = "peer"
"""Who did it, in the audit log: the cluster's one secret is all that is known of whoever asks."""
SUCCESSOR_SHOWN = 256
"""Of the name that somebody gave a successor, in the audit log."""
TRANSFER = "transfer-"
"""Names of the directories begin so; those that a crash left are removed at the start."""


class Door:
    """Listens from `start` to `close`. `bound`: the address in use."""

    def __init__(self, host: Host, secret: bytes, scratch: Path, audit: AuditLog, tls: Contexts | None = None) -> None:
        """`scratch`: where checkpoints to send are put, best on the store's own file system."""
        self.host = host
        self.secret = secret
        self.scratch = scratch
        self.audit = audit
        self.transfer = asyncio.Lock()
        self.bound: Address
        self._server: asyncio.Server | None = None
        self._visits: set[asyncio.Task[None]] = set()
        self.rejections = Rejections(_tell)
        self.entrance: Entrance[_Visitor] = Entrance(
            lambda: _Visitor(self._enter, self.entrance.left),
            _Full,
            self.rejections.add,
            connections_max=CONNECTIONS_MAX,
            tls=tls,
            guarded=True,
            plain_answer=_SPEAKS_TLS,
            strangers_max=STRANGERS_MAX,
        )

    async def start(self, address: Address) -> None:
        """OSError when the address cannot be had, or the scratch directory not be made."""
        await asyncio.to_thread(_clear, self.scratch)
        try:
            self._server = await asyncio.get_running_loop().create_server(self.entrance.take, *address)
        except OSError as error:
            text = os.strerror(error.errno) if error.errno else str(error)
            raise OSError(error.errno, f"cannot listen for peers on {address}: {text}") from error
        self.entrance.opened = True
        self.bound = Address(*self._server.sockets[0].getsockname()[:2])

    async def close(self) -> None:
        """End every connection, transfers too, and clean up after them."""
        if self._server is not None:
            self._server.close()
        self.entrance.close()
        visits = list(self._visits)
        for visit in visits:
            visit.cancel()
        await asyncio.gather(*visits, return_exceptions=True)
        self.rejections.close()

    def _enter(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        visit = asyncio.get_running_loop().create_task(self._visit(reader, writer))
        self._visits.add(visit)
        visit.add_done_callback(self._visits.discard)

    async def _visit(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        who = writer.get_extra_info("peername")
        peer = f"{who[0]}:{who[1]}" if who else "?"
        visit = _Visit(self, reader, writer, peer)
        try:
            writer.transport.set_write_buffer_limits(high=PIECE_BYTES)
            keep_alive(writer.get_extra_info("socket"))
            await visit.serve()
        except TimeoutError:
            self.rejections.add("peer left: it was silent, or took no answers", peer=peer)
            writer.transport.abort()
        except ConnectionError as error:
            tell = log.info if visit.known else self.rejections.add
            tell("peer gone", peer=peer, error=str(error))
        except Exception:
            log.exception("peer left: a defect", peer=peer)
            writer.transport.abort()
        finally:
            writer.close()


def _tell(cause: str, **fields: object) -> None:
    log.warning(cause, **fields)


_SPEAKS_TLS = replies.error("ERR", "this door speaks TLS: the asking side needs [cluster.tls] too")


class _Visitor(asyncio.StreamReaderProtocol):
    """One connection, as the entrance sees it."""

    def __init__(
        self,
        enter: Callable[[asyncio.StreamReader, asyncio.StreamWriter], None],
        left: Callable[[_Visitor], None],
    ) -> None:
        super().__init__(asyncio.StreamReader(READ_BYTES), enter)
        self.transport: asyncio.Transport | None = None
        self._left = left

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)
        super().connection_made(transport)

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        self._left(self)


class _Full(asyncio.Protocol):
    """One peer too many: told so, and closed."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        stream = cast(asyncio.Transport, transport)
        stream.write(replies.error("BUSY", f"{CONNECTIONS_MAX} peers are connected, the limit; try later"))
        stream.close()


class _Visit:
    """One connection, one request at a time."""

    def __init__(self, door: Door, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, peer: str) -> None:
        self._door = door
        self._reader = reader
        self._writer = writer
        self._peer = peer
        self.known = False

    async def serve(self) -> None:
        """Until the peer leaves. TimeoutError, ConnectionError."""
        parser = RequestParser(REQUEST_LIMITS)
        async with asyncio.timeout(AUTH_TIMEOUT_S) as silence:
            while data := await self._reader.read(READ_BYTES):
                lost: OperationError | None = None
                try:
                    requests = parser.feed(data)
                except FramingLost as end:
                    requests, lost = end.requests, end.error
                for args in requests:
                    if self.known:
                        await self._answer(args)
                    elif self._shows_secret(args):
                        self.known = True
                        self._door.entrance.known(cast(_Visitor, self._writer.transport.get_protocol()))
                        self._writer.write(replies.OK)
                        silence.reschedule(None)
                    else:
                        self._door.rejections.add("peer refused: it does not show the secret", peer=self._peer)
                        self._writer.write(replies.error("NOAUTH", "AUTH with the secret of this cluster comes first"))
                        return
                if lost is not None:
                    self._writer.write(replies.error(lost.code, str(lost)))
                    return

    def _shows_secret(self, args: list[bytes]) -> bool:
        return len(args) == 2 and args[0].upper() == b"AUTH" and hmac.compare_digest(args[1], self._door.secret)

    async def _answer(self, args: list[bytes]) -> None:
        try:
            verb = self._VERBS.get(args[0].upper())
            if verb is None:
                known = ", ".join(word.decode() for word in self._VERBS)
                raise BadRequest(f"unknown command {args[0][:32]!r}; a peer door knows {known}")
            act, args_max = verb
            if len(args) > args_max:
                raise BadRequest(f"{args[0].decode().upper()} takes at most {args_max - 1} arguments")
            answer = await act(self, args)
        except OperationError as refusal:
            answer = replies.error(refusal.code, str(refusal))
        except DataError as damage:
            log.error("a peer's request failed", peer=self._peer, request=args[0].decode(), error=str(damage))
            answer = replies.error("UNAVAILABLE", str(damage))
        await self._send(answer)

    async def _send(self, answer: bytes) -> None:
        self._writer.write(answer)
        async with asyncio.timeout(STALL_TIMEOUT_S):
            await self._writer.drain()

    async def _auth(self, args: list[bytes]) -> bytes:
        if not self._shows_secret(args):
            raise NoAuth("that is not the secret of this cluster")
        return replies.OK

    async def _status(self, args: list[bytes]) -> bytes:
        return _encode(self._door.host.status())

    async def _digest(self, args: list[bytes]) -> bytes:
        return _encode(await self._door.host.digest())

    async def _step_down(self, args: list[bytes]) -> bytes:
        door = self._door
        successor = args[1].decode("utf-8", "replace") if len(args) > 1 else ""
        do = partial(door.host.step_down, successor)
        on = f"leadership, for node {successor[:SUCCESSOR_SHOWN]}" if successor else "leadership"
        await door.audit.audited(do, who=PEER, peer=self._peer, act="step-down", on=on)
        return replies.OK

    async def _checkpoint(self, args: list[bytes]) -> bytes:
        if self._door.transfer.locked():
            raise Busy("another node is being sent a checkpoint; try later")
        async with self._door.transfer:
            directory = await _disk(_make, self._door.scratch)
            try:
                await self._transfer(directory)
            finally:
                await asyncio.to_thread(_remove, directory)
        return replies.OK

    async def _transfer(self, directory: Path) -> None:
        try:
            exported = await self._door.host.export(directory)
        except OSError as error:
            raise Unavailable(f"no checkpoint could be made: {error}") from error
        notes = await _disk(_take_note, directory)
        seq, size_bytes = exported.position.seq, sum(note.size_bytes for note in notes)
        log.info("checkpoint asked for", peer=self._peer, seq=seq, bytes=size_bytes)
        await self._send(_contents(exported, notes))
        for note in notes:
            for at in range(0, note.size_bytes, PIECE_BYTES):
                piece_bytes = min(PIECE_BYTES, note.size_bytes - at)
                await self._send(replies.bulk(await _disk(_read, directory / note.name, at, piece_bytes)))
        log.info("checkpoint sent", peer=self._peer, seq=seq, bytes=size_bytes)

    _VERBS: ClassVar[dict[bytes, tuple[Callable[[_Visit, list[bytes]], Awaitable[bytes]], int]]] = {
        b"AUTH": (_auth, 2),
        b"STATUS": (_status, 1),
        b"DIGEST": (_digest, 1),
        b"STEPDOWN": (_step_down, 2),
        b"CHECKPOINT": (_checkpoint, 1),
    }
    """What each request does, and how many words it may have, its own among them."""


def _encode(value: Status | Digest) -> bytes:
    return replies.encode(cast(replies.Value, msgspec.structs.asdict(value)), PROTO)


def _contents(exported: Exported, notes: list[FileNote]) -> bytes:
    if len(exported.extra) > EXTRA_BYTES_MAX:
        raise Unavailable(f"what goes with the checkpoint is over {EXTRA_BYTES_MAX} bytes")
    contents: dict[str | bytes, replies.Value] = {
        "cluster": exported.cluster,
        "term": exported.position.term,
        "seq": exported.position.seq,
        "chain": exported.position.chain,
        "files": notes,
        "extra": exported.extra,
    }
    return replies.encode(contents, PROTO)


# -- on threads. No file stays open between two calls: a call that nobody waits for any more does no harm ------------


async def _disk(work: Callable[..., T], *args: object) -> T:
    """Unavailable with the system's own words when the disk fails: told to the peer, in place of a piece."""
    try:
        return await asyncio.to_thread(work, *args)
    except OSError as error:
        raise Unavailable(f"the checkpoint cannot be read: {error}") from error


def _clear(scratch: Path) -> None:
    scratch.mkdir(mode=0o700, parents=True, exist_ok=True)
    for left in scratch.glob(f"{TRANSFER}*"):
        shutil.rmtree(left)


def _make(scratch: Path) -> Path:
    return Path(tempfile.mkdtemp(prefix=TRANSFER, dir=scratch))


def _remove(directory: Path) -> None:
    try:
        shutil.rmtree(directory)
    except OSError as error:  # the next start tries again
        log.warning("a sent checkpoint could not be removed", directory=str(directory), error=str(error))


def _take_note(directory: Path) -> list[FileNote]:
    """Every file under `directory`, with its hash. Reads all of them."""
    notes: list[FileNote] = []
    for path in sorted(directory.rglob("*")):
        if path.is_dir():
            continue
        name = path.relative_to(directory).as_posix()
        if not is_plain(name) or len(notes) == FILES_MAX:
            raise Unavailable(f"the checkpoint holds a file that cannot be sent: {name!r}")
        with path.open("rb") as file:
            sha256 = hashlib.file_digest(file, "sha256").digest()
            notes.append(FileNote(name, file.tell(), sha256))
    return notes


def _read(path: Path, at: int, size: int) -> bytes:
    with path.open("rb") as file:
        file.seek(at)
        data = file.read(size)
    if len(data) != size:
        raise Unavailable(f"{path.name} became shorter while it was sent")
    return data
