"""What a stranger has sent, while it is settled who it is."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine

import pytest

from tests.node.world import World, nobody
from tests.wire.played import Played
from truba.auth import Everything
from truba.client.requests import encode
from truba.kinds import Kind
from truba.protocols.resp import FramingLost
from truba.testing.jump import JumpClock
from truba.wire.connection import Connection, WireSettings
from truba.wire.stranger import STRANGER_REQUESTS_MAX, Stranger
from truba.wire.verbs import VERBS

Jump = Callable[[Coroutine[object, object, None]], None]
LARGE = bytes(1 << 20)


@pytest.mark.parametrize("cut", range(1, 40))
def test_requests_are_taken_one_by_one_wherever_the_stream_is_cut(cut: int) -> None:
    said = b"*0\r\n" + encode(b"HELLO") + b"PING\r\n" + encode(b"AUTH", b"x")
    stranger, taken = Stranger(), []
    for part in (said[:cut], said[cut:], encode(b"NEW", b"7", LARGE)):
        stranger.feed(part)
        while len(taken) < 3 and (request := stranger.take()) is not None:
            taken.append(request)
    assert taken == [[b"HELLO"], [b"PING"], [b"AUTH", b"x"]]
    assert not stranger.idle
    assert stranger.rest() == encode(b"NEW", b"7", LARGE)  # for whoever it is: not looked at
    assert stranger.idle


def test_of_one_that_asks_too_much_nothing_is_kept() -> None:
    stranger = Stranger()
    stranger.feed(encode(b"PING") * (STRANGER_REQUESTS_MAX + 2))
    for _ in range(STRANGER_REQUESTS_MAX):
        assert stranger.take() == [b"PING"]
    with pytest.raises(FramingLost, match="authenticate first"):
        stranger.take()
    assert stranger.idle


@pytest.mark.parametrize("nothing", [b"\n", b" \r\n", b"*0\r\n", b"*-1\r\n"])
def test_to_ask_for_nothing_again_and_again_is_to_ask_too_much(nothing: bytes) -> None:
    stranger = Stranger()
    stranger.feed(nothing * (STRANGER_REQUESTS_MAX - 1) + encode(b"PING"))
    assert stranger.take() == [b"PING"]
    stranger.feed(nothing * 50_000)
    with pytest.raises(FramingLost, match="authenticate first"):
        stranger.take()
    assert stranger.idle


def test_a_request_in_many_pieces_is_one() -> None:
    stranger = Stranger()
    for byte in b"*0\r\n" + encode(b"AUTH", b"x" * 100):
        assert stranger.take() is None
        stranger.feed(bytes((byte,)))
    assert stranger.take() == [b"AUTH", b"x" * 100]


@pytest.mark.parametrize("password", ["guess", "sesame"])
def test_who_hangs_up_while_a_verdict_is_late_gets_all_answers(jump: Jump, clock: JumpClock, password: str) -> None:
    """TLS gives what came and the end at once, also while nothing is to be read."""
    heard = asyncio.Event()

    class Slow:
        async def authenticate(self, user: str, password: str, peer: str) -> Everything | None:
            await heard.wait()
            return Everything(user) if password == "sesame" else None

    async def main() -> None:
        world = World(Kind(7, "transfer", nobody), clock=clock)
        await world.start()
        connection = Connection(world.node, VERBS, WireSettings(authenticator=Slow()), lambda _: None)
        transport = Played()
        connection.connection_made(transport)
        connection.data_received(encode(b"AUTH", password.encode()) + encode(b"ECHO", b"a") + encode(b"ECHO", b"b"))
        connection.eof_received()
        await asyncio.sleep(0)
        assert not transport.written
        assert not transport.over
        heard.set()
        for _ in range(5):
            await asyncio.sleep(0)
        assert transport.over
        if password == "sesame":
            assert transport.written == b"+OK\r\n$1\r\na\r\n$1\r\nb\r\n"
        else:
            assert transport.written.count(b"-NOAUTH") == 3

    jump(main())
