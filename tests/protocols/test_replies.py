"""Answers: the bytes, and that a client of the protocol reads back what was meant."""

from __future__ import annotations

from typing import Any

import hiredis
import pytest
from hypothesis import given
from hypothesis import strategies as st

from truba.protocols import replies


def read(data: bytes) -> Any:
    reader = hiredis.Reader()
    reader.feed(data)
    found = reader.gets()
    assert reader.gets() is False, "more than one answer"
    return found


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        (replies.OK, b"+OK\r\n"),
        (replies.PONG, b"+PONG\r\n"),
        (replies.bulk(b""), b"$0\r\n\r\n"),
        (replies.bulk(b"a\r\nb"), b"$4\r\na\r\nb\r\n"),
        (replies.integer(-7), b":-7\r\n"),
        (replies.array([]), b"*0\r\n"),
        (replies.array([replies.OK, replies.integer(1)]), b"*2\r\n+OK\r\n:1\r\n"),
        (replies.map_(2, [(replies.bulk(b"a"), replies.integer(1))]), b"*2\r\n$1\r\na\r\n:1\r\n"),
        (replies.map_(3, [(replies.bulk(b"a"), replies.integer(1))]), b"%1\r\n$1\r\na\r\n:1\r\n"),
        (replies.null(2), b"$-1\r\n"),
        (replies.null(3), b"_\r\n"),
        (replies.push(["lost", b"3-1", 2, "idle"]), b">4\r\n$4\r\nlost\r\n$3\r\n3-1\r\n:2\r\n$4\r\nidle\r\n"),
        (
            replies.encode(["größe", None, {"a": [True]}], 2),
            "*3\r\n$7\r\ngröße\r\n$-1\r\n*2\r\n$1\r\na\r\n*1\r\n:1\r\n".encode(),
        ),
        (replies.encode(["x", None, {"a": []}], 3), b"*3\r\n$1\r\nx\r\n_\r\n%1\r\n$1\r\na\r\n*0\r\n"),
        (replies.encode("lone \ud800", 2), b"$6\r\nlone ?\r\n"),
        (replies.error("ERR", "no such thing"), b"-ERR no such thing\r\n"),
        (replies.error("ERR", "a\r\n+OK\r\n\x00\tb\x7f"), b"-ERR a  +OK    b \r\n"),
    ],
)
def test_an_answer_in_bytes(answer: bytes, expected: bytes) -> None:
    assert answer == expected


def test_an_error_is_one_bounded_line_of_whole_characters() -> None:
    for message in ("x" * 10_000, "größe" * 1_000, "a" + "größe" * 1_000):
        line = replies.error("TOOBIG", message)
        assert len(line) <= len(b"-TOOBIG \r\n") + replies.ERROR_BYTES_MAX
        assert line.endswith(b"...\r\n")
        assert message.startswith(line[len(b"-TOOBIG ") : -5].decode())
    exact = "y" * replies.ERROR_BYTES_MAX
    assert replies.error("ERR", exact) == b"-ERR " + exact.encode() + b"\r\n"


def test_what_is_no_answer_is_a_mistake_of_the_caller() -> None:
    with pytest.raises(TypeError, match="float"):
        replies.encode([1.5], 2)  # type: ignore[list-item]


values = st.recursive(
    st.one_of(st.binary(max_size=20), st.integers(-(2**63), 2**63 - 1), st.none()),
    lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(st.binary(max_size=5), inner, max_size=4)),
    max_leaves=20,
)


def flat(value: Any) -> Any:
    """What RESP2 makes of it: maps are arrays of key and value in turn."""
    match value:
        case dict():
            return [flat(part) for pair in value.items() for part in pair]
        case list():
            return [flat(item) for item in value]
    return value


@given(value=values)
def test_a_client_reads_back_what_was_encoded(value: Any) -> None:
    assert read(replies.encode(value, 3)) == value
    assert read(replies.encode(value, 2)) == flat(value)


@given(items=st.lists(st.one_of(st.binary(max_size=20), st.integers(-(2**63), 2**63 - 1)), max_size=6))
def test_a_client_reads_back_what_was_pushed(items: list[bytes | int]) -> None:
    assert list(read(replies.push(items))) == items
