"""The first words of a pipe, in any chunking, and what is none."""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from truba.client.hello import HELLO_BYTES_MAX, read_hello


def hello(secret: bytes) -> bytes:
    return b">4\r\n$5\r\nhello\r\n$5\r\ntruba\r\n$1\r\n1\r\n$%d\r\n%b\r\n" % (len(secret), secret)


@given(st.one_of(st.binary(max_size=300), st.just(b"\r\n$3\r\n>4\r\n"), st.just(b"\r"), st.just(b"")), st.binary())
def test_any_secret_in_any_chunking(secret: bytes, rest: bytes) -> None:
    whole = hello(secret)
    for end in range(len(whole)):
        assert read_hello(whole[:end]) is None
    found = read_hello(whole + rest)
    assert found == (b"1", secret, len(whole))


@pytest.mark.parametrize(
    "said",
    [
        b"GET / HTTP/1.1\r\n", b"*1\r\n", b">4000000000\r\n", b">4\r\n$5\r\nhallo", b">4\r\n$500000000\r\n",
        hello(b"")[:-6] + b"$99999\r\n", hello(b"")[:-6] + b"$-1\r\n", hello(b"")[:-6] + b":1\r\n",
        hello(b"")[:-6] + b"$1\n", hello(b"")[:-6] + b"$\r\n", hello(b"")[:-6] + b"$1\r\nxyz",
        hello(b"x" * 9000), b"\x16\x03\x01",
    ],
)  # fmt: skip
def test_anything_else_is_refused_at_once(said: bytes) -> None:
    with pytest.raises(ValueError, match=r"hello|pipe"):
        read_hello(said)


@given(st.binary(max_size=60), st.integers(0, 60))
def test_nothing_waits_for_more_than_a_hello_may_have(noise: bytes, keep: int) -> None:
    said = hello(b"secret")[:keep] + noise + b"0" * HELLO_BYTES_MAX * 2
    with contextlib.suppress(ValueError):
        assert read_hello(said) is not None
