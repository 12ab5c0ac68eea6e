"""Bad input: answered as the protocol page says, no memory taken on the word of a length, nobody else disturbed."""

from __future__ import annotations

import random
import socket
import time
from collections.abc import Iterator

import pytest

from tests.service.process import Server, Servers, kind, servers
from tests.service.wire import Refused, Wire, request
from truba.wire.verbs import VERBS

RECORD_MAX, REQUEST_MAX = 1_000, 100_000


@pytest.fixture(scope="module")
def narrow(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A pipe with narrow limits, which must live through everything here."""
    for pipes in servers(tmp_path_factory.mktemp("narrow")):
        limits = kind(record_max=RECORD_MAX, session_max=5_000, records_max=20)
        server = pipes.start(limits, node=f'request_bytes_max = {REQUEST_MAX}\nunix = "{pipes.directory}/s"')
        yield server
        server.terminate()
        assert server.logged[-1]["event"] == "stopped"  # and every line before it was a log line


@pytest.fixture(autouse=True)
def others_are_served(narrow: Server) -> Iterator[None]:
    """One client that was there before and one that comes after still work."""
    with Wire.dial(narrow.address) as before:
        made = before.ask("NEW", "7", "a")
        yield
        assert before.ask("APPEND", made, "b") == b"OK"
        assert before.ask("DELETE", made) == b"OK"
    with Wire.dial(narrow.address) as after:
        assert after.ask("PING") == b"PONG"


LOST = [
    (b"*99999999999999999999\r\n", "ERR"),
    (b"*4000000000\r\n$1\r\n", "TOOBIG"),
    (b"*100000000\r\n", "TOOBIG"),
    (b"*-2\r\n", "ERR"),
    (b"*+1\r\n$4\r\nPING\r\n", "ERR"),
    (b"*one\r\n", "ERR"),
    (b"*01\r\n$4\r\nPING\r\n", "ERR"),
    (b"*1\r\n$4000000000\r\n", "TOOBIG"),
    (b"*1\r\n$9223372036854775807\r\n", "ERR"),
    (b"*1\r\n$-1\r\n", "ERR"),
    (b"*1\r\n$4\r\nPING__", "ERR"),
    (b"*1\r\n:4\r\n", "ERR"),
    (b"*1\r\n+PING\r\n", "ERR"),
    (b"*1\r\n*1\r\n$4\r\nPING\r\n", "ERR"),
    (b"*1\r\n" * 10_000, "ERR"),
    (b"*2\r\n$3\r\nNEW\r\n$200000\r\n", "TOOBIG"),
    (b"*3\r\n$3\r\nNEW\r\n$1\r\n7\r\n$99999\r\n", "TOOBIG"),  # with what came before it the request is over its limit
    (b"x" * 70_000, "TOOBIG"),
    (b'NEW "7\r\n', "ERR"),
    (b"+OK\r\n", "ERR"),
    (b"-ERR an answer\r\n", "ERR"),
    (b"%1\r\n+a\r\n+b\r\n", "ERR"),
    (b"\x00" * 100, "ERR"),
    (bytes(range(128, 256)), "ERR"),
    (bytes.fromhex("16030100c8010000c40303") + bytes(190), "ERR"),
    (b"POST / HTTP/1.1\r\nHost: a\r\n\r\n", "ERR"),
]
"""Bytes after which nobody can tell where the next request begins, and the word of the answer."""


@pytest.mark.parametrize(("data", "word"), LOST, ids=lambda value: repr(value[:24]) if isinstance(value, bytes) else "")
@pytest.mark.parametrize("before", [b"", request("ECHO", "whole")], ids=["first", "after a request"])
def test_framing_that_is_lost_is_told_and_the_connection_ended(
    narrow: Server, data: bytes, word: str, before: bytes
) -> None:
    with Wire.dial(narrow.address) as client:
        client.send(before + data)
        if before:
            assert client.next() == b"whole"
        refusal = client.next()
        assert isinstance(refusal, Refused)
        assert refusal.code == word
        assert "nothing was stored, the connection is closed" in str(refusal)
        assert client.ended()


def test_what_speaks_another_protocol_is_told_so(narrow: Server) -> None:
    for data, text in [
        (b"GET / HTTP/1.1\r\nHost: a\r\n\r\n", "HTTP"),
        (bytes.fromhex("160301"), "TLS"),
    ]:
        with Wire.dial(narrow.address) as client:
            client.send(data)
            said = [client.next()]
            if "unknown command" in str(said[0]):  # GET is a word of this protocol's grammar; the next line is not
                said.append(client.next())
            assert text in str(said[-1])
            assert client.ended()


def test_who_goes_on_sending_after_the_framing_is_lost_hears_why(narrow: Server) -> None:
    """The answer is not lost to a reset, although the pipe reads nothing more."""
    with Wire.dial(narrow.address) as client:
        client.send(b"*9999999999\r\n")
        time.sleep(0.01)  # so that the rest comes after the pipe has closed
        for _ in range(20):
            try:
                client.send(bytes(50_000))
            except OSError:
                break
        refusal = client.next()
        assert isinstance(refusal, Refused)
        assert refusal.code == "TOOBIG"


@pytest.mark.parametrize("large", [b"*2\r\n$3\r\nNEW\r\n$99000\r\n", b"*60000\r\n", b"NEW 7 "])
def test_half_a_request_and_then_the_end(narrow: Server, large: bytes) -> None:
    before = narrow.rss_bytes()
    half = [Wire.dial(narrow.unix) for _ in range(200)]
    for client in half:
        client.send(large)
    with Wire.dial(narrow.address) as other:
        assert other.ask("PING") == b"PONG"
    assert narrow.rss_bytes() - before < 20 << 20  # 200 promises of 100 kB were believed to no byte
    for client in half:
        client.close()


ID = b"1-1"
ARITY: dict[str, tuple[list[bytes], ...]] = {
    "NEW": ([],),
    "APPEND": ([], [ID]),
    "REPLACE": ([], [ID], [ID, b"a", b"b"]),
    "DELETE": ([], [ID, b"a"]),
    "STORE": ([], [ID], [ID, b"1", b"2"]),
    "FAIL": ([], [ID, b"why", b"why"]),
    "TOUCH": ([], [ID, b"a"]),
    "OWNER": ([], [b"t" * 16, b"GRACE"], [b"t" * 16, b"5"], [b"t" * 16, b"GRACE", b"5", b"6"], [b"t" * 15],
              [b"t" * 65], [b"t" * 16, b"FOR", b"5"], [b"t" * 16, b"GRACE", b"long"], [b"t" * 16, b"GRACE", b"-1"]),
    "KINDS": ([], [b"7"], [b"x"], [b"7", b"CREDIT"]),
    "LEADER": ([b"x"],),
    "LS": ([b"KIND"], [b"LIMIT", b"0"], [b"LIMIT", b"x"], [b"PHASE", b"gone"], [b"AFTER", b"1"], [b"X", b"1"],
           [b"LIMIT", b"1", b"LIMIT", b"1"]),
    "SHOW": ([], [ID, ID], [b"1"]),
    "WHY": ([], [ID, ID], [b"1"]),
    "RESUME": ([], [ID, ID], [b"1"]),
    "REMOVE": ([], [ID, ID], [b"1"]),
    "PAUSE": ([], [b"7", b"8"], [b""]),
    "CONTINUE": ([], [b"7", b"8"], [b""]),
    "INFO": ([b"KIND"], [b"KIND", b"7", b"8"], [b"KIND", b""]),
    "BACKUP": ([b"a", b"b"], [b"../a"]),
    "PING": ([b"a", b"b"],),
    "ECHO": ([], [b"a", b"b"]),
    "AUTH": ([], [b"a", b"b", b"c"], [b"a"]),
    "HELLO": ([b"4"], [b"x"], [b"3", b"AUTH", b"a"], [b"3", b"SETNAME"], [b"3", b"X"]),
    "CLIENT": ([], [b"KILL"], [b"SETNAME"]),
    "CONFIG": ([], [b"SET", b"a", b"b"], [b"GET"]),
    "SELECT": ([], [b"1"], [b"0", b"0"]),
    "": ([],),
    "FLUSHALL": ([],),
    "new\x00": ([],),
    "SET": ([b"a", b"b"],),
    "x" * 10_000: ([],),
}  # fmt: skip
"""Verb -> arguments that it does not take."""


@pytest.mark.parametrize("verb", ARITY, ids=lambda verb: repr(verb[:10]))
def test_wrong_arguments_are_told_and_the_connection_goes_on(narrow: Server, verb: str) -> None:
    with Wire.dial(narrow.address) as client:
        for words in ARITY[verb]:
            refusal, after = client.asked([request(verb, *words), request("ECHO", "on")])
            assert isinstance(refusal, Refused), words
            assert refusal.code == "ERR", words
            assert len(str(refusal)) < 600
            assert after == b"on"


def test_the_table_above_has_every_verb(narrow: Server) -> None:
    """All that the protocol page names, but for those that take anything: COMMAND, QUIT."""
    assert {verb.decode() for verb in VERBS} - ARITY.keys() == {"COMMAND", "QUIT"}


WRONG_IDS = [b"", b"7", b"-", b"1-", b"-1", b"1-1-1", b"01-1", b"1-01", b"+1-1", b"1-1@", b"1-1@-1", b"1-1@x", b" 1-1",
             b"1-1 ", b"1-1\n", b"\xff-1", b"1-99999999999999999999", b"9" * 5_000 + b"-1", b"1--1", b"1.0-1",
             "\u0661-\u0661".encode()]  # fmt: skip


def test_wrong_ids(narrow: Server) -> None:
    verbs = {"APPEND": ["x"], "REPLACE": ["x"], "DELETE": [], "STORE": ["1"], "FAIL": [], "TOUCH": [], "SHOW": [],
             "WHY": [], "RESUME": [], "REMOVE": []}  # fmt: skip
    with Wire.dial(narrow.address) as client:
        for verb, rest in verbs.items():
            for wrong in WRONG_IDS:
                (refusal,) = client.asked([request(verb, wrong, *rest)])
                assert isinstance(refusal, Refused)
                assert refusal.code == "ERR", (verb, wrong, str(refusal))
            (refusal,) = client.asked([request(verb, "999999-999999999", *rest)])
            assert refusal.code == "NOSESSION", verb


def test_wrong_numbers(narrow: Server) -> None:
    with Wire.dial(narrow.address) as client:
        made = client.ask("NEW", "7", "a")
        for wrong in ("-1", "x", "1e400", "nan", "inf", "99999999999", "", "1 ", "0x10", "1_0", "\u0661"):
            (refusal,) = client.asked([request("STORE", made, wrong)])
            assert (refusal.code, wrong) == ("ERR", wrong)
        for wrong_kind, code in (("8", "UNKNOWNKIND"), ("4294967295", "UNKNOWNKIND"), ("4294967296", "ERR"),
                                 ("-1", "UNKNOWNKIND"), ("", "ERR"), ("\xff", "UNKNOWNKIND")):  # fmt: skip
            for words in (("NEW", wrong_kind, "a"), ("PAUSE", wrong_kind), ("CONTINUE", wrong_kind),
                          ("LS", "KIND", wrong_kind), ("INFO", "KIND", wrong_kind)):  # fmt: skip
                (refusal,) = client.asked([request(*words)])
                assert (refusal.code, words) == (code, words)
        assert client.ask("DELETE", made) == b"OK"


def test_records_over_their_limits(narrow: Server) -> None:
    with Wire.dial(narrow.address) as client:
        assert client.ask("DELETE", client.ask("NEW", "7", bytes(RECORD_MAX))) == b"OK"
        (refusal,) = client.asked([request("NEW", "7", bytes(RECORD_MAX + 1))])
        assert refusal.code == "TOOBIG"
        made = client.ask("NEW", "7", "a")
        for words in (
            ("APPEND", made, "fits", bytes(RECORD_MAX + 1)),  # all or none
            ("REPLACE", made, bytes(RECORD_MAX + 1)),
            ("APPEND", made, *[bytes(RECORD_MAX)] * 5),  # 5,001 bytes
            ("APPEND", made, *["r"] * 20),  # 21 records
        ):
            (refusal,) = client.asked([request(*words)])
            assert refusal.code == "TOOBIG", words[0]
            assert "nothing was stored" in str(refusal)
        shown = client.ask("SHOW", made)
        assert shown[shown.index(b"records") + 1] == [b"a"]
        assert client.ask("APPEND", made, *["r"] * 19) == b"OK"
        assert client.ask("DELETE", made) == b"OK"


def test_two_thousand_random_byte_strings(narrow: Server) -> None:
    """Each connection is ended by the pipe, and the pipe lives."""
    dice = random.Random(20_261_124)
    pieces = [b"*", b"$", b"\r\n", b"-1", b"1", b"7", b"3", b"PING", b"NEW", b"OWNER", b"@", b"1-1", b"\xff",
              b'"', b" ", b"AUTH", b"LS", b"*1\r\n$4\r\nPING\r\n", b"999999999"]  # fmt: skip
    for _ in range(100):
        clients = [Wire.dial(narrow.unix) for _ in range(20)]
        for client in clients:
            if dice.random() < 0.5:
                data = dice.randbytes(dice.randrange(1, 300))
            else:
                data = b"".join(dice.choices(pieces, k=dice.randrange(1, 40)))
            client.send(data)
            client.sock.shutdown(socket.SHUT_WR)
        for client in clients:
            assert client.ended()
            client.close()


def test_one_connection_too_many(pipes: Servers) -> None:
    server = pipes.start(node="connections_max = 3")
    held = [Wire.dial(server.address) for _ in range(3)]
    for client in held:
        assert client.ask("PING") == b"PONG"
    with Wire.dial(server.address) as fourth:
        assert fourth.next().code == "BUSY"
        assert fourth.ended()
    held.pop().close()
    deadline_s = time.monotonic() + 10
    while True:
        with Wire.dial(server.address) as again:
            again.send(request("PING"))
            if again.next() == b"PONG":
                break
        assert time.monotonic() < deadline_s
    for client in held:
        client.close()
