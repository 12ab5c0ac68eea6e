"""Requests and their bytes, shared by the tests of the parsers: an encoder, both parsers run alike, strategies."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import pairwise
from typing import NamedTuple

from hypothesis import strategies as st

from truba.protocols.resp import FramingLost, Limits, RequestParser, StrictParser

Parser = StrictParser | RequestParser
PARSERS: tuple[type[Parser], ...] = (StrictParser, RequestParser)


class Outcome(NamedTuple):
    """What a parser made of a stream: the requests, and the word and text of the error that ended it."""

    requests: list[list[bytes]]
    lost: tuple[str, str] | None


def encoded(args: Sequence[bytes]) -> bytes:
    return b"*%d\r\n" % len(args) + b"".join(b"$%d\r\n%b\r\n" % (len(arg), arg) for arg in args)


def outcome(parser: Parser, chunks: Iterable[bytes]) -> Outcome:
    requests: list[list[bytes]] = []
    for chunk in chunks:
        try:
            requests += parser.feed(chunk)
        except FramingLost as lost:
            requests += lost.requests
            return Outcome(requests, (lost.error.code, str(lost.error)))
    return Outcome(requests, None)


def by_chunk(parser: Parser, chunks: Iterable[bytes]) -> list[Outcome]:
    """What each chunk gave: both parsers must give each request with the same chunk, not merely in the end."""
    return [outcome(parser, (chunk,)) for chunk in chunks]


def cut(data: bytes, places: Iterable[int]) -> list[bytes]:
    bounds = [0, *sorted(place % (len(data) + 1) for place in places), len(data)]
    return [data[begin:end] for begin, end in pairwise(bounds)]


def agreed(chunks: Sequence[bytes], limits: Limits | None = None) -> Outcome:
    """The outcome, once both parsers gave the same with every chunk."""
    strict, fast = (by_chunk(parser(limits), chunks) for parser in PARSERS)
    assert strict == fast
    return outcome(RequestParser(limits), chunks)


SPICE = (b"\r\n", b"\r", b"\n", b"*", b"\r\n*", b"\r\n$", b"$3\r\n", b"*1\r\n$4\r\nPING\r\n", b"$-1", b"")
"""What a careless parser would take for framing, used as content."""

contents = st.one_of(
    st.binary(max_size=40),
    st.lists(st.one_of(st.sampled_from(SPICE), st.binary(max_size=4)), max_size=6).map(b"".join),
    st.builds(
        lambda byte, size: byte * size,
        st.sampled_from((b"x", b"\r", b"\n", b"*")),
        st.sampled_from((1022, 4095, 4096, 5000)),
    ),
)
requests = st.lists(contents, min_size=1, max_size=5)
cuts = st.lists(st.integers(min_value=0, max_value=1 << 20), max_size=8)
