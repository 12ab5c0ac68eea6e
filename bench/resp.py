"""Microseconds per request of the parsers: `python -m bench.resp`.

One processor, best of several rounds, everything in cache: a floor, not what a busy server sees. `raw hiredis` is a
parser in C without any of the checks: it believes lengths and does not look at the bytes after a bulk string, so it
is here as a mark and cannot be put in place of the others. `+ re-encoded` adds the cheapest proof of what it read
(each request encoded again and compared), still without a guard against lengths.
"""

from __future__ import annotations

import timeit
from collections.abc import Callable

import hiredis

from truba.protocols.resp import RequestParser, StrictParser

ROUNDS = 9
ROUND_S = 0.05

Feed = Callable[[bytes], object]


def encoded(*args: bytes) -> bytes:
    return b"*%d\r\n" % len(args) + b"".join(b"$%d\r\n%b\r\n" % (len(arg), arg) for arg in args)


def raw() -> Callable[[bytes], list[list[bytes]]]:
    reader = hiredis.Reader()

    def feed(data: bytes) -> list[list[bytes]]:
        reader.feed(data)
        found: list[list[bytes]] = []
        while (request := reader.gets()) is not False:
            found.append(request)
        return found

    return feed


def proven() -> Feed:
    feed_raw, pack = raw(), hiredis.pack_command

    def feed(data: bytes) -> object:
        found = feed_raw(data)
        assert b"".join([pack(tuple(request)) for request in found]) == data
        return found

    return feed


def us_per_request(feed: Feed, data: bytes, count: int) -> float:
    timer = timeit.Timer(lambda: feed(data))
    once_s = max(timer.timeit(20) / 20, 1e-7)
    turns = max(1, int(ROUND_S / once_s))
    return min(timer.repeat(ROUNDS, turns)) / turns / count * 1e6


def main() -> None:
    append = encoded(b"APPEND", b"3-117", b"x" * 256)
    crlf = encoded(b"APPEND", b"3-117", b"x" * 100 + b"\r\n" + b"x" * 154)
    cases = [
        ("APPEND of 256 bytes, one a chunk", append, 1),
        ("the same, 64 a chunk", append * 64, 64),
        ("DELETE, one a chunk", encoded(b"DELETE", b"3-117"), 1),
        ("APPEND of 3 x 256 bytes, one a chunk", encoded(b"APPEND", b"3-117", *[b"x" * 256] * 3), 1),
        ("APPEND with CR LF in the record, one", crlf, 1),
        ("the same, 64 a chunk", crlf * 64, 64),
        ("APPEND of 16 KiB, one a chunk", encoded(b"APPEND", b"3-117", b"x" * 16_384), 1),
    ]
    print(f"{'us per request':40}{'fast':>8}{'strict':>8}{'raw hiredis':>13}{'+ re-encoded':>14}")  # noqa: T201 - its output
    for name, data, count in cases:
        feeds = RequestParser().feed, StrictParser().feed, raw(), proven()
        fast, strict, mark, proof = (us_per_request(feed, data, count) for feed in feeds)
        print(f"{name:40}{fast:8.2f}{strict:8.2f}{mark:13.2f}{proof:14.2f}")  # noqa: T201


if __name__ == "__main__":
    main()
