"""What sessions of clients and of handler services have in common: methods into requests, and the end of a hold."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Awaitable
from typing import Any, Generic, Literal, TypeVar

from truba.client.requests import encode, plain
from truba.client.resume import Act
from truba.errors import BadRequest, Closed, Fenced
from truba.types import Index

STORE_SECONDS_MAX = 10 * 365 * 86_400

REASON_BYTES_MAX = 1024
"""Of a FAIL: the rest is not sent; the pipe keeps less."""


class Hold:
    """What this process knows of its right to write to one session."""

    __slots__ = ("ended", "epoch", "id", "kind", "ref")

    def __init__(self, kind: int, epoch: int = 0) -> None:
        self.kind = kind
        self.epoch = epoch
        self.id: Index | None = None
        self.ref = b""  # the id as requests name it
        self.ended: Literal["", "closed", "taken"] = ""

    def check(self) -> None:
        """Raises what an operation on an ended hold deserves."""
        if self.ended == "closed":
            raise Closed(f"you have deleted, stored or given back session {self.id}; nothing was sent")
        if self.ended:
            raise Fenced(f"session {self.id} was taken away from you; nothing was sent")


H = TypeVar("H", bound=Hold)


class WireSession(ABC, Generic[H]):
    """See `truba.session.Session`."""

    __slots__ = ("_hold",)

    def __init__(self, hold: H) -> None:
        self._hold = hold

    @property
    def hold(self) -> H:
        """What this process knows of its right to write."""
        return self._hold

    def __repr__(self) -> str:
        return f"<session {self._hold.id or 'being opened'} kind={self.kind} epoch={self.epoch}>"

    @property
    def id(self) -> Index:
        assert self._hold.id is not None  # users get a session once its New is answered
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

    @abstractmethod
    def _call(self, act: Act, request: bytes) -> Awaitable[Any]:
        """Send; to be awaited until answered with OK."""

    async def append(self, *records: bytes) -> None:
        if not records:
            raise BadRequest("append takes at least one record; nothing was sent")
        self._hold.check()
        await self._call("write", encode(b"APPEND", self._hold.ref, *map(plain, records)))

    async def replace(self, record: bytes) -> None:
        self._hold.check()
        await self._call("write", encode(b"REPLACE", self._hold.ref, plain(record)))

    async def delete(self) -> None:
        await self._end(encode(b"DELETE", self._hold.ref))

    async def store(self, seconds: float) -> None:
        if not (math.isfinite(seconds) and 0 <= seconds <= STORE_SECONDS_MAX):
            raise BadRequest(f"store takes seconds from 0 to ten years, not {seconds!r}; nothing was sent")
        await self._end(encode(b"STORE", self._hold.ref, b"%d.%03d" % divmod(math.ceil(seconds * 1000), 1000)))

    async def fail(self, reason: str = "") -> None:
        await self._end(encode(b"FAIL", self._hold.ref, reason.encode("utf-8", "replace")[:REASON_BYTES_MAX]))

    async def touch(self) -> None:
        self._hold.check()
        await self._call("touch", encode(b"TOUCH", self._hold.ref))

    async def _end(self, request: bytes) -> None:
        self._hold.check()
        self._hold.ended = "closed"
        await self._call("end", request)
