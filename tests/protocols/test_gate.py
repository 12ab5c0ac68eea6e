"""The gate ahead of a parser that believes lengths: what it lets through, and how much it makes anybody hold."""

from __future__ import annotations

import tracemalloc

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.protocols.streams import cut, cuts
from truba.client.answers import NOT_A_PIPE, Answers
from truba.protocols import replies
from truba.protocols.gate import LINE_BYTES_MAX, PROMISED_MAX, Gate, GateClosed

values = st.recursive(
    st.one_of(st.none(), st.integers(-(2**63), 2**63 - 1), st.binary(max_size=60), st.just(b"\r\n*99999\r\n")),
    lambda inner: st.one_of(
        st.lists(inner, max_size=5), st.dictionaries(st.binary(max_size=3), inner, max_size=3)
    ),
    max_leaves=20,
)  # fmt: skip


def heard(answers: Answers, *chunks: bytes) -> list[object]:
    return [value for chunk in chunks for value in answers.read(chunk)]


@given(st.lists(values, max_size=6), cuts)
def test_whatever_a_pipe_says_is_heard_in_any_chunking(said: list[replies.Value], places: list[int]) -> None:
    stream = b"".join(replies.encode(value, 3) for value in said)
    assert heard(Answers(), *cut(stream, places)) == said


def test_byte_by_byte() -> None:
    said: list[replies.Value] = [b"", None, 3, [b"ab", [1, None, []]], {b"k": [b"*1000000000\r\n"]}, b"\r\n", [], 7]
    stream = (
        b"".join(replies.encode(value, 3) for value in said) + replies.error("BUSY", "*1000000000 > %1") + b"+OK\r\n"
    )
    answers = Answers()
    found = heard(answers, *(stream[at : at + 1] for at in range(len(stream))))
    assert found[: len(said)] == said
    assert str(found[len(said)]) == "BUSY *1000000000 > %1"
    assert found[len(said) + 1 :] == [b"OK"]


@pytest.mark.parametrize(
    "said",
    [
        b"*1000000000\r\n", b">1000000000\r\n", b"~1000000000\r\n", b"%500000000\r\n", b"*9999999999\r\n",
        b"$1000000000\r\n", b"*65536\r\n" * 1_000, b"*1\r\n*1000000000\r\n", b"+OK\r\n*1000000000\r\n",
        b"$3\r\nabc\r\n%1000000000\r\n", b"*3\r\n:1\r\n$2\r\nab\r\n*1000000000\r\n",
    ],
)  # fmt: skip
@pytest.mark.parametrize("piece", [1, 5, 1 << 20])
def test_no_length_is_believed(said: bytes, piece: int) -> None:
    tracemalloc.start()
    try:
        with pytest.raises(GateClosed):
            heard(Answers(), *(said[at : at + piece] for at in range(0, len(said), piece)))
        _, peak_bytes = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak_bytes < 1 << 20


def test_a_long_list_is_parsed_once_little_of_it_is_missing() -> None:
    """The list that the parser makes is never much longer than what has come."""
    gate = Gate(1 << 30)
    head, one, many = b"+OK\r\n*100000\r\n", b":1\r\n", 100_000 - PROMISED_MAX
    assert gate.take(head) == b"+OK\r\n"  # what was complete does not wait
    assert gate.take(one * (many - 1)) == b""
    assert gate.take(one[:-1]) == b""
    assert gate.take(one[-1:]) == (head + one * many).removeprefix(b"+OK\r\n")
    assert gate.take(one * PROMISED_MAX + b"+O") == one * PROMISED_MAX + b"+O"
    assert not gate.idle
    assert gate.take(b"K\r\n") == b"K\r\n"
    assert gate.idle


def test_a_message_may_be_as_large_as_the_bound_and_no_larger() -> None:
    """Values are reckoned with 64 bytes each, so that a great many small ones are no way around it."""
    Gate(1_000).take(b"$850\r\n" + bytes(850) + b"\r\n")
    with pytest.raises(GateClosed):
        Gate(1_000).take(b"$950\r\n")
    with pytest.raises(GateClosed):
        Gate(100_000).take(b"*1500\r\n" + b"*0\r\n" * 1_500)
    Gate(100_000).take((b"*100\r\n" + b"*0\r\n" * 100) * 1_000)  # one after the other they may come


@pytest.mark.parametrize(
    "said",
    [
        b"?\r\n", b"\r\n", b"\n", b"GET / HTTP/1.1\r\n", b"|1\r\n", b"*+1\r\n", b"*01\r\n", b"*-2\r\n", b"$\r\n",
        b"* 1\r\n", b"$?\r\n", b"*99999999999\r\n", b"!5\r\nERR a\r\n", b"+" + b"x" * LINE_BYTES_MAX,
    ],
)  # fmt: skip
def test_what_is_no_answer_is_refused(said: bytes) -> None:
    for at in range(len(said)):
        answers = Answers()
        with pytest.raises(NOT_A_PIPE):
            heard(answers, said[:at], said[at:])
    with pytest.raises(GateClosed):
        Gate(1 << 20).take(said)
