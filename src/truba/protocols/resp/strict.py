"""The reference parser of requests: plain Python, one decision at a time, the same for every way to cut the stream.

It decides what is lost on the bytes alone, never on where a chunk ended, and refuses a length at its header. It never
copies a byte more than a fixed number of times, however small the chunks.
"""

from __future__ import annotations

from dataclasses import dataclass

from truba.errors import BadRequest, OperationError, TooBig, TrubaError
from truba.protocols.resp.inline import inline_words

CRLF = b"\r\n"
_HEADER_BYTES_MAX = 13  # type, ten digits, CR LF
_ARRAY, _BULK = ord("*"), ord("$")
_TLS_HANDSHAKE = 0x16
_INLINE_STARTS = frozenset(b'abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789" \t\r\n')
_HTTP_WORDS = frozenset((b"post", b"host:"))


@dataclass(frozen=True, slots=True)
class Limits:
    """Bounds of one request."""

    args_max: int = 65_536
    """A session's default limit of records: what one APPEND could usefully carry."""
    request_bytes_max: int = 64 << 20
    """The whole request, framing included: the default size of a whole session."""
    inline_bytes_max: int = 64 << 10
    """One line, its end included. People type these."""


class FramingLost(TrubaError):
    """Where the next request begins can no longer be told: answer with `error`, then close.

    `error` is a BadRequest or a TooBig. `requests` are those of the same chunk that were complete before; they stand,
    and are answered first.
    """

    def __init__(self, error: OperationError, requests: list[list[bytes]]) -> None:
        super().__init__(str(error))
        self.error = error
        self.requests = requests


class StrictParser:
    """Requests out of chunks; see the package for the grammar."""

    __slots__ = ("_args", "_bulk", "_bulk_bytes", "_limits", "_line", "_lost", "_missing", "_used_bytes")

    def __init__(self, limits: Limits | None = None) -> None:
        self._limits = limits or Limits()
        self._line = bytearray()  # a header or inline line that has begun and not ended
        self._args: list[bytes] = []  # of the request under way
        self._missing = 0  # arguments of it still to come, the one under way included; 0: between requests
        self._bulk = bytearray()  # the argument under way, as far as it came
        self._bulk_bytes = -1  # its length; -1: its header is still to come
        self._used_bytes = 0  # of the request under way, through its last header or argument
        self._lost: OperationError | None = None

    @property
    def idle(self) -> bool:
        """No request has begun, and nothing is lost: the next byte is a request's first."""
        return not self._missing and not self._line and self._lost is None

    def feed(self, data: bytes) -> list[list[bytes]]:
        """The requests that `data` completes. Raises FramingLost, and again whenever more comes."""
        requests: list[list[bytes]] = []
        at = 0
        while at < len(data):
            at = self.take(data, at, requests)
        return requests

    def take(self, data: bytes, at: int, requests: list[list[bytes]]) -> int:
        """Read from offset `at` to the end of one request, or of the data; the offset reached.

        A completed request is added to `requests`; skipped ones (`*0`, empty lines) are not. Raises FramingLost with
        that same list.
        """
        if self._lost is not None:
            raise FramingLost(self._lost, requests)
        try:
            if not self._missing:
                first = self._line[0] if self._line else data[at]
                if first != _ARRAY:
                    return self._take_inline(first, data, at, requests)
                at = self._take_count(data, at)
            while self._missing and at < len(data):
                at = self._take_length(data, at) if self._bulk_bytes < 0 else self._take_bulk(data, at)
                if not self._missing:
                    requests.append(self._args)
                    self._args = []
        except OperationError as error:
            self._lost = error
            self._args, self._bulk, self._line = [], bytearray(), bytearray()
            raise FramingLost(error, requests) from None
        return at

    def _take_header(self, data: bytes, at: int) -> tuple[bytes | None, int]:
        """The digits between type and CR LF, None if they are not all there yet; and the offset reached."""
        held = len(self._line)
        head = (
            data[at : at + _HEADER_BYTES_MAX]
            if not held
            else bytes(self._line) + data[at : at + _HEADER_BYTES_MAX - held]
        )
        end = head.find(CRLF)
        if end >= 0:
            if held:
                self._line.clear()
            self._used_bytes += end + 2
            return head[1:end], at + end + 2 - held
        if len(head) == _HEADER_BYTES_MAX:
            raise _bad(f"{_shown(head)} is no length: it must be at most 10 digits, then CR LF")
        self._line[:] = head
        return None, len(data)

    def _take_count(self, data: bytes, at: int) -> int:
        digits, at = self._take_header(data, at)
        if digits is None:
            return at
        count = 0 if digits == b"-1" else _number(digits, "count of arguments")
        if count > self._limits.args_max:
            raise _too_big(f"a request of {count} arguments", self._limits.args_max)
        self._missing = count
        if not count:
            self._used_bytes = 0
        return at

    def _take_length(self, data: bytes, at: int) -> int:
        if not self._line and data[at] != _BULK:
            raise _bad(f"an argument begins with '$', not {_shown(data[at : at + 1])}: arrays hold bulk strings only")
        digits, at = self._take_header(data, at)
        if digits is None:
            return at
        length_bytes = _number(digits, "length")
        whole_bytes = self._used_bytes + length_bytes + 2
        if whole_bytes > self._limits.request_bytes_max:
            raise _too_big(f"a request of at least {whole_bytes} bytes", self._limits.request_bytes_max)
        self._bulk_bytes = length_bytes
        return at

    def _take_bulk(self, data: bytes, at: int) -> int:
        length_bytes, bulk = self._bulk_bytes, self._bulk
        end = at + length_bytes + 2 - len(bulk)
        if not bulk and end <= len(data):
            arg, after = data[at : end - 2], data[end - 2 : end]
        else:
            bulk += data[at:end]
            if end > len(data):
                return len(data)
            after = bytes(bulk[length_bytes:])
            del bulk[length_bytes:]
            arg = bytes(bulk)
            self._bulk = bytearray()
        if after != CRLF:
            raise _bad(f"a bulk string of {length_bytes} bytes is followed by {_shown(after)} instead of CR LF")
        self._args.append(arg)
        self._missing -= 1
        self._bulk_bytes = -1
        self._used_bytes = self._used_bytes + length_bytes + 2 if self._missing else 0
        return end

    def _take_inline(self, first: int, data: bytes, at: int, requests: list[list[bytes]]) -> int:
        if first not in _INLINE_STARTS:
            if first == _TLS_HANDSHAKE:
                raise _bad("this looks like TLS, and this port does not speak it")
            raise _bad(
                f"a request begins with '*' or is a line of words; this one begins with {_shown(bytes((first,)))}"
            )
        bytes_max = self._limits.inline_bytes_max
        stop = at + bytes_max - len(self._line)
        end = data.find(b"\n", at, stop) + 1
        self._line += data[at : end or stop]
        if not end:
            if stop <= len(data):
                raise _too_big(f"a line of words of at least {bytes_max} bytes", bytes_max)
            return len(data)
        line = bytes(self._line)
        self._line = bytearray()
        try:
            words = inline_words(line)
        except ValueError as problem:
            raise _bad(f"{problem} in a line of words") from None
        if words:
            if words[0].lower() in _HTTP_WORDS:
                raise _bad("this looks like HTTP, and this port does not speak it")
            requests.append(words)
        return end


def _number(digits: bytes, what: str) -> int:
    if not digits.isdigit() or (digits[0] == 0x30 and len(digits) > 1):
        raise _bad(f"{_shown(digits)} is no {what}: it must be decimal digits only")
    return int(digits)


def _bad(what: str) -> BadRequest:
    return BadRequest(f"{what}; nothing was stored, the connection is closed")


def _too_big(what: str, limit: int) -> TooBig:
    return TooBig(f"{what} is over the limit of {limit}; nothing was stored, the connection is closed")


def _shown(some: bytes) -> str:
    return repr(some)[1:]
