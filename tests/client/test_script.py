"""What a client says and when: against peers that follow a script, and when there is no room."""

from __future__ import annotations

import asyncio
from itertools import chain, repeat

import pytest

import truba
from tests.client.inprocess import served, until
from tests.client.scripted import Scripted, pleased
from truba.client import calls
from truba.errors import OPERATION_ERRORS
from truba.types import Phase


@pytest.mark.parametrize("code", sorted(OPERATION_ERRORS.keys() - {"UNKNOWN"}))
async def test_each_error_word_is_its_exception(code: str) -> None:
    def answer(request: list[bytes]) -> bytes:
        return f"-{code} because of 5 things\r\n".encode() if request[0] == b"APPEND" else pleased(request)

    async with Scripted(answer) as peer, truba.connect(peer.url) as client:
        session = await client.new(7)
        with pytest.raises(OPERATION_ERRORS[code]) as caught:
            await session.append(b"x")
        assert type(caught.value) is OPERATION_ERRORS[code]
        assert str(caught.value) == "because of 5 things"


async def test_requests_of_one_turn_leave_in_one_write() -> None:
    async with Scripted(pleased) as peer, truba.connect(peer.url) as client:
        before = peer.chunks
        await asyncio.gather(*(client.new(7, b"r") for _ in range(100)))
        assert peer.chunks == before + 1


async def test_operations_of_one_session_keep_their_order_when_there_is_no_room(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(calls, "UNDER_WAY_MAX", 3)
    async with served() as pipe, truba.connect(pipe.url) as client:
        sessions = await asyncio.gather(*(client.new(7) for _ in range(10)))
        numbers = [b"%d" % n for n in range(20)]
        await asyncio.gather(*(session.append(n) for n in numbers for session in sessions))
        assert await pipe.sessions() == [(Phase.ACTIVE, numbers)] * 10


async def test_bytes_under_way_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(calls, "UNDER_WAY_BYTES_MAX", 1000)
    answering = asyncio.Event()
    held: list[bytes] = []

    def answer(request: list[bytes]) -> bytes | None:
        if request[0] == b"NEW" and not answering.is_set():
            held.append(request[-1])
            return None
        return pleased(request)

    async with Scripted(answer) as peer, truba.connect(peer.url) as client:
        opening = [asyncio.create_task(client.new(7, b"x" * 400)) for _ in range(10)]
        await until(lambda: bool(held))
        await asyncio.sleep(0.01)
        assert len(held) == 3  # the third goes over the bound, no more is taken
        opening[5].cancel()
        answering.set()
        for transport in peer.transports:
            transport.write(b"$3\r\n1-1\r\n" * 3)
        done = await asyncio.gather(*opening, return_exceptions=True)
        assert [type(one).__name__ for one in done] == ["RemoteSession"] * 5 + ["CancelledError"] + [
            "RemoteSession"
        ] * 4
        assert sum(request[0] == b"NEW" for request in peer.said) == 9


async def test_idle_connection_is_kept_known_alive() -> None:
    async with Scripted(pleased) as peer, truba.connect(peer.url, grace_s=0.1):
        await until(lambda: peer.said.count([b"PING"]) == 3)
        assert peer.connections == 1


async def test_one_of_several_addresses_and_one_that_does_not_lead() -> None:
    def follower(request: list[bytes]) -> bytes:
        return b"-NOTLEADER ask 127.0.0.1:1\r\n" if request[0] == b"OWNER" else pleased(request)

    async with Scripted(follower) as other, Scripted(pleased) as leader:
        async with truba.connect(["truba://127.0.0.1:9", other.url, leader.url]) as client:
            await client.new(7)
        assert other.connections == 1
        assert [request[0] for request in leader.said] == [b"LEADER", b"OWNER", b"NEW"]


async def test_whatever_answers_at_the_start_is_no_pipe() -> None:
    async with Scripted(lambda request: b"+PONG\r\n") as peer:
        with pytest.raises(truba.Unavailable, match="no pipe"):
            await truba.connect(peer.url, connect_timeout_s=0)


@pytest.mark.parametrize(
    "nonsense", [b"+PONG\r\n", b"*1\r\n$3\r\n1-1\r\n", b"*1\r\n*4\r\n$1\r\nx\r\n:7\r\n:1\r\n:0\r\n"]
)
async def test_whatever_answers_after_a_break_is_no_pipe_and_is_left(nonsense: bytes) -> None:
    owners = chain([b"*0\r\n", nonsense], repeat(b"*0\r\n"))

    async with (
        Scripted(lambda request: next(owners) if request[0] == b"OWNER" else pleased(request)) as peer,
        truba.connect(peer.url) as client,
    ):
        peer.cut()
        await client.new(7)
        assert peer.connections == 3


async def test_a_fault_of_the_client_itself_is_told_to_everybody(monkeypatch: pytest.MonkeyPatch) -> None:
    async def faulty() -> None:
        raise ZeroDivisionError

    async with Scripted(pleased) as peer:
        client = await truba.connect(peer.url)
        monkeypatch.setattr(client, "_dial", faulty)
        peer.cut()
        with pytest.raises(truba.OperationError, match="ZeroDivisionError"):
            await client.new(7)
        with pytest.raises(ZeroDivisionError):
            await client.close()
