"""What nodes tell each other: entries of the stream, and checkpoints from door to door."""

from __future__ import annotations

import asyncio
import hashlib
import random
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import cast
from zlib import crc32

from fuzz.disk import LOG_ID
from fuzz.target import Target
from truba.address import Address
from truba.cluster import entry as entries
from truba.cluster.entry import Damaged, Entry, EntryKind, Foreign
from truba.cluster.peers import Peer
from truba.cluster.words import Status
from truba.codec.chain import Chain
from truba.errors import DataDamaged, OperationError
from truba.ports.log import LogBatch
from truba.protocols import replies
from truba.types import Position

CLUSTER = Chain(LOG_ID)
_HEAD_BYTES = 96
_CHECKSUM = slice(12, 16)

# -- entries -----------------------------------------------------------------------------------------------------------


def _message(dice: random.Random) -> bytes:
    before = Position(dice.randrange(3), dice.randrange(2**40), dice.randbytes(16))
    writer = dice.choice(("a", "node-1", "ü" * 32, ""))
    if dice.random() < 0.5:
        body = dice.randbytes(dice.choice((0, 1, 100)))
        batch = LogBatch(before.term + dice.randrange(2), before.seq + 1, dice.randrange(1, 5), body)
        said = entries.of_batch(CLUSTER, batch, before, writer, before.seq)
    else:
        kind = dice.choice((EntryKind.BASE, EntryKind.BEAT, EntryKind.RESIGN, EntryKind.PROBE))
        said = entries.without_events(kind, before, writer, dice.choice((None, 0)), dice.randbytes(dice.randrange(9)))
    return dice.choice((b"r", b"s")) + entries.encode(CLUSTER, said)


def _sealed(message: bytes) -> bytes:
    """With a checksum that holds, as whoever may write to the stream could give it."""
    if len(message) < _HEAD_BYTES:
        return message
    sealed = bytearray(message)
    sealed[_CHECKSUM] = bytes(4)
    body_at = _HEAD_BYTES + message[6]
    events = int.from_bytes(message[8:12], "little")
    sealed[_CHECKSUM] = crc32(sealed[:body_at] if events else sealed).to_bytes(4, "little")
    return bytes(sealed)


def entry(data: bytes) -> None:
    """A message is an entry only if encoding that entry gives these very bytes."""
    message = _sealed(data[1:]) if data[:1] == b"s" else data[1:]
    found = entries.decode(CLUSTER, message)
    if isinstance(found, Entry):
        assert entries.encode(CLUSTER, found) == message
        assert (found.batch is None) == (found.events == 0)
        if found.batch is not None:
            assert CLUSTER.chain(found.before, found.batch) == found.chain == found.position.chain
    else:
        assert isinstance(found, Damaged | Foreign)
        assert found.reason


# -- the peer door, from outside ---------------------------------------------------------------------------------------

_FILES = {"store/000012.sst": b"t" * 700, "store/CURRENT": b"MANIFEST-000005\n", "empty": b""}


def _transfer(dice: random.Random) -> bytes:
    names = dice.sample(sorted(_FILES), dice.randrange(len(_FILES) + 1))
    if dice.random() < 0.2:
        names.append(dice.choice(("../out", "/out", "a/../../out", "store", "store/CURRENT/x", "", ".", "x" * 600)))
    files = [(name, _FILES.get(name, b"out")) for name in names]
    notes = [[name.encode(), len(held), hashlib.sha256(held).digest()] for name, held in files]
    contents: dict[str | bytes, replies.Value] = {
        "cluster": LOG_ID, "term": 3, "seq": 117, "chain": bytes(16), "files": notes, "extra": b"more",
    }  # fmt: skip
    size = dice.choice((1 << 20, 64, 700))
    pieces = [held[at : at + size] for _, held in files for at in range(0, len(held), size)]
    return replies.encode(contents, 3) + b"".join(map(replies.bulk, pieces)) + replies.OK


class _Writer:
    """The other side of the connection hears nothing."""

    transport: _Writer

    def __init__(self) -> None:
        self.transport = self

    def write(self, data: bytes) -> None: ...

    def abort(self) -> None: ...


def _peer(data: bytes) -> Peer:
    reader = asyncio.StreamReader()
    reader.feed_data(data)
    reader.feed_eof()
    return Peer(Address("127.0.0.1", 1), reader, cast(asyncio.StreamWriter, _Writer()), 30.0)


def transfer(data: bytes) -> None:
    """A checkpoint is there whole, with the hashes that were told, or nothing is; and nothing is outside its place."""
    with tempfile.TemporaryDirectory() as name:
        room = Path(name)
        into = room / "in" / "checkpoint"
        into.parent.mkdir()

        async def main() -> None:
            await _peer(data).fetch(into)

        whole = False
        with suppress(OperationError, DataDamaged, OSError):
            asyncio.run(main())
            whole = True
        assert {str(path.relative_to(room)).split("/")[0] for path in room.rglob("*")} == {"in"}
        assert [path.name for path in into.parent.iterdir()] == (["checkpoint"] if whole else [])
        for path in into.rglob("*"):
            if path.is_file():
                assert hashlib.sha256(path.read_bytes()).digest() in data


def status(data: bytes) -> None:
    """What another node says of itself is a status, or it is told that it is none."""

    async def main() -> None:
        peer = _peer(data)
        with suppress(OperationError):
            assert isinstance(await peer.status(), Status)

    asyncio.run(main())


def _status(dice: random.Random) -> bytes:
    said: dict[str | bytes, replies.Value] = {
        "name": "a", "version": "0.1.0", "role": dice.choice(("leader", "follower", "")), "leader": "b", "term": 3,
        "seq": dice.randrange(2**40), "chain": "0c" * 16, "stream_first": 1, "stream_last": 40, "stream_seq": 40,
        "lag": 0, "voids": 1, "since_ms": 5_000, "trouble": "", "applied_seq": 100, "sessions": 7, "servers": ["nats://127.0.0.1:4222"],
    }  # fmt: skip
    return replies.encode(said, 3)


TARGETS = (
    Target("entry", entry, _message, (b"TRBE", b"\xff\xff\xff\xff", b"\0\0\0\0\0\0\0\0", b"\x05", b"\xc3\x28")),
    Target("transfer", transfer, _transfer, (b"../", b"/", b"$1048577\r\n", b"*65537\r\n", b"%6\r\n", b"-BUSY x\r\n")),
    Target(
        "status",
        status,
        _status,
        (b":-1\r\n", b"_\r\n", b"*0\r\n", b"%1\r\n", b"-BUSY x\r\n", b":99999999999999999\r\n"),
    ),
)
