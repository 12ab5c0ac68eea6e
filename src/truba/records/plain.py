"""Records as bytes, and what all codecs have in common."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Generic, TypeVar

from truba.errors import BadRecord

R = TypeVar("R")

Show = Callable[[R], str]


class Bytes:
    """Records as they are. Shown: their size."""

    def encode(self, record: bytes) -> bytes:
        if not isinstance(record, bytes | bytearray | memoryview):
            raise BadRecord(f"a record is bytes, not {type(record).__name__}; nothing was stored")
        return bytes(record)

    def decode(self, data: bytes) -> bytes:
        return data

    def shown(self, data: bytes) -> str:
        return f"{len(data)} bytes"


class Checked(Generic[R]):
    """A codec that reads back what it has written. `show`: what may be shown of a record; without it, its type."""

    def __init__(self, write: Callable[[R], bytes], read: Callable[[bytes], R], show: Show[R] | None) -> None:
        self._write = write
        self._read = read
        self._show = show

    def encode(self, record: R) -> bytes:
        self._check(record)
        try:
            data = self._write(record)
        except Exception as error:  # whatever the user's own types raise
            raise BadRecord(f"{_name(record)} cannot be written: {error}; nothing was stored") from error
        try:
            back = self._read(data)
        except Exception as error:
            raise BadRecord(f"{_name(record)} could not be read again: {error}; nothing was stored") from error
        if type(back) is not type(record) or back != record:
            raise BadRecord(f"{_name(record)} would come back as another {_name(back)}; nothing was stored")
        return data

    def decode(self, data: bytes) -> R:
        try:
            return self._read(data)
        except Exception as error:
            raise BadRecord(f"{len(data)} bytes are no record of {self!r}: {error}") from error

    def shown(self, data: bytes) -> str:
        try:
            record = self._read(data)
            return _name(record) if self._show is None else self._show(record)
        except Exception:  # it is shown to people who look for what went wrong: they are told where it does not fit
            return f"{len(data)} bytes that are no record of {self!r}"

    def _check(self, record: Any) -> None:
        """BadRecord for what is of no type of this codec."""


def _name(record: object) -> str:
    return type(record).__name__
