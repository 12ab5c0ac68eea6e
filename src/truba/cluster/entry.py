"""One message of the stream: an entry, and its bytes. Encodes and decodes; never judges (see `truba.cluster.rule`).

An OPEN or a BATCH carries one batch of the log, exactly as the file log of every node keeps it. The other kinds carry
no events and stay in the stream.
"""

from __future__ import annotations

import struct
from enum import IntEnum
from typing import NamedTuple
from zlib import crc32

from truba.codec.chain import Chain
from truba.ports.log import LogBatch
from truba.types import Position

# Little-endian.
#
#       0               4   5   6   7   8               12              16
#       +---------------+---+---+---+---+---------------+---------------+
#    0  | "TRBE"        |ver|knd| wl| 0 | event count   | checksum      |   version 1
#       +---------------+---+---+---+---+---------------+---------------+
#   16  | cluster id                                                    |
#       +-------------------------------+-------------------------------+
#   32  | term                          | first seq                     |
#       +-------------------------------+-------------------------------+
#   48  | sure seq                      | previous entry's term         |
#       +-------------------------------+-------------------------------+
#   64  | previous entry's chain hash                                   |
#       +---------------------------------------------------------------+
#   80  | chain hash                                                    |
#       +---------------------------------------------------------------+
#   96  | writer (wl bytes of UTF-8) | body ...                         |
#       +---------------------------------------------------------------+
#
# chain hash  that of the file log's frame of the same batch; without events, the previous one again.
# sure seq    the writer has read or been told that everything through here is stored, ahead of this entry.
# checksum    crc32 of everything before the body, itself as zeros, and of the body too where no chain hash covers it.
VERSION = 1
_MAGIC = b"TRBE"
_HEAD = struct.Struct("<4sBBBBII16sQQQQ16s16s")
_CHECKSUM_AT = 12
_LOG_ID = slice(16, 32)
WRITER_BYTES_MAX = 64


class EntryKind(IntEnum):
    BASE = 0  # the first message of a stream: the log goes on from this position
    OPEN = 1  # a node leads from here on, in a new term; its batch is one Opened
    BATCH = 2
    BEAT = 3  # the leader lives; the body, if any, is the first message that the stream is about to be trimmed to
    RESIGN = 4  # the leader leads no more; the body names who should be next, or nobody
    PROBE = 5  # void for every reader: its number proves how long the stream is


class Entry(NamedTuple):
    """`events` events, from `first_seq` on, following `before`, leading to `position`."""

    kind: EntryKind
    term: int
    first_seq: int
    events: int
    sure_seq: int
    before: Position
    chain: bytes
    writer: str
    body: bytes

    @property
    def batch(self) -> LogBatch | None:
        """What goes into the log, if anything does."""
        return LogBatch(self.term, self.first_seq, self.events, self.body) if self.events else None

    @property
    def position(self) -> Position:
        return Position(self.term, self.first_seq + self.events - 1, self.chain) if self.events else self.before


class Damaged(NamedTuple):
    """It begins like an entry, or names this cluster where an entry does, and is not what was written."""

    reason: str


class Foreign(NamedTuple):
    """Not an entry of this cluster at all."""

    reason: str


def of_batch(cluster: Chain, batch: LogBatch, before: Position, writer: str, sure_seq: int) -> Entry:
    """OPEN when the batch begins a term, else BATCH."""
    kind = EntryKind.OPEN if batch.term > before.term else EntryKind.BATCH
    chain = cluster.chain(before, batch)
    return Entry(kind, batch.term, batch.first_seq, batch.count, sure_seq, before, chain, writer, batch.body)


def without_events(
    kind: EntryKind, position: Position, writer: str, sure_seq: int | None = None, body: bytes = b""
) -> Entry:
    """BASE, BEAT, RESIGN, PROBE: said at `position`; the writer is sure of all of it unless `sure_seq` says less."""
    sure = position.seq if sure_seq is None else sure_seq
    return Entry(kind, position.term, position.seq + 1, 0, sure, position, position.chain, writer, body)


def encode(cluster: Chain, entry: Entry) -> bytes:
    writer = entry.writer.encode()
    if len(writer) > WRITER_BYTES_MAX:
        raise ValueError(f"a writer's name has {WRITER_BYTES_MAX} bytes at most: {entry.writer!r}")
    head = _pack(cluster, entry, len(writer), 0)
    covered = head + writer if entry.events else head + writer + entry.body
    return b"".join((_pack(cluster, entry, len(writer), crc32(covered)), writer, entry.body))


def _pack(cluster: Chain, entry: Entry, writer_bytes: int, checksum: int) -> bytes:
    return _HEAD.pack(
        _MAGIC, VERSION, entry.kind, writer_bytes, 0, entry.events, checksum, cluster.log_id,
        entry.term, entry.first_seq, entry.sure_seq, entry.before.term, entry.before.chain, entry.chain,
    )  # fmt: skip


def decode(cluster: Chain, data: bytes) -> Entry | Damaged | Foreign:
    """What a message is. Everything in an Entry is what was written: checksum and chain hash were verified."""
    if data[:4] != _MAGIC:
        if data[_LOG_ID] == cluster.log_id:  # skipping one of ours could hide that another node leads
            return Damaged("it names this cluster, and does not begin like an entry")
        return Foreign("it is no entry")
    if len(data) < _HEAD.size:
        return Damaged(f"{len(data)} bytes are less than a header")
    (_, version, kind, writer_bytes, zero, events, checksum, log_id, term, first_seq, sure_seq, prev_term, prev_chain,
     chain) = _HEAD.unpack_from(data)  # fmt: skip
    body_at = _HEAD.size + writer_bytes
    covered = bytearray(data[:body_at] if events else data)
    covered[_CHECKSUM_AT : _CHECKSUM_AT + 4] = bytes(4)
    if crc32(covered) != checksum or body_at > len(data):
        return Damaged("its checksum does not hold")
    if log_id != cluster.log_id:
        return Foreign(f"it is an entry of another cluster, {log_id.hex()}")
    if version != VERSION or zero or kind not in _KINDS:
        return Damaged(f"version {version}, kind {kind} of an entry are not known: was it written by a newer truba?")
    before = Position(prev_term, first_seq - 1, prev_chain)
    body = data[body_at:]
    if events:
        if cluster.chain(before, LogBatch(term, first_seq, events, body)) != chain:
            return Damaged("its body does not match its chain hash")
    elif chain != prev_chain or term != prev_term:
        return Damaged("it carries no events and yet another position")
    try:
        writer = data[_HEAD.size : body_at].decode()
    except UnicodeDecodeError:
        writer = ""
    if len(writer.encode()) != writer_bytes or writer_bytes > WRITER_BYTES_MAX:
        return Damaged("its writer's name is none")
    return Entry(EntryKind(kind), term, first_seq, events, sure_seq, before, chain, writer, body)


_KINDS = frozenset(EntryKind)
