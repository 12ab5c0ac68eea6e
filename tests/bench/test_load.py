"""The clients that load a pipe: what they say, and that they take nothing but right answers for right."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from truba.bench.load import Load, Setup, request, sessions
from truba.bench.worker import Order
from truba.errors import BadRequest, Fenced, TrubaError, Unavailable, UnknownKind
from truba.protocols.resp import StrictParser

RECORD = b"r" * 10
NEW = request(b"NEW", b"7")
APPEND = b"*3\r\n$6\r\nAPPEND\r\n$%d\r\n%b\r\n$10\r\n" + RECORD + b"\r\n"
DELETE = b"*2\r\n$6\r\nDELETE\r\n$%d\r\n%b\r\n"
ID = b"$5\r\n3-117\r\n"
OK = b"+OK\r\n"


def said(answers: list[bytes]) -> list[list[bytes] | None]:
    """The requests of one connection that is answered so; None where it waits for the rest of an answer."""
    script = sessions(NEW, APPEND, DELETE)
    messages = [next(script), *map(script.send, answers)]
    return [None if message is None else StrictParser().feed(message)[0] for message in messages]


def test_a_session() -> None:
    append = [b"APPEND", b"3-117", RECORD]
    assert said([ID, OK, OK, OK, OK]) == [[b"NEW", b"7"], append, append, append, [b"DELETE", b"3-117"], [b"NEW", b"7"]]


@pytest.mark.parametrize("cut", range(1, len(ID)))
def test_an_id_that_comes_in_two_pieces(cut: int) -> None:
    assert said([ID[:cut], ID[cut:]])[1:] == [None, [b"APPEND", b"3-117", RECORD]]


@pytest.mark.parametrize("cut", range(1, len(OK)))
def test_an_ok_that_comes_in_two_pieces(cut: int) -> None:
    assert said([ID, OK[:cut], OK[cut:]])[2:] == [None, [b"APPEND", b"3-117", RECORD]]


@pytest.mark.parametrize(
    ("answers", "error", "text"),
    [
        ([b"-UNKNOWNKIND no kind 7; nothing was stored\r\n"], UnknownKind, "^no kind 7; nothing was stored$"),
        ([b"-UNKNOWN", b"KIND no kind 7\r\n"], UnknownKind, "no kind 7"),
        ([b"-NEWWORD of a later version\r\n"], BadRequest, "of a later version"),
        ([OK], TrubaError, "a wrong answer to NEW"),
        ([b"$5\r\n3-1178\r\n"], TrubaError, "a wrong answer to NEW"),
        ([b"$x\r\n"], TrubaError, "a wrong answer to NEW"),
        ([ID, ID], TrubaError, "a wrong answer to APPEND"),
        ([ID, OK + OK], TrubaError, "a wrong answer to APPEND"),
        ([ID, OK, OK, b"-FENCED not yours\r\n"], Fenced, "not yours"),
        ([ID, OK, OK, OK, b":1\r\n"], TrubaError, "a wrong answer to DELETE"),
    ],
)
def test_a_wrong_answer(answers: list[bytes], error: type[TrubaError], text: str) -> None:
    with pytest.raises(error, match=text):
        said(answers)


@contextmanager
def listening() -> Iterator[tuple[socket.socket, Setup]]:
    with socket.create_server(("127.0.0.1", 0)) as server:
        host, port = server.getsockname()
        yield server, Setup(host, port, "", None, None, 7, 256, None)


def test_nobody_listens() -> None:
    with listening() as (server, setup):
        server.close()
        with pytest.raises(Unavailable, match=rf"no pipe at 127.0.0.1:{setup.port}: .*nothing was sent"):
            Load(setup).measure(Order(1, 0.1, 0.1))


def test_the_pipe_hangs_up() -> None:
    with listening() as (server, setup):

        def hang_up() -> None:
            with server.accept()[0] as connection:
                connection.recv(64)

        other = threading.Thread(target=hang_up)
        other.start()
        with pytest.raises(Unavailable, match=r"(closed|broke) the connection"):
            Load(setup).measure(Order(1, 0.1, 0.1))
        other.join()


def test_at_a_rate_a_pause_is_charged_for_everybody_who_came_meanwhile() -> None:
    """500 a second for 0.6 s, of which the pipe stands still for 0.2: a third of all waited, not one."""
    operations = 0

    def serve(server: socket.socket) -> None:
        nonlocal operations
        parser = StrictParser()
        with server.accept()[0] as connection:
            while piece := connection.recv(4096):
                (message,) = parser.feed(piece)
                operations += 1
                if operations == 100:
                    time.sleep(0.2)
                connection.sendall(ID if message[0] == b"NEW" else OK)

    with listening() as (server, setup):
        other = threading.Thread(target=serve, args=(server,))
        other.start()
        measured = Load(setup).measure(Order(1, 0, 0.6, rate_per_s=500))
        other.join()
    assert sum(count for us, count in measured.counts.items() if us > 20_000) >= 50
    assert measured.operations <= 301
    assert operations % 5 == 0  # the last session was finished
