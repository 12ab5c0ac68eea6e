"""The parsers of requests: what they take, what they refuse, and that both say the same of every stream."""

from __future__ import annotations

import time
import tracemalloc

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from tests.protocols.streams import PARSERS, SPICE, Outcome, Parser, agreed, cut, cuts, encoded, outcome, requests
from truba.errors import BadRequest, TooBig
from truba.protocols.resp import FramingLost, Limits, RequestParser

SMALL = Limits(args_max=256, request_bytes_max=16_384, inline_bytes_max=64)
TINY = Limits(args_max=3, request_bytes_max=60, inline_bytes_max=16)

unhurried = settings(deadline=None)  # other suites share the processors
each_parser = pytest.mark.parametrize("parser", PARSERS, ids=lambda kind: kind.__name__)


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (b"*1\r\n$4\r\nPING\r\n", [[b"PING"]]),
        (b"*2\r\n$0\r\n\r\n$0\r\n\r\n", [[b"", b""]]),
        (b"*2\r\n$4\r\nTHIS\r\n$2\r\n\r\n\r\n", [[b"THIS", b"\r\n"]]),
        (b"*3\r\n$1\r\na\r\n$2\r\n\r\n\r\n$1\r\nc\r\n", [[b"a", b"\r\n", b"c"]]),
        (b"*0\r\n*-1\r\n*1\r\n$1\r\nx\r\n*0\r\n", [[b"x"]]),
        (b"PING\r\n", [[b"PING"]]),
        (b"PING\n", [[b"PING"]]),
        (b"\r\n\n  \r\nPING  there \t you\r\n", [[b"PING", b"there", b"you"]]),
        (
            b'NEW 7 "two words" "q\\"\\\\ \\x00\\xfF\\n\\r\\t\\b\\a\\z" ""\r\n',
            [[b"NEW", b"7", b"two words", b'q"\\ \x00\xff\n\r\t\b\az', b""]],
        ),
        (b"PING\r\n*1\r\n$4\r\nPING\r\nPING\r\n", [[b"PING"]] * 3),
        (b"PING a*b $c 'd'\r\n", [[b"PING", b"a*b", b"$c", b"'d'"]]),
        (b"posted: yes\r\n", [[b"posted:", b"yes"]]),
    ],
)
def test_requests_come_out_of_their_bytes(data: bytes, expected: list[list[bytes]]) -> None:
    assert agreed([data]) == Outcome(expected, None)
    assert agreed([data[at : at + 1] for at in range(len(data))]) == Outcome(expected, None)


@pytest.mark.parametrize(
    ("data", "code", "text"),
    [
        (b"*x\r\n", "ERR", "'x' is no count of arguments: it must be decimal digits only"),
        (b"*\r\n", "ERR", "'' is no count"),
        (b"*+1\r\n", "ERR", "'+1' is no count"),
        (b"*-2\r\n", "ERR", "'-2' is no count"),
        (b"*01\r\n", "ERR", "'01' is no count"),
        (b"* 1\r\n", "ERR", "' 1' is no count"),
        (b"*1_0\r\n", "ERR", "'1_0' is no count"),
        (b"*1\n$4\nPING\n.....", "ERR", "at most 10 digits, then CR LF"),
        (b"*11111111111\r\n", "ERR", "at most 10 digits, then CR LF"),
        (b"*" + b"1" * 1000, "ERR", "at most 10 digits, then CR LF"),
        (b"*1\r\n$-1\r\n", "ERR", "'-1' is no length"),
        (b"*1\r\n$-0\r\n", "ERR", "'-0' is no length"),
        (b"*1\r\n$+4\r\nPING\r\n", "ERR", "'+4' is no length"),
        (b"*1\r\n$04\r\nPING\r\n", "ERR", "'04' is no length"),
        (b"*1\r\n$\r\nPING\r\n", "ERR", "'' is no length"),
        ("*1\r\n$\u0664\r\nPING\r\n".encode(), "ERR", "is no length"),
        (b"*1\r\n$4\r\nPINGxx", "ERR", "a bulk string of 4 bytes is followed by 'xx' instead of CR LF"),
        (b"*1\r\n$4\r\nPING\rx", "ERR", "is followed by '\\rx'"),
        (b"*2\r\n$1\r\nx\r\n$4\r\nPINGxx", "ERR", "is followed by 'xx'"),
        (b"*3\r\n$1\r\nx\r\n$1\r\ny\r\n$4\r\nPINGxx", "ERR", "is followed by 'xx'"),
        (b"*2\r\n$1\r\nx\r\n$0\r\nab\r\n", "ERR", "a bulk string of 0 bytes is followed by 'ab'"),
        (b"*1\r\n$4\r\nPING\n\r", "ERR", "is followed by '\\n\\r'"),
        (b"*1\r\n$4\r\nPING\n\n", "ERR", "is followed by '\\n\\n'"),
        (b"*1\r\n$4\r\nPING \n", "ERR", "is followed by ' \\n'"),
        (b"*1\r\n$3\r\nPING\r\n", "ERR", "a bulk string of 3 bytes is followed by 'G\\r'"),
        (b"*1\r\n$3\r\nab\r\n\r\n", "ERR", "a bulk string of 3 bytes is followed by '\\n\\r'"),
        (b"*1\r\n*1\r\n$4\r\nPING\r\n", "ERR", "an argument begins with '$', not '*'"),
        (b"*1\r\n:1\r\n", "ERR", "an argument begins with '$', not ':'"),
        (b"*1\r\n_\r\n", "ERR", "arrays hold bulk strings only"),
        (b"*2\r\n$1\r\nx\r\n\r\n", "ERR", "not '\\r'"),
        (b"$4\r\nPING\r\n", "ERR", "a request begins with '*' or is a line of words; this one begins with '$'"),
        (b"+OK\r\n", "ERR", "begins with '+'"),
        (b"%1\r\n", "ERR", "begins with '%'"),
        (b">1\r\n", "ERR", "begins with '>'"),
        (b"\x00", "ERR", "begins with '\\x00'"),
        (b"\xff", "ERR", "begins with '\\xff'"),
        (b"\x16\x03\x01\x02", "ERR", "looks like TLS"),
        (b"POST / HTTP/1.1\r\n", "ERR", "looks like HTTP"),
        (b"GET / HTTP/1.1\r\nHost: x\r\n", "ERR", "looks like HTTP"),
        (b'SET "x\r\n', "ERR", "unbalanced quotes"),
        (b'SET "x"y\r\n', "ERR", "unbalanced quotes"),
        (b'SET x"y"\r\n', "ERR", "unbalanced quotes"),
        (b'SET "x\\"\r\n', "ERR", "unbalanced quotes"),
        (b"*65537\r\n", "TOOBIG", "a request of 65537 arguments is over the limit of 65536"),
        (b"*4000000000\r\n", "TOOBIG", "a request of 4000000000 arguments"),
        (b"*1\r\n$67108864\r\n", "TOOBIG", "is over the limit of 67108864"),
        (b"*1\r\n$9999999999\r\n", "TOOBIG", "is over the limit of 67108864"),
        (b"a" * 65536, "TOOBIG", "a line of words of at least 65536 bytes is over the limit"),
    ],
)
def test_lost_framing_says_why_and_leaves_earlier_requests_standing(data: bytes, code: str, text: str) -> None:
    before = [[b"TOUCH", b"1-2"], [b"APPEND", b"1-2", b"\r\n*"]]
    stream = b"".join(map(encoded, before)) + data
    step = max(1, len(stream) // 1000)
    for chunks in ([stream], [stream[at : at + step] for at in range(0, len(stream), step)]):
        found = agreed(chunks)
        assert found.lost is not None
        assert found.lost[0] == code
        assert text in found.lost[1]
        assert "nothing was stored, the connection is closed" in found.lost[1]
        assert [request for request in found.requests if request[0] != b"GET"] == before
    assert agreed([data]).lost == found.lost


@each_parser
def test_what_was_lost_stays_lost(parser: type[Parser]) -> None:
    lost = parser()
    for data in (b"PING\r\n*x\r\n", b"PING\r\n", encoded([b"PING", b"x"])):
        with pytest.raises(FramingLost, match="no count") as caught:
            lost.feed(data)
        assert isinstance(caught.value.error, BadRequest)
        assert lost.feed(b"") == []
        assert caught.value.requests == ([[b"PING"]] if data.endswith(b"x\r\n") and data[:1] == b"P" else [])


def test_limits_hold_to_the_byte() -> None:
    fits = encoded([b"ab", b"c" * 41])
    assert len(fits) == TINY.request_bytes_max
    assert agreed([fits * 2], TINY) == Outcome([[b"ab", b"c" * 41]] * 2, None)
    assert agreed([fits, encoded([b"ab", b"c" * 42])], TINY).lost is not None
    assert agreed([b"*0\r\n*-1\r\n" * 9 + fits], TINY).lost is None
    assert agreed([encoded([b"a", b"b", b"c"])], TINY).lost is None
    assert agreed([encoded([b"a", b"b", b"c"])], Limits(args_max=2)).lost is not None
    assert agreed([encoded([b"a", b"b", b"c", b"d"])], TINY) == Outcome(
        [], ("TOOBIG", "a request of 4 arguments is over the limit of 3; nothing was stored, the connection is closed")
    )
    assert agreed([b"x" * 15 + b"\n"], TINY) == Outcome([[b"x" * 15]], None)
    assert agreed([b"x" * 16 + b"\n"], TINY).lost is not None

    fits = encoded([b"APPEND", *([b"r" * 4000] * 4), b"s" * 324])
    assert len(fits) == SMALL.request_bytes_max
    assert agreed([fits], SMALL).lost is None
    assert agreed([fits + fits], SMALL).lost is None
    over = encoded([b"APPEND", *([b"r" * 4000] * 4), b"s" * 325])
    with pytest.raises(FramingLost) as caught:
        RequestParser(SMALL).feed(over)
    assert isinstance(caught.value.error, TooBig)
    assert agreed([encoded([b""] * 256)], SMALL).lost is None
    assert agreed([encoded([b""] * 257)], SMALL).lost is not None


@pytest.mark.parametrize("limits", [None, SMALL, TINY], ids=["default", "small", "tiny"])
@unhurried
@given(sent=st.lists(requests, max_size=6), places=cuts)
@example(sent=[[b"a", b""], [b"a", b"b", b""], [b"\r\n*1\r\n"] * 3], places=[])
def test_both_parsers_give_back_what_was_sent(
    limits: Limits | None, sent: list[list[bytes]], places: list[int]
) -> None:
    found = agreed(cut(b"".join(map(encoded, sent)), places), limits)
    if limits is None:
        assert found == Outcome(sent, None)
    assert found.requests == sent[: len(found.requests)]


pieces = st.one_of(
    requests.map(encoded),
    st.sampled_from(
        (*SPICE, b"PING\r\n", b"*-1\r\n", b"*0\r\n", b"*2\r\n", b"*3\r\n", b'"', b"*99999999\r\n", b"$99\r\n")
    ),
    st.binary(max_size=8),
)


@pytest.mark.parametrize("limits", [None, SMALL, TINY], ids=["default", "small", "tiny"])
@unhurried
@given(parts=st.lists(pieces, max_size=8), places=cuts)
def test_both_parsers_agree_on_garbage(limits: Limits | None, parts: list[bytes], places: list[int]) -> None:
    data = b"".join(parts)
    whole = agreed([data], limits)
    assert agreed(cut(data, places), limits) == whole, "the outcome depends on where the stream was cut"


@unhurried
@given(
    sent=st.lists(requests, min_size=1, max_size=4), at=st.integers(min_value=0), byte=st.integers(0, 255), places=cuts
)
def test_both_parsers_agree_on_one_wrong_byte(sent: list[list[bytes]], at: int, byte: int, places: list[int]) -> None:
    data = bytearray(b"".join(map(encoded, sent)))
    data[at % len(data)] = byte
    assert agreed(cut(bytes(data), places)) == agreed([bytes(data)])


@pytest.mark.parametrize("sent", [[b"PING"], [b"DELETE", b"1-1"], [b"APPEND", b"1-1", b"x"], [b"A", b"b", b"c", b"d"]])
def test_both_parsers_agree_on_every_wrong_byte_of_a_request_by_itself(sent: list[bytes]) -> None:
    """A chunk that is one request goes a way of its own."""
    data = encoded(sent)
    assert agreed([data]) == Outcome([sent], None)
    for at in range(len(data)):
        for byte in (*b"$*0123456789\r\nxP", 0, 255):
            agreed([data[:at] + bytes([byte]) + data[at + 1 :]])
        agreed([data[:at] + data[at + 1 :]])


def test_a_stream_cut_at_every_byte_is_the_same_stream() -> None:
    sent = [[b"NEW", b"7", b"TAG", b"1", b"\r\n"], [b"APPEND", b"1-1", b"\r\n*3\r\n$1"], [b"DELETE", b"1-1"], [b"PING"]]
    data = b"".join(map(encoded, sent)) + b"PING\r\n"
    for at in range(len(data) + 1):
        assert agreed([data[:at], data[at:]]) == Outcome([*sent, [b"PING"]], None)
        assert agreed([data[:at]]).lost is None, "half a request is no error"


@each_parser
@pytest.mark.parametrize(
    "claim",
    [
        b"*4000000000\r\n",
        b"*1\r\n$4000000000\r\n",
        b"*1\r\n$67000000\r\n",
        b"*65536\r\n",
        b"*65536\r\n" * 4000,
        b"*1\r\n" * 16_000,
        b"*2\r\n$1\r\nx\r\n*65536\r\n" * 2000,
        b"*2\r\n$1\r\nxYY*999999999\r\n",
        b"%4000000000\r\n",
        b"~4000000000\r\n",
        b">4000000000\r\n",
        b"*1\r\n%100000000\r\n",
        b"*1\r\n~100000000\r\n",
        b"*1\r\n>100000000\r\n",
    ],
    ids=lambda claim: repr(claim[:28])[2:-1],
)
def test_no_memory_is_taken_on_the_word_of_a_length(parser: type[Parser], claim: bytes) -> None:
    for data in (claim, encoded([b"TOUCH", b"1-2"]) + claim):
        victim = parser()
        tracemalloc.start()
        try:
            outcome(victim, (data,))
            _, peak_bytes = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
        assert peak_bytes < 50_000 + 16 * len(data), "more than the lines of the chunk itself"


@each_parser
def test_what_a_parser_holds_is_what_it_was_fed(parser: type[Parser]) -> None:
    """1 MiB in 100-byte chunks: held once, plus the growth of the buffer and the copy handed over."""
    record = bytes(1 << 20)
    data = encoded([b"APPEND", b"1-2", record])
    reader = parser()
    chunks = [data[at : at + 100] for at in range(0, len(data), 100)]
    tracemalloc.start()
    try:
        assert outcome(reader, chunks).requests == [[b"APPEND", b"1-2", record]]
        held_bytes, peak_bytes = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak_bytes < 3 * len(data)
    assert held_bytes < 100_000


@each_parser
def test_a_large_argument_in_small_chunks_is_copied_once_not_once_per_chunk(parser: type[Parser]) -> None:
    """16 MiB in 64-byte chunks. Copying all that came before with each chunk would move 2 TB: minutes, not seconds."""
    record = bytes(16 << 20)
    data = encoded([b"APPEND", b"1-2", record])
    reader, found = parser(), []
    begin_s = time.process_time()
    for at in range(0, len(data), 64):
        found += reader.feed(data[at : at + 64])
        assert time.process_time() - begin_s < 30, "not linear"
    assert found == [[b"APPEND", b"1-2", record]]


@each_parser
def test_many_requests_that_are_not_plain_cost_no_more_than_their_bytes(parser: type[Parser]) -> None:
    """A chunk full of arguments with CR LF inside is not split again for each of them."""
    data = encoded([b"APPEND", b"1-2", b"\r\n"]) * 40_000
    begin_s = time.process_time()
    assert len(parser().feed(data)) == 40_000
    assert time.process_time() - begin_s < 10, "not linear"


def test_the_usual_requests_never_reach_the_reference_parser(monkeypatch: pytest.MonkeyPatch) -> None:
    """Else the fast parser could rot into the slow one unseen."""

    def refuse(*_: object) -> int:
        raise AssertionError("the reference parser was asked")

    monkeypatch.setattr("truba.protocols.resp.strict.StrictParser.take", refuse)
    usual = [
        [b"NEW", b"7"],
        [b"APPEND", b"1-1", b"x" * 256],
        [b"DELETE", b"1-1"],
        [b"APPEND", b"1-1", *[b"y" * 4095] * 9],
    ]
    reader = RequestParser()
    for request in usual:
        assert reader.feed(encoded(request)) == [request]
    assert reader.feed(b"".join(map(encoded, usual * 20))) == usual * 20
