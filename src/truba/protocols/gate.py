"""What comes ahead of a parser of answers that believes lengths: it lets through what the parser may see. Pure.

The parser of the client's side is written in C and makes a list as long as its header says before anything is in it:
`*1000000000` takes 8 GB. The gate reads the headers only, in the same framing, and keeps two bounds:

* a message that would take more memory than `bytes_max` is refused at the header that says so;
* the parser is never promised more than `PROMISED_MAX` values that have not come: the bytes of a longer list are held
  back until so few are missing.

So what a peer can make us hold is at most `bytes_max` of its own bytes, and what they are parsed into.
"""

from __future__ import annotations

CRLF = b"\r\n"

VALUE_BYTES = 64
"""What a value is reckoned to take besides its bytes: the smallest ones (`*0`, four bytes) take that in Python."""

PROMISED_MAX = 1_024
LINE_BYTES_MAX = 4_096
"""Of a header, a number or an error. The parser looks through an unfinished line again with each piece of it."""

_LENGTH_DIGITS_MAX = 10
_STRINGS = frozenset(b"$=")
_LISTS = frozenset(b"*~>%")
_MAP = ord("%")
_LINES = frozenset(b"+-:_#,(")
_FIRST = _STRINGS | _LISTS | _LINES


class GateClosed(ValueError):
    """What a peer says is no answer of a pipe, or larger than any; nothing of the message at fault was let through."""


class Gate:
    """Of one connection. Once it has raised GateClosed the connection is of no use."""

    __slots__ = ("_held", "_left_bytes", "_line", "_missing", "_skip", "bytes_max")

    def __init__(self, bytes_max: int) -> None:
        self.bytes_max = bytes_max
        self._left_bytes = bytes_max  # of the message under way
        self._missing = 0  # values of it that are still to come, however deep; 0: between messages
        self._skip = 0  # bytes of the string under way, with its CR LF, that are still to come
        self._line = b""  # a header that has begun and not ended
        self._held: list[bytes] = []

    @property
    def idle(self) -> bool:
        """Between two messages: nothing of the next one has come."""
        return not self._missing

    def take(self, data: bytes) -> bytes:
        """What may be parsed now, of this and of what was held back. GateClosed."""
        at = whole = 0
        while at < len(data):
            if self._skip:
                step = min(self._skip, len(data) - at)
                at += step
                self._skip -= step
                if not self._skip:
                    self._missing -= 1
            else:
                at = self._take_line(data, at)
            if not self._missing:
                whole = at
        if self._missing <= PROMISED_MAX:
            whole = len(data)
        if not whole:
            self._held.append(data)
            return b""
        let = b"".join((*self._held, data[:whole])) if self._held else data[:whole]
        self._held = [data[whole:]] if whole < len(data) else []
        return let

    def _take_line(self, data: bytes, at: int) -> int:
        """One header, or a value that is a line; the offset reached."""
        if not self._missing:
            self._missing, self._left_bytes = 1, self.bytes_max
        before = self._line
        head = before + data[at : at + LINE_BYTES_MAX - len(before)]
        kind, end = head[0], head.find(CRLF)
        if kind not in _FIRST:
            raise GateClosed(f"no answer begins with {head[:1]!r}")
        if end < 0:
            if len(head) >= LINE_BYTES_MAX:
                raise GateClosed("a line without an end")
            self._line = head
            return len(data)
        self._line = b""
        self._left_bytes -= end + 2 + VALUE_BYTES
        if kind in _LINES:
            self._missing -= 1
        else:
            length = _length(head[1:end])
            if kind in _STRINGS and length >= 0:
                self._left_bytes -= length + 2
                self._skip = length + 2
            elif kind == _MAP and length > 0:
                self._missing += 2 * length - 1
            else:  # a list; or nothing follows: null, or empty
                self._missing += max(length, 0) - 1
        if self._missing * VALUE_BYTES > self._left_bytes:
            raise GateClosed(f"a message that takes more than {self.bytes_max} bytes")
        return at + end + 2 - len(before)


def _length(digits: bytes) -> int:
    if digits == b"-1":
        return -1
    plain = digits.isdigit() and len(digits) <= _LENGTH_DIGITS_MAX and (digits[0] != 0x30 or len(digits) == 1)
    if not plain:
        raise GateClosed(f"{digits[:48]!r} is no length")
    return int(digits)
