"""What a peer says, as values: the parser in C, with a gate ahead of it, since it believes lengths.

Most of what comes has no list in it: then the parser has nothing to believe, and the gate need not look at each value.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import hiredis

from truba.protocols.gate import Gate, GateClosed

MESSAGE_BYTES_MAX = 256 << 20
"""What one push or answer may take, with 64 bytes for each value in it: beyond it the peer is no pipe. The largest is
a session with all its records, 64 MiB of at most 65,536 records by default, but for what an owner holds (`Link`)."""

NOT_A_PIPE = (hiredis.ProtocolError, ValueError, TypeError, MemoryError)
"""What `read` may raise. TypeError: a map whose keys are lists."""

_lists = re.compile(rb"[*~>%|]").search


class Answers:
    """Of one connection."""

    __slots__ = ("_gate", "_reader")

    def __init__(self, bytes_max: int = MESSAGE_BYTES_MAX) -> None:
        self._reader = hiredis.Reader()
        self._gate = Gate(bytes_max)

    @property
    def bytes_max(self) -> int:
        """Of a message; of the next one, when it is set while one is under way."""
        return self._gate.bytes_max

    @bytes_max.setter
    def bytes_max(self, bytes_max: int) -> None:
        self._gate.bytes_max = bytes_max

    def read(self, data: bytes) -> Iterator[Any]:
        """The values that `data` completes. One of NOT_A_PIPE when it is none; then the connection is of no use."""
        reader, gate = self._reader, self._gate
        plain = gate.idle and data[-1:] == b"\n" and _lists(data) is None
        reader.feed(data if plain else gate.take(data))
        while (value := reader.gets()) is not False:
            yield value
        if plain and reader.has_data():  # a string is cut here. A cut behind a first byte would not show: see above
            gate.take(data)
        if gate.idle and reader.has_data():
            raise GateClosed("an answer that has no end")  # the two read the same framing: this should not be
