"""The peer door and its client, against each other and against what strangers may send."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest

from tests.cluster.played import AUDIT, FOLLOWER, SECRET, Played, opened, through
from truba.address import Address
from truba.cluster import door as doors
from truba.cluster.door import Door
from truba.cluster.peers import Peer
from truba.errors import Busy, NoAuth, Unavailable, UnknownOutcome


async def said(door: Door, *pieces: bytes) -> bytes:
    """All that the door answers, to its end."""
    reader, writer = await asyncio.open_connection(*door.bound)
    try:
        for piece in pieces:
            writer.write(piece)
            await writer.drain()
        async with asyncio.timeout(2):
            return await reader.read()
    finally:
        writer.close()


def request(*words: bytes) -> bytes:
    return b"*%d\r\n" % len(words) + b"".join(b"$%d\r\n%b\r\n" % (len(word), word) for word in words)


async def test_what_a_node_says_of_itself(tmp_path: Path) -> None:
    host = Played(trouble="ёлка: 5 % of the disk left")
    async with opened(host, tmp_path) as door:
        peer = await Peer.connect(door.bound, SECRET)
        assert await peer.status() == host.said
        assert (await peer.digest()).digest == "ab" * 32
        await peer.close()


async def test_step_down(tmp_path: Path) -> None:
    host = Played()
    async with opened(host, tmp_path) as door:
        peer = await Peer.connect(door.bound, SECRET)
        with pytest.raises(Busy, match="this node does not lead"):
            await peer.step_down("b")
        host.said = Played(role="leader").said
        await peer.step_down("b")  # a refusal leaves the connection as it was
        await peer.step_down()
        assert host.stepped == ["b", ""]
        await peer.close()
    lines = [json.loads(line) for line in (tmp_path / AUDIT).read_text().splitlines()]
    assert {(line["who"], line["act"]) for line in lines} == {("peer", "step-down")}
    assert [(line["on"], line["result"]) for line in lines] == [
        ("leadership, for node b", "asked"),
        ("leadership, for node b", "refused: this node does not lead"),
        ("leadership, for node b", "asked"),
        ("leadership, for node b", "done"),
        ("leadership", "asked"),
        ("leadership", "done"),
    ]


async def test_what_cannot_be_written_down_is_not_done(tmp_path: Path) -> None:
    host = Played(role="leader")
    async with opened(host, tmp_path) as door:
        (tmp_path / AUDIT).mkdir()
        peer = await Peer.connect(door.bound, SECRET)
        with pytest.raises(Unavailable, match="cannot be written: Is a directory; nothing was changed"):
            await peer.step_down("b")
        assert not host.stepped
        await peer.close()


async def test_a_step_down_without_an_answer_is_of_unknown_outcome(tmp_path: Path) -> None:
    host = Played(role="leader")
    async with opened(host, tmp_path) as door, through(door, lambda at, data: b"" if at else data) as where:
        peer = await Peer.connect(where, SECRET)
        with pytest.raises(UnknownOutcome, match="whether it stepped down is unknown"):
            await peer.step_down()
        assert host.stepped == [""]
        await peer.close()


@pytest.mark.parametrize(
    "first",
    [
        request(b"STATUS"),
        request(b"AUTH", b"wrong"),
        request(b"AUTH", SECRET[:-1]),
        request(b"AUTH", b""),
        request(b"AUTH"),
        request(b"AUTH", b"user", SECRET),
        request(b"PING", SECRET),
        b"STATUS\r\n",
    ],
)
async def test_without_the_secret_nothing_is_answered(tmp_path: Path, first: bytes) -> None:
    async with opened(Played(), tmp_path) as door:
        answer = await said(door, first + request(b"STATUS"))
        assert answer == b"-NOAUTH AUTH with the secret of this cluster comes first\r\n"


async def test_a_wrong_secret(tmp_path: Path) -> None:
    async with opened(Played(), tmp_path) as door:
        with pytest.raises(NoAuth, match="secret of this cluster"):
            await Peer.connect(door.bound, b"wrong")


async def test_silence_ends_before_the_secret_and_not_after_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doors, "AUTH_TIMEOUT_S", 0.1)
    async with opened(Played(), tmp_path) as door:
        known = await Peer.connect(door.bound, SECRET)
        assert await said(door) == b""
        assert await said(door, b"*2\r\n$4\r\nAUTH\r\n$25\r\nthe sec") == b""
        assert (await known.status()).name == "a"
        await known.close()


@pytest.mark.parametrize(
    "garbage",
    [
        b"\x16\x03\x01",
        b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
        b"*4000000000\r\n",
        b"*2\r\n$4\r\nAUTH\r\n$2000000000\r\n",
        b"*2\r\n$4\r\nAUTH\r\n$3000\r\n" + b"x" * 3000,
        b"x" * 100_000,
        b"\x00" * 100,
        b"*1\r\n*1\r\n",
    ],
)
async def test_garbage_is_answered_with_an_error_and_closed(tmp_path: Path, garbage: bytes) -> None:
    async with opened(Played(), tmp_path) as door:
        for before in (b"", request(b"AUTH", SECRET)):
            try:
                answer = await said(door, before + garbage)
            except ConnectionResetError:
                continue  # closed with some of it unread
            assert len(answer) < 700
            assert answer.removeprefix(b"+OK\r\n")[:1] in (b"-", b"")
        peer = await Peer.connect(door.bound, SECRET)
        assert await peer.status() == FOLLOWER
        await peer.close()


async def test_requests_in_one_piece_are_answered_in_order(tmp_path: Path) -> None:
    async with opened(Played(), tmp_path) as door:
        reader, writer = await asyncio.open_connection(*door.bound)
        words = [[b"AUTH", SECRET], [b"nope"], [b"status", b"x"], [b"STEPDOWN"], [b"AUTH", b"x"], [b"AUTH", SECRET]]
        writer.write(b"".join(request(*each) for each in words))
        answers = [(await reader.readline()).partition(b" ")[0].strip() for _ in words]
        assert answers == [b"+OK", b"-ERR", b"-ERR", b"-BUSY", b"-NOAUTH", b"+OK"]
        writer.close()


async def test_too_many_connections(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doors, "CONNECTIONS_MAX", 1)
    async with opened(Played(), tmp_path) as door:
        peer = await Peer.connect(door.bound, SECRET)
        with pytest.raises(Busy, match="the limit"):
            await Peer.connect(door.bound, SECRET)
        await peer.close()


async def test_a_defect_of_the_node_ends_the_connection_and_not_the_door(tmp_path: Path) -> None:
    host = Played()
    async with opened(host, tmp_path) as door:
        peer = await Peer.connect(door.bound, SECRET)
        host.said = None  # type: ignore[assignment]
        with pytest.raises(Unavailable, match=r"closed the connection|broke"):
            await peer.status()
        host.said = FOLLOWER
        await peer.close()
        again = await Peer.connect(door.bound, SECRET)
        assert await again.status() == FOLLOWER
        await again.close()


async def test_an_address_that_is_taken(tmp_path: Path) -> None:
    async with opened(Played(), tmp_path) as door:
        with pytest.raises(OSError, match=f"cannot listen for peers on {door.bound}: Address already in use"):
            await Door(Played(), SECRET, tmp_path, door.audit).start(door.bound)


# -- the client against what is no peer door ------------------------------------------------------------------------


async def answered(*answers: bytes) -> Address:
    """A port whose visitors get these answers, one for each request, then the end."""

    async def enter(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        for answer in answers:
            if not await reader.read(4096):
                break
            writer.write(answer)
        writer.close()
        server.close()

    server = await asyncio.start_server(enter, "127.0.0.1", 0)
    return Address(*server.sockets[0].getsockname()[:2])


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        (b"", "closed the connection"),
        (b"HTTP/1.1 400 Bad Request\r\n\r\n", "no peer door"),
        (b"$-2\r\n", "no peer door"),
        (b"$99999999999\r\n", "no peer door.*larger than what was asked for"),
        (b"*99999999999\r\n" + b"*1\r\n" * 99, "no peer door"),
        (b"x" * 500_000, "no peer door"),
        (b"%1\r\n:1\r\n:1\r\n", "no peer door.*key is no string"),
        (b"%1\r\n$4\r\nname\r\n:1\r\n", "no peer door"),
        (b"$3\r\nabcde", "no peer door"),
        (b":1\r\n", "no peer door"),
    ],
)
async def test_who_answers_otherwise_is_no_peer(answer: bytes, expected: str) -> None:
    peer = await Peer.connect(await answered(b"+OK\r\n", answer), SECRET)
    with pytest.raises(Unavailable, match=expected):
        await peer.status()
    await peer.close()


async def test_nobody_there() -> None:
    with pytest.raises(Unavailable, match=r"no connection to 127\.0\.0\.1:1: Connection refused"):
        await Peer.connect(Address("127.0.0.1", 1), SECRET)


async def test_somebody_who_never_answers() -> None:
    visitors: list[asyncio.StreamWriter] = []
    silent = await asyncio.start_server(lambda reader, writer: visitors.append(writer), "127.0.0.1", 0)
    where = Address(*silent.sockets[0].getsockname()[:2])
    with pytest.raises(Unavailable, match=r"does not answer within 0\.05 s"):
        await Peer.connect(where, SECRET, timeout_s=0.05)
    silent.close()
    for visitor in visitors:
        visitor.close()
