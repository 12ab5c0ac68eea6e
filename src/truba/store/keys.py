"""Names and values in the RocksDB store: what lies under which key, and how it is written. Pure: no I/O.

One key space. Numbers are big-endian, so that keys sort as the numbers do:

    key                                                            value (MessagePack unless empty)
    'h' | number 8                                                 [term, number, kind, phase, ...]: a Head's fields
    'c' | number 8 | first 8                                       [record, record, ...]: one chunk
    'd' | kind 4   | due_ms 8 | order 8 | number 8                 empty: a stored session, in order of hand-over
    'o' | number 8                                                 empty: an active or repeating session
    'm'                                                            [format, [term, seq, chain, [[kind, phase, count]],
                                                                    [paused kind, ...] unless none is]]

'd' and 'o' are indexes: they say nothing that the heads do not. `format` rises when an older truba would misread.
"""

from __future__ import annotations

from collections.abc import Callable
from operator import attrgetter
from struct import Struct
from typing import Any

import msgspec

from truba.errors import DataDamaged, DataNewer
from truba.ports.store import DueKey, Head, Summary
from truba.types import ORIGIN, Phase, Position

FORMAT = 1

META = b"m"
HEADS = b"h"
HEADS_END = b"i"
OWNED = b"o"
OWNED_END = b"p"

_NUMBER = Struct(">cQ")
_CHUNK = Struct(">cQQ")
_DUE = Struct(">cIQQQ")
_DUE_KIND = Struct(">cI")


def head_key(number: int) -> bytes:
    return _NUMBER.pack(HEADS, number)


def owned_key(number: int) -> bytes:
    return _NUMBER.pack(OWNED, number)


def number_of(key: bytes) -> int:
    """The session's number, from a head's or an owned key."""
    number: int = _NUMBER.unpack(key)[1]
    return number


def chunk_key(number: int, first: int) -> bytes:
    return _CHUNK.pack(b"c", number, first)


def due_key(kind: int, due: DueKey) -> bytes:
    return _DUE.pack(b"d", kind, *due)


def due_of(key: bytes) -> DueKey:
    _, _, due_ms, order, number = _DUE.unpack(key)
    return DueKey(due_ms, order, number)


def due_bounds(kind: int) -> tuple[bytes, bytes]:
    """First possible due key of a kind, and the end (excluded)."""
    start = _DUE_KIND.pack(b"d", kind)
    return start, start + b"\xff" * 25  # longer than any key that starts so


head_fields: Callable[[Head], tuple[Any, ...]] = attrgetter(*Head.__struct_fields__)
"""A head's own fields in order, without those that a subclass adds: what is kept."""

UNREADABLE = (msgspec.MsgspecError, UnicodeDecodeError)
"""What msgspec raises; the latter for a text that is none."""

_encode = msgspec.msgpack.Encoder().encode
_head_from = msgspec.msgpack.Decoder(Head).decode
_chunk_from = msgspec.msgpack.Decoder(list[bytes]).decode
_meta_from = msgspec.msgpack.Decoder(tuple[int, msgspec.Raw]).decode


class _Summary(msgspec.Struct, array_like=True, frozen=True):
    """Fields are only ever added at the end, with a default."""

    term: int
    seq: int
    chain: bytes
    counts: list[tuple[int, Phase, int]]
    paused: list[int] = []


_summary_from = msgspec.msgpack.Decoder(_Summary).decode


def head_value(head: Head) -> bytes:
    return _encode(head_fields(head))


def chunk_value(records: list[bytes]) -> bytes:
    return _encode(records)


def meta_value(summary: Summary) -> bytes:
    counts = [(kind, phase, count) for (kind, phase), count in summary.counts.items()]
    # Without pauses as before there were any: whoever goes back to an older truba can read it.
    paused = (sorted(summary.paused),) if summary.paused else ()
    return _encode((FORMAT, (*summary.applied, counts, *paused)))


def read_head(key: bytes, value: bytes) -> Head:
    try:
        head = _head_from(value)
    except UNREADABLE as error:
        raise _damaged(key, error) from error
    if head.number != number_of(key):
        raise _damaged(key, f"it holds session {head.number}")
    return head


def read_chunk(key: bytes, value: bytes) -> list[bytes]:
    try:
        return _chunk_from(value)
    except UNREADABLE as error:
        raise _damaged(key, error) from error


def read_meta(value: bytes) -> Summary:
    """Raises DataNewer when a newer truba wrote the store, DataDamaged when it cannot be read."""
    try:
        version, rest = _meta_from(value)
        if version > FORMAT:
            raise DataNewer(f"the store has format {version}; this truba reads up to {FORMAT}: use a newer truba")
        found = _summary_from(rest)
    except UNREADABLE as error:
        raise _damaged(META, error) from error
    if len(found.chain) != len(ORIGIN.chain):
        raise _damaged(META, f"a chain hash of {len(found.chain)} bytes")
    return Summary(
        Position(found.term, found.seq, found.chain),
        {(kind, phase): count for kind, phase, count in found.counts},
        frozenset(found.paused),
    )


def _damaged(key: bytes, why: object) -> DataDamaged:
    return DataDamaged(f"the store's value under key {key.hex(' ')} is not what was written: {why}")
