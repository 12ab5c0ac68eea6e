"""A session of an owner in this process: the node's operations as coroutines that return when durable."""

from __future__ import annotations

import math
from operator import index
from typing import SupportsIndex

from truba.errors import BadRequest
from truba.node.node import Node
from truba.node.owners import Hold
from truba.session import STORE_SECONDS_MAX
from truba.types import Index


class LocalSession:
    """See `truba.session.Session`."""

    __slots__ = ("_hold", "_node")

    def __init__(self, node: Node, hold: Hold) -> None:
        self._node = node
        self._hold = hold

    def __repr__(self) -> str:
        return f"<session {self.id} kind={self.kind} epoch={self.epoch}>"

    @property
    def id(self) -> Index:
        return self._hold.id

    @property
    def kind(self) -> int:
        return self._hold.kind

    @property
    def epoch(self) -> int:
        return self._hold.epoch

    @property
    def ended(self) -> bool:
        """The hold is over: nothing more can be done with this object."""
        return bool(self._hold.ended)

    @property
    def closed(self) -> bool:
        """Ended by this owner itself, not taken away."""
        return self._hold.ended == "closed"

    async def append(self, *records: bytes) -> None:
        if not records:
            raise BadRequest("append takes at least one record; nothing was stored")
        self._node.append(self._hold, [*map(plain, records)])
        await self._node.sequencer.flush()

    async def replace(self, record: bytes) -> None:
        self._node.replace(self._hold, plain(record))
        await self._node.sequencer.flush()

    async def delete(self) -> None:
        self._node.delete(self._hold)
        await self._node.sequencer.flush()

    async def store(self, seconds: float) -> None:
        if not (math.isfinite(seconds) and 0 <= seconds <= STORE_SECONDS_MAX):
            raise BadRequest(f"store takes seconds from 0 to ten years, not {seconds!r}; nothing was stored")
        self._node.store(self._hold, math.ceil(seconds * 1000))
        await self._node.sequencer.flush()

    async def fail(self, reason: str = "") -> None:
        self._node.fail(self._hold, reason)
        await self._node.sequencer.flush()

    async def touch(self) -> None:
        self._node.touch(self._hold)


def plain(record: object) -> bytes:
    """A record as bytes; TypeError before anything is decided."""
    if type(record) is not bytes:
        if isinstance(record, bytes | bytearray | memoryview):
            return bytes(record)
        raise TypeError(f"a record is bytes, not {type(record).__name__}; nothing was stored")
    return record


def whole(number: SupportsIndex) -> int:
    """A number of a kind, or a tag, as Python's own int; TypeError before anything is decided. A float or a bool that
    equals one would be stored as what it is, and never be read again."""
    return number if type(number) is int else int(index(number))
