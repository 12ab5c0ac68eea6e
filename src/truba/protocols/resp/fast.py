"""The same requests as the reference parser's, at a fraction of its price. Never decides that something is wrong.

A chunk that begins with a request is split at CR LF, and what came out is taken only if it is, byte for byte, what an
encoder writes for those arguments: then the reference parser would say the same. Whatever is not so plain (a request
cut by the end of the chunk, CR LF inside an argument, a long argument, anything wrong) is left to the reference
parser from that request's first byte. Nothing here believes a length, so there is nothing to guard.

A parser in C was measured too (`bench/resp.py`). It takes lengths on trust and does not look at the bytes after a bulk
string, so each chunk must be searched for counts ahead of it, and each result encoded again and compared: for one
request in a chunk that costs twice the split, for many it comes to the same.
"""

from __future__ import annotations

from truba.protocols.resp.strict import CRLF, Limits, StrictParser

# Longer arguments are rare and their copy outweighs the parsing; the tables take 0.6 MB.
_ARG_BYTES_END = 4_096
_HEADER = [b"$%d" % length for length in range(_ARG_BYTES_END)]
"""Length of an argument -> its header."""
_TAIL_BYTES = {header: length + 2 for length, header in enumerate(_HEADER)}
"""Header -> length of the argument with its CR LF."""
_ARGS_END = 256
_COUNT = {b"*%d" % count: count for count in range(1, _ARGS_END)}


class RequestParser:
    """Requests out of chunks, as `StrictParser` has them."""

    __slots__ = ("_plain", "_request_bytes_max", "_roomy", "_strict")

    def __init__(self, limits: Limits | None = None) -> None:
        limits = limits or Limits()
        self._strict = StrictParser(limits)
        # With room for whatever the tables hold, no plain request can be over a limit unless its chunk is.
        self._roomy = limits.args_max >= _ARGS_END and limits.request_bytes_max >= 4 * _ARG_BYTES_END
        self._request_bytes_max = limits.request_bytes_max
        self._plain = self._roomy  # the next byte is a request's first, and the short way may be tried

    def feed(self, data: bytes) -> list[list[bytes]]:
        """The requests that `data` completes. Raises FramingLost, and again whenever more comes."""
        # One request of two or three arguments in a chunk is most of the traffic: written out, without loops.
        if self._plain:
            try:
                match data[:4]:
                    case b"*3\r\n":
                        _, h1, a1, h2, a2, h3, tail = data.split(CRLF, 6)
                        if (
                            _TAIL_BYTES[h3] == len(tail)
                            and _HEADER[len(a1)] == h1
                            and _HEADER[len(a2)] == h2
                            and tail.endswith(CRLF)
                        ):
                            return [[a1, a2, tail[:-2]]]
                    case b"*2\r\n":
                        _, h1, a1, h2, tail = data.split(CRLF, 4)
                        if _TAIL_BYTES[h2] == len(tail) and _HEADER[len(a1)] == h1 and tail.endswith(CRLF):
                            return [[a1, tail[:-2]]]
            except ValueError:
                pass  # fewer lines: the chunk ends inside the request
            except LookupError:
                return self._feed_strict(data, 0, [])  # a long argument: not worth another split
        return self._feed_mixed(data)

    def _feed_mixed(self, data: bytes) -> list[list[bytes]]:
        """Finish what an earlier chunk began, take what is plain after it, leave the rest to the reference parser."""
        strict, requests, at = self._strict, list[list[bytes]](), 0
        if not self._plain:
            while at < len(data) and (at == 0 or not strict.idle):
                at = strict.take(data, at, requests)
        if self._roomy and len(data) <= self._request_bytes_max:
            at = _take_plain(data[at:] if at else data, requests) + at
        return self._feed_strict(data, at, requests)

    def _feed_strict(self, data: bytes, at: int, requests: list[list[bytes]]) -> list[list[bytes]]:
        self._plain = False  # and so it stays if the framing is lost here
        while at < len(data):
            at = self._strict.take(data, at, requests)
        self._plain = self._roomy and self._strict.idle
        return requests


def _take_plain(data: bytes, requests: list[list[bytes]]) -> int:
    """Add the requests at the front of `data` that are plain; the offset where the first one that is not begins."""
    lines = data.split(CRLF)
    end = len(lines) - 1  # the last one has no CR LF after it
    at = 0
    try:
        while at < end:
            first = at + 1
            after = first + 2 * _COUNT[lines[at]]
            args = lines[first + 1 : after : 2]
            if after > end or lines[first:after:2] != [*map(_HEADER.__getitem__, map(len, args))]:
                break
            requests.append(args)
            at = after
    except LookupError:
        pass  # an odd count, or a long argument
    return len(data) - sum(map(len, lines[at:])) - len(CRLF) * (end - at)
