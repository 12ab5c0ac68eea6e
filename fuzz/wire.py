"""What comes over a connection: requests, hello, answers, and the words of requests."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from types import SimpleNamespace
from typing import Any, cast

import hiredis

from fuzz.target import Tape, Target
from truba.client.answers import NOT_A_PIPE, Answers
from truba.client.hello import HELLO_BYTES_MAX, read_hello
from truba.client.requests import encode, error_of
from truba.cluster.answers import NoAnswer, read_answer
from truba.errors import BadRequest, OperationError
from truba.protocols import grammar, replies
from truba.protocols.gate import LINE_BYTES_MAX
from truba.protocols.resp import FramingLost, Limits, RequestParser, StrictParser
from truba.types import Index

# -- requests: the strict parser and the fast one are one -------------------------------------------------------------

_LIMITS = (
    Limits(),
    Limits(args_max=256, request_bytes_max=16_384, inline_bytes_max=64),
    Limits(args_max=3, request_bytes_max=60, inline_bytes_max=16),
)
_TOKENS = (
    b"\r\n", b"\r", b"\n", b"*", b"$", b"*3\r\n", b"*2\r\n", b"*0\r\n", b"*-1\r\n", b"$-1\r\n", b"$0\r\n\r\n",
    b"*4000000000\r\n", b"$4000000000\r\n", b"*1\r\n*1\r\n", b"%1\r\n", b">2\r\n", b"~1\r\n", b":1\r\n", b"_\r\n",
    b"$1022\r\n", b"$4094\r\n", b"$4095\r\n", b"PING\r\n", b'"a b"', b'"', b"\\x41", b" ", b"\x00", b"\x16", b"POST ",
    b"$03\r\nabc\r\n", b"$3\r\nabcXX*99999\r\n", b"*65536\r\n", b"-ERR x\r\n",
)  # fmt: skip


def _argument(dice: random.Random) -> bytes:
    match dice.randrange(6):
        case 0:
            return dice.randbytes(dice.randrange(300))
        case 1:
            return b"".join(dice.choices(_TOKENS, k=dice.randrange(5)))
        case 2:
            return b"z" * dice.choice((0, 1, 9, 9, 1021, 1022, 4094, 4095, 4096, 20_000))
        case _:
            return b"%d-%d" % (dice.randrange(9), dice.randrange(10**6))


def _requests(dice: random.Random) -> bytes:
    """How it is cut, and a stream of requests."""
    parts = [dice.randbytes(_HEAD_BYTES)]
    for _ in range(dice.choice((1, 1, 2, 5, 5, 20))):
        args = [_argument(dice) for _ in range(dice.choice((1, 2, 2, 3, 3, 4, 9)))]
        parts.append(encode(*args))
        if dice.random() < 0.1:
            parts.append(dice.choice(_TOKENS))
    return b"".join(parts)


_HEAD_BYTES = 16


def _split(data: bytes) -> tuple[Tape, list[bytes]]:
    """The first bytes say where the rest is cut: at a few places, or into small pieces of one size."""
    tape, stream = Tape(data[:_HEAD_BYTES]), data[_HEAD_BYTES:]
    match tape.number(4):
        case 0:
            size = 1 + tape.number(8) + len(stream) // 2_000
            return tape, [stream[at : at + size] for at in range(0, len(stream), size)]
        case 1:
            return tape, [stream]
        case count:
            return tape, tape.cuts(stream, count + tape.number(2))


Steps = list[tuple[list[list[bytes]], str]]


def _steps(parser: StrictParser | RequestParser, chunks: Iterable[bytes]) -> Steps:
    """Of each chunk: what it gave, and the error."""
    steps: Steps = []
    for chunk in chunks:
        try:
            steps.append((parser.feed(chunk), ""))
        except FramingLost as lost:
            steps.append((lost.requests, f"{lost.error.code} {lost}"))
    return steps


def requests(data: bytes) -> None:
    """Both parsers say the same with each chunk, and the same whatever the chunks are; what they take is in bounds."""
    tape, chunks = _split(data)
    limits = _LIMITS[tape.number(len(_LIMITS))]
    strict, fast = (_steps(parser(limits), chunks) for parser in (StrictParser, RequestParser))
    assert strict == fast, f"with {limits}\nof      {chunks}\nstrict  {strict}\nfast    {fast}"
    whole = _steps(RequestParser(limits), [b"".join(chunks)])
    told = [request for found, _ in fast for request in found], next((error for _, error in fast if error), "")
    assert not whole or whole == [told], f"with {limits}\nof      {chunks}\ncut     {fast}\nwhole   {whole}"
    for request in told[0]:
        assert request
        assert len(request) <= max(limits.args_max, limits.inline_bytes_max)
        assert sum(map(len, request)) <= max(limits.request_bytes_max, limits.inline_bytes_max)
        assert RequestParser(Limits()).feed(encode(*request)) == [request]


# -- hello: what a handler service reads first ------------------------------------------------------------------------


def _hello(dice: random.Random) -> bytes:
    secret = dice.randbytes(4_000 if dice.random() < 0.05 else dice.choice((0, 1, 9, 10, 64)))
    return replies.push([b"hello", b"truba", b"1", secret]) + dice.choice((b"", b":1\r\n"))


def hello(data: bytes) -> None:
    """More bytes never change what was decided, and a decision comes before much was said."""
    decided: object = None
    for end in range(min(len(data), HELLO_BYTES_MAX + 64) + 1):
        try:
            found: object = read_hello(data[:end])
        except ValueError:
            found = "refused"
        assert decided is None or found == decided
        decided = found
        assert found is not None or end < HELLO_BYTES_MAX + 16


# -- answers: the client's side ---------------------------------------------------------------------------------------


def _value(dice: random.Random, depth: int = 0) -> replies.Value:
    match dice.randrange(7 if depth < 4 else 5):
        case 0:
            return None
        case 1:
            return dice.randrange(-(2**40), 2**40)
        case 2:
            return dice.choice(_TOKENS)
        case 3 | 4:
            return dice.randbytes(dice.choice((0, 1, 5, 300)))
        case 5:
            return {dice.randbytes(3): _value(dice, depth + 1) for _ in range(dice.randrange(4))}
        case _:
            return [_value(dice, depth + 1) for _ in range(dice.choice((0, 1, 4, 30)))]


def _answers(dice: random.Random) -> bytes:
    parts = [dice.randbytes(_HEAD_BYTES)]
    for _ in range(dice.choice((1, 2, 5))):
        match dice.randrange(4):
            case 0:
                parts.append(replies.error("BUSY", "held > by *1 %2"))
            case 1:
                parts.append(replies.OK)
            case 2:
                records = [dice.randbytes(dice.randrange(40)) for _ in range(dice.randrange(40))]
                parts.append(replies.push([b"repeat", b"1-3", 1, 7, 1, 60_000, b"lost", *records]))
            case _:
                parts.append(replies.encode(_value(dice), 3))
    return b"".join(parts)


class _Unlike(Exception):
    """Not what a pipe writes: the plain reader has no opinion."""


class _Plain:
    """A reader of what pipes write, as plain as can be. IndexError, ValueError: cut short, or _Unlike."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self.at = 0

    def _until(self) -> bytes:
        end = self._data.index(b"\r\n", self.at)
        line, self.at = self._data[self.at : end], end + 2
        return line

    def value(self) -> Any:
        if self._data[self.at] not in b"+-_:$*>%":
            raise _Unlike
        line = self._until()
        kind, rest = line[:1], line[1:]
        if len(line) > LINE_BYTES_MAX:
            raise _Unlike
        match kind:
            case b"+" if b"\r" not in rest and b"\n" not in rest:
                return rest
            case b"-" if b"\r" not in rest and b"\n" not in rest:
                return "error"
            case b"_" if not rest:
                return None
            case b":" | b"$" | b"*" | b">" | b"%" if _canonical(rest):
                return self._counted(kind, int(rest))
        raise _Unlike

    def _counted(self, kind: bytes, number: int) -> Any:
        if kind == b":":
            return number
        if number < 0:
            if number != -1 or kind in b">%":
                raise _Unlike
            return None
        if kind == b"$":
            found = self._data[self.at : self.at + number]
            self.at += number + 2
            if self.at > len(self._data):
                raise IndexError
            return found
        if kind == b"%":
            pairs = [(self.value(), self.value()) for _ in range(number)]
            if not all(isinstance(key, bytes) for key, _ in pairs):
                raise _Unlike
            return dict(pairs)
        return [self.value() for _ in range(number)]


def _canonical(digits: bytes) -> bool:
    return digits.removeprefix(b"-").isdigit() and len(digits) < 19 and b"%d" % int(digits) == digits


def _plain(stream: bytes) -> tuple[list[Any], bool]:
    """The values, and whether the stream was these and nothing else."""
    reader, values, at = _Plain(stream), list[Any](), 0
    while at < len(stream):
        try:
            values.append(reader.value())
        except (_Unlike, RecursionError, ValueError, IndexError):
            return values, False
        at = reader.at
    return values, True


def _heard(chunks: Sequence[bytes], bytes_max: int) -> tuple[list[Any], bool]:
    """The values, and whether they ended in a refusal."""
    answers, values = Answers(bytes_max), list[Any]()
    try:
        for chunk in chunks:
            values += answers.read(chunk)
    except NOT_A_PIPE:
        return values, True
    return values, False


def _like(value: Any) -> Any:
    match value:
        case hiredis.ReplyError():
            return "error"
        case dict():
            return {key: _like(inner) for key, inner in value.items()}
        case list():
            return [_like(inner) for inner in value]
        case _:
            return value


def answers(data: bytes) -> None:
    """What a client hears is the same in all chunks, is what a plain reader reads, and costs no more than it may."""
    tape, chunks = _split(data)
    bytes_max = (1 << 12, 1 << 16, 256 << 20)[tape.number(3)]
    stream = b"".join(chunks)
    (cut, cut_refused), (whole, whole_refused) = _heard(chunks, bytes_max), _heard([stream], bytes_max)
    fewer = min(len(cut), len(whole))
    assert repr(cut[:fewer]) == repr(whole[:fewer])
    assert len(cut) == len(whole) or cut_refused or whole_refused
    plain, understood = _plain(stream)
    fewer = min(len(plain), len(cut))
    assert [*map(_like, cut[:fewer])] == plain[:fewer], f"heard {cut} where {plain} was said"
    if understood and bytes_max == 256 << 20:
        assert not whole_refused
        assert len(whole) == len(plain)


_NO_LOOP = cast(asyncio.AbstractEventLoop, SimpleNamespace(get_debug=lambda: False))
"""A reader that never waits asks its loop nothing else."""


def peer_answers(data: bytes) -> None:
    """Another node's answers: bounded, and never anything but the errors that are documented."""

    async def read() -> None:
        reader = asyncio.StreamReader(limit=4_096, loop=_NO_LOOP)
        reader.feed_data(data[1:])
        reader.feed_eof()
        bytes_max = 64 << (data[0] % 12 if data else 0)
        left = len(data)
        while True:
            try:
                answer = await read_answer(reader, bytes_max)
            except OperationError:
                continue
            except (NoAnswer, EOFError):
                return
            left -= _size(answer)
            assert left >= 0
            assert _size(answer) <= bytes_max

    coroutine = read()
    try:
        coroutine.send(None)  # all is there: it never waits
    except StopIteration:
        return
    finally:
        coroutine.close()
    raise AssertionError("it waits for more, although the stream has ended")


def _size(value: object) -> int:
    match value:
        case bytes():
            return len(value)
        case list():
            return sum(map(_size, value))
        case dict():
            return sum(_size(key) + _size(inner) for key, inner in value.items())
        case _:
            return 0


# -- the words of requests ---------------------------------------------------------------------------------------------

_GRAMMAR: tuple[Callable[[list[bytes]], object], ...] = (
    grammar.parse_new, grammar.parse_owner, grammar.parse_auth, grammar.parse_hello, grammar.parse_kinds,
    grammar.parse_ls,
)  # fmt: skip
_WORDS = (
    b"NEW", b"TAG", b"TRACE", b"GRACE",
    b"OWNER", b"HELLO", b"AUTH", b"SETNAME", b"KINDS", b"CREDIT", b"LS", b"KIND", b"PHASE",
    b"AFTER", b"LIMIT", b"stored", b"3-117", b"3-117@2", b"1e3", b".5", b"0.0001", b"7", b"18446744073709551616",
    b"9999999999999999999-9999999999999999999", b"transfer", b"x" * 16, b"\xff", b"3155760000", b"1e-999", b"1e999",
)  # fmt: skip


def _request(dice: random.Random) -> bytes:
    return encode(*(dice.choice(_WORDS) for _ in range(dice.randrange(1, 8))))


def words(data: bytes) -> None:
    """Whatever the arguments are: values in their bounds, or BadRequest; an id that is taken is one that is printed."""
    with suppress(FramingLost):
        for request in StrictParser(Limits(args_max=64, request_bytes_max=4_096)).feed(data):
            for parse in _GRAMMAR:
                with suppress(BadRequest):
                    parse(request)
            for word in request:
                _words(word)
            error = error_of(request[0].decode("latin-1"))
            assert isinstance(error, OperationError)


def _words(word: bytes) -> None:
    with suppress(BadRequest):
        index, epoch = grammar.parse_id(word)
        assert (str(index) if epoch is None else f"{index}@{epoch}").encode() == word
    with suppress(ValueError):
        assert str(Index.parse(word)).encode() == word
    with suppress(BadRequest):
        waited_ms = grammar.parse_seconds(word, "STORE")
        assert 0 <= waited_ms <= grammar.SECONDS_MAX * 1_000
        assert 0 <= waited_ms - float(word) * 1_000 < 1.001  # rounded up: never early
    with suppress(BadRequest):
        kind = grammar.parse_kind(word)
        assert isinstance(kind, str) or 0 <= kind < 2**32


TARGETS = (
    Target("requests", requests, _requests, _TOKENS, memory_factor=512),
    Target("hello", hello, _hello, (b"$0\r\n", b"$4095\r\n", b"$9999\r\n", b"\r\n")),
    Target("answers", answers, _answers, (*_TOKENS, b">1000000000\r\n", b"%500000000\r\n", b"*1024\r\n", b"#t\r\n")),
    Target("peer-answers", peer_answers, _answers, _TOKENS),
    Target("words", words, _request, _WORDS),
)
