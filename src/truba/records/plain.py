"""Records as bytes, and what all codecs have in common."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, Generic, TypeVar

from truba.errors import BadRecord, ConfigError

R = TypeVar("R")

Show = Callable[[R], str] | Sequence[str]
"""What may be shown of a record: what a function makes of it, or the fields with these names and no others."""


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


class Checked(ABC, Generic[R]):
    """A codec that reads back what it has written. `show`: what may be shown of a record; without it, its type.

    `known`: the names of all fields that its records can have; None: that cannot be told.
    """

    def __init__(
        self,
        write: Callable[[R], bytes],
        read: Callable[[bytes], R],
        show: Show[R] | None,
        known: Collection[str] | None = None,
    ) -> None:
        self._write = write
        self._read = read
        self._show: Callable[[R], str]
        if show is None:
            self._show = _name
        elif callable(show):
            self._show = show
        else:
            self._show = self._only(show, known)

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
        return self._show(self.decode(data))

    def _check(self, record: Any) -> None:
        """BadRecord for what is of no type of this codec."""

    @abstractmethod
    def _fields(self, record: R) -> Mapping[str, Any] | None:
        """All of them, in order; None: this record has none."""

    def _only(self, names: Sequence[str], known: Collection[str] | None) -> Callable[[R], str]:
        """ConfigError for a name that no record can have: it would hide what somebody wants to see."""
        if isinstance(names, str):
            raise ConfigError(f"show={names!r}: write a function, or a list of names of fields: [{names!r}]")
        if known is not None and (strange := [name for name in names if name not in known]):
            raise ConfigError(f"{self!r} has no field {strange[0]!r} to show; there are {', '.join(known)}")
        chosen = frozenset(names)

        def show(record: R) -> str:
            fields = self._fields(record)
            if fields is None:
                return _name(record)
            told = [f"{name}={value!r}" for name, value in fields.items() if name in chosen]
            rest = ["…"] if len(told) < len(fields) else []
            return f"{_name(record)}({', '.join(told + rest)})"

        return show


def _name(record: object) -> str:
    return type(record).__name__
