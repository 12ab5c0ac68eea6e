"""The first words of a pipe that has dialled us: `>4 hello truba <version> <secret>`. Pure.

Read by hand and not by the parser that reads what follows: that one believes lengths, and nobody has proved anything
yet. At most `HELLO_BYTES_MAX` are looked at; the first byte that a pipe would not send is the last one read.
"""

from __future__ import annotations

from typing import NamedTuple

HELLO_BYTES_MAX = 4096
LENGTH_DIGITS_MAX = 4

_BEGIN = b">4\r\n$5\r\nhello\r\n$5\r\ntruba\r\n"


class Hello(NamedTuple):
    """What was said, and where in the input it ends."""

    version: bytes
    secret: bytes
    end: int


def read_hello(data: bytes | bytearray) -> Hello | None:
    """The hello at the beginning of all input so far; None: not complete yet. ValueError: this is no pipe."""
    if not data.startswith(_BEGIN):
        if _BEGIN.startswith(data):
            return None
        raise ValueError("this is not how a pipe begins")
    version = _bulk(data, len(_BEGIN))
    if version is None:
        return None
    secret = _bulk(data, version[1])
    if secret is None:
        return None
    return Hello(version[0], *secret)


def _bulk(data: bytes | bytearray, at: int) -> tuple[bytes, int] | None:
    """A bulk string and where it ends."""
    head = bytes(data[at : at + 1 + LENGTH_DIGITS_MAX + 2])
    digits, cr, lf = head[1:].partition(b"\r")
    if (head and head[:1] != b"$") or (digits and not digits.isdigit()) or len(digits) > LENGTH_DIGITS_MAX:
        raise ValueError("a hello is made of short bulk strings")
    if (cr and not digits) or (lf and lf[:1] != b"\n"):
        raise ValueError("a hello is made of short bulk strings")
    if not lf:
        return None
    start = at + 1 + len(digits) + 2
    end = start + int(digits)
    if end + 2 > HELLO_BYTES_MAX:
        raise ValueError("a hello is short")
    if not b"\r\n".startswith(data[end : end + 2]):
        raise ValueError("a hello is made of short bulk strings")
    if len(data) < end + 2:
        return None
    return bytes(data[start:end]), end + 2
