"""RESP answers and pushes as bytes: what a server writes. Pure; never splits, never buffers.

`proto` is 2 or 3, what the connection chose with HELLO. Only `null` and `map_` differ between them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Final

OK: Final = b"+OK\r\n"
PONG: Final = b"+PONG\r\n"

ERROR_BYTES_MAX = 512
"""Of the message of an error, in UTF-8: what fits on a screen; some clients bound an answer line at a few KiB."""

Value = str | bytes | int | None | Sequence["Value"] | Mapping[str | bytes, "Value"]
"""What `encode` takes. A str is sent as a bulk string in UTF-8; a bool as the integer 0 or 1, as in RESP2."""

_CONTROL = dict.fromkeys([*range(32), 127], " ")


def bulk(value: bytes) -> bytes:
    return b"$%d\r\n%b\r\n" % (len(value), value)


def integer(value: int) -> bytes:
    return b":%d\r\n" % value


def array(items: Sequence[bytes]) -> bytes:
    """An array of answers that are encoded already."""
    return array_in_pieces(len(items), items)


def array_in_pieces(count: int, pieces: Iterable[bytes]) -> bytes:
    """An array of `count` answers, of which a piece may hold any number."""
    return b"*%d\r\n%b" % (count, b"".join(pieces))


def map_(proto: int, pairs: Sequence[tuple[bytes, bytes]]) -> bytes:
    """A map of encoded keys and values; in RESP2 a flat array of key and value in turn."""
    head = b"%%%d\r\n" % len(pairs) if proto >= 3 else b"*%d\r\n" % (2 * len(pairs))
    return head + b"".join([part for pair in pairs for part in pair])


def null(proto: int) -> bytes:
    return b"_\r\n" if proto >= 3 else b"$-1\r\n"


def push(items: Iterable[int | bytes | str]) -> bytes:
    """A RESP3 push of integers and bulk strings, unencoded; a str is sent in UTF-8."""
    parts = [b""]
    for item in items:
        if isinstance(item, int):
            parts.append(b":%d\r\n" % item)
        else:
            text = item if isinstance(item, bytes) else item.encode("utf-8", "replace")
            parts.append(b"$%d\r\n%b\r\n" % (len(text), text))
    parts[0] = b">%d\r\n" % (len(parts) - 1)
    return b"".join(parts)


def error(code: str, message: str) -> bytes:
    """One line: the word, a space, the message. Control characters become spaces; what is too long ends in `...`."""
    text = message.translate(_CONTROL).encode("utf-8", "replace")
    if len(text) > ERROR_BYTES_MAX:
        text = text[: ERROR_BYTES_MAX - 3].decode("utf-8", "ignore").encode() + b"..."
    return b"-%b %b\r\n" % (code.encode(), text)


def encode(value: Value, proto: int) -> bytes:
    """A nested value. The caller bounds its depth; TypeError for a type that has no answer."""
    match value:
        case bytes():
            return b"$%d\r\n%b\r\n" % (len(value), value)
        case int():
            return b":%d\r\n" % value
        case str():
            text = value.encode("utf-8", "replace")
            return b"$%d\r\n%b\r\n" % (len(text), text)
        case None:
            return null(proto)
        case Mapping():
            return map_(proto, [(encode(key, proto), encode(item, proto)) for key, item in value.items()])
        case Sequence():
            return array([encode(item, proto) for item in value])
        case _:
            raise TypeError(f"no answer is made of {type(value).__name__}")
