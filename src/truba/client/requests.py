"""Requests as bytes, error replies as exceptions. Pure."""

from __future__ import annotations

from truba.errors import OPERATION_ERRORS, BadRequest, OperationError


def encode(*args: bytes) -> bytes:
    """A request: an array of bulk strings."""
    parts = [b"*%d\r\n" % len(args)]
    for arg in args:
        parts.append(b"$%d\r\n" % len(arg))
        parts.append(arg)
        parts.append(b"\r\n")
    return b"".join(parts)


def error_of(text: str) -> OperationError:
    """The exception that an error reply stands for: its first word is the code."""
    code, _, message = text.partition(" ")
    return OPERATION_ERRORS.get(code, BadRequest)(message or text)


def plain(record: object) -> bytes:
    """A record as bytes; TypeError before anything is sent."""
    if type(record) is bytes:
        return record
    if isinstance(record, bytes | bytearray | memoryview):
        return bytes(record)
    raise TypeError(f"a record is bytes, not {type(record).__name__}; nothing was sent")
