"""Codecs: what a session's records are for those who write and read them. The pipe keeps bytes, and asks no codec.

Shipped: `truba.records` (bytes, JSON, msgspec structs, pydantic models).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Protocol, TypeVar

R = TypeVar("R")


class Codec(Protocol[R]):
    """Turns records into bytes and back. `decode(encode(record)) == record`, or `encode` refuses the record."""

    def encode(self, record: R, /) -> bytes:
        """BadRecord: this could not be read again; nothing was stored."""

    def decode(self, data: bytes, /) -> R:
        """BadRecord: these bytes are no record of this codec."""

    def shown(self, data: bytes, /) -> str:
        """What may be shown of a record where people look: in a `repr`, in a log, to an operator. Never raises; says
        nothing of the contents unless whoever made the codec has allowed it."""


class Shown:
    """What may be shown of some records; worked out when somebody looks."""

    __slots__ = ("_codec", "_records")

    def __init__(self, codec: Codec[Any], records: Sequence[bytes]) -> None:
        self._codec = codec
        self._records = records

    def __iter__(self) -> Iterator[str]:
        return map(self._codec.shown, self._records)

    def __repr__(self) -> str:
        return f"[{', '.join(self)}]"
