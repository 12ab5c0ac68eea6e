"""What each request takes, and what it says to arguments that are something else."""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from truba.errors import BadRequest
from truba.protocols import grammar
from truba.protocols.grammar import Hello, Page
from truba.types import Index, Phase

PARSE: dict[str, Callable[[list[bytes]], Any]] = {
    "NEW": grammar.parse_new,
    "STORE": lambda args: grammar.parse_seconds(b" ".join(args[1:]), "STORE"),
    "OWNER": grammar.parse_owner,
    "AUTH": grammar.parse_auth,
    "HELLO": grammar.parse_hello,
    "KINDS": grammar.parse_kinds,
    "LS": grammar.parse_ls,
}
ID = Index(3, 117)
TOKEN = "t" * 16
AFTER_HELLO = "after its version HELLO takes AUTH with user and password, and SETNAME with a name"
TEN_YEARS = 315_360_000


def parsed(line: str) -> Any:
    args = [word.replace("_", " ").encode() for word in line.split(" ")]
    return PARSE[args[0].decode()](args)


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("NEW 7", (7, -1, [], b"")),
        ("NEW transfer a b", ("transfer", -1, [b"a", b"b"], b"")),
        ("NEW 7 TAG 5", (7, 5, [], b"")),
        ("NEW 7 tag 0 TAG 9", (7, 0, [b"TAG", b"9"], b"")),
        ("NEW 7 r TAG 5", (7, -1, [b"r", b"TAG", b"5"], b"")),
        (f"NEW {2**32 - 1} TAG {2**63 - 1}", (2**32 - 1, 2**63 - 1, [], b"")),
        ("NEW 7 TRACE 00-1 a", (7, -1, [b"a"], b"00-1")),
        ("NEW 7 trace 00-1 TAG 5 a", (7, 5, [b"a"], b"00-1")),
        ("NEW 7 TRACE TRACE TRACE", (7, -1, [b"TRACE"], b"TRACE")),
        ("NEW 7 TAG 5 TRACE 00-1", (7, 5, [b"TRACE", b"00-1"], b"")),
        ("STORE 30", 30_000),
        ("STORE 0", 0),
        ("STORE 0.5", 500),
        ("STORE .0001", 1),
        ("STORE 1.0011", 1_002),
        ("STORE 1e-05", 1),
        ("STORE 2.E+3", 2_000_000),
        (f"STORE {TEN_YEARS}", TEN_YEARS * 1_000),
        (f"OWNER {TOKEN}", (TOKEN.encode(), 0)),
        (f"OWNER {TOKEN} grace 1.5", (TOKEN.encode(), 1_500)),
        ("AUTH secret", (None, b"secret")),
        ("AUTH me secret", (b"me", b"secret")),
        ("HELLO", Hello(None, None, None)),
        ("HELLO 3", Hello(3, None, None)),
        ("HELLO 2 SETNAME x auth me secret", Hello(2, (b"me", b"secret"), b"x")),
        ("KINDS 7", ((7,), 64)),
        ("KINDS 9 7 9 CREDIT 2", ((9, 7), 2)),
        ("LS", Page(None, None, None, 100)),
        ("LS LIMIT 5 after 3-117 PHASE Parked kind 7", Page(7, Phase.PARKED, ID, 5)),
        ("LS KIND transfer", Page("transfer", None, None, 100)),
    ],
)
def test_a_request_in_values(line: str, expected: Any) -> None:
    assert parsed(line) == expected


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("NEW", "NEW takes a kind, then TRACE and a context, TAG and a number if wanted, then records if wanted"),
        ("NEW 7 TRACE", "TRACE takes a trace context"),
        ("NEW 7 TRACE ", "TRACE takes a trace context"),
        ("NEW 7 TRACE x TAG", "TAG takes a number"),
        ("NEW 4294967296", "the number of a kind is from 0 to 4294967295, not '4294967296'"),
        ("NEW 007", "the number of a kind is from 0 to 4294967295, not '007'"),
        ("NEW ", "a kind is a number or a configured name, not ''"),
        (
            "NEW 7 TAG 9223372036854775808",
            "TAG takes a number from 0 to 9223372036854775807, not '9223372036854775808'",
        ),
        ("OWNER", "OWNER takes a token, then GRACE and a number of seconds if wanted"),
        (f"OWNER {TOKEN} GRACE", "OWNER takes a token, then GRACE and a number of seconds if wanted"),
        (f"OWNER {TOKEN} FOR 5", "OWNER takes a token, then GRACE and a number of seconds if wanted"),
        ("OWNER short-secret", "a token has 16 to 64 bytes, this one 12"),
        (f"OWNER {'t' * 65}", "a token has 16 to 64 bytes, this one 65"),
        (f"OWNER {TOKEN} GRACE -1", "GRACE takes seconds from 0 to 315360000 (ten years), fractions allowed, not '-1'"),
        ("AUTH", "AUTH takes a password, or a user and a password"),
        ("AUTH a b c", "AUTH takes a password, or a user and a password"),
        ("HELLO 4", "HELLO takes 2 or 3, the version of the protocol, not '4'"),
        ("HELLO 3 AUTH me", f"{AFTER_HELLO}, each once"),
        ("KINDS", "KINDS takes at least one number of a kind, then CREDIT and a number of sessions if wanted"),
        ("KINDS transfer", "KINDS takes numbers of kinds from 0 to 4294967295, not 'transfer'"),
        ("KINDS 7 CREDIT -1", "CREDIT takes a number of sessions from 0 to 65536, not '-1'"),
        ("LS KIND", "LS takes KIND k, PHASE p, AFTER id and LIMIT n, each once if wanted"),
        ("LS KIND 7 KIND 8", "LS takes KIND k, PHASE p, AFTER id and LIMIT n, each once if wanted; not 'KIND' here"),
        ("LS SORT 7", "LS takes KIND k, PHASE p, AFTER id and LIMIT n, each once if wanted; not 'SORT' here"),
        ("LS PHASE dead", "PHASE takes active, stored, repeating, parked, not 'dead'"),
        ("LS AFTER 3-1@2", "AFTER takes an id without an epoch, not '3-1@2'"),
        ("LS LIMIT 10001", "LIMIT takes a number of sessions from 1 to 10000, not '10001'"),
    ],
)
def test_a_bad_request_is_told_what_was_expected(line: str, message: str) -> None:
    with pytest.raises(BadRequest) as caught:
        parsed(line)
    assert str(caught.value) == f"{message}; nothing was stored"


NO_IDS = " 3 3- -117 3--1 +3-117 03-117 3-0117 3-117@ 3-117@-1 3-117@01 3-117@2@2 3-1_7 x-y \u0664-1 3-117\n"
NO_SECONDS = " -1 -0 +1 nan inf -inf 1,5 1s 0x10 1e e5 . 1_0 1\n \u0664 315360001 315360000.0001 1e9 1e999 1e99999"


@pytest.mark.parametrize("text", [*NO_IDS.split(" "), " 3-117", "9" * 20 + "-1", "1-" + "9" * 5_000])
def test_what_an_index_would_not_print_is_no_id(text: str) -> None:
    with pytest.raises(BadRequest, match="is not an id"):
        grammar.parse_id(text.encode())


@pytest.mark.parametrize("text", [*NO_SECONDS.split(" "), " 1", "9" * 31, "9" * 5_000])
def test_seconds_that_are_none(text: str) -> None:
    with pytest.raises(BadRequest, match="STORE takes seconds from 0 to 315360000"):
        grammar.parse_seconds(text.encode(), "STORE")


@given(seconds=st.floats(min_value=0, max_value=TEN_YEARS))
def test_seconds_are_never_cut_short(seconds: float) -> None:
    delay_ms = grammar.parse_seconds(repr(seconds).encode(), "STORE")
    assert 0 <= Fraction(delay_ms, 1_000) - Fraction(repr(seconds)) < Fraction(1, 1_000)


@given(term=st.integers(0, 10**19 - 1), seq=st.integers(0, 10**19 - 1), epoch=st.none() | st.integers(0, 10**19 - 1))
def test_an_id_reads_back(term: int, seq: int, epoch: int | None) -> None:
    text = str(Index(term, seq)) + ("" if epoch is None else f"@{epoch}")
    assert grammar.parse_id(text.encode()) == (Index(term, seq), epoch)


@given(args=st.lists(st.binary(max_size=30), max_size=6), request=st.sampled_from(sorted(PARSE)))
def test_arguments_of_any_content_are_read_or_refused(args: list[bytes], request: str) -> None:
    try:
        PARSE[request]([request.encode(), *args])
    except BadRequest as refused:
        assert str(refused).endswith("; nothing was stored")  # noqa: PT017 - being read is as good


def test_a_token_is_never_shown() -> None:
    with pytest.raises(BadRequest) as caught:
        parsed("OWNER hush-hush")
    assert "hush" not in str(caught.value)
