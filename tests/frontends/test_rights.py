"""Who may do what: nothing before the password, and afterwards only what the authenticator allows."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import pytest

from tests.frontends.cluster import Place, Talk
from truba.auth import SharedPassword
from truba.frontends.listening import Listen, bind
from truba.ports.auth import Authenticator
from truba.wire.connection import WireSettings
from truba.wire.stranger import BEFORE_AUTH
from truba.wire.verbs import VERBS

TOKEN = b"0123456789abcdef"


@asynccontextmanager
async def guarded(authenticator: Authenticator) -> AsyncIterator[Place]:
    made = Place(await bind(Listen("127.0.0.1:0")), WireSettings(authenticator=authenticator))
    try:
        await made.lead()
        yield made
    finally:
        made.listening.close()
        await made.rest()


@pytest.mark.parametrize("verb", sorted(VERBS.keys() - {b"AUTH", b"HELLO", b"LEADER", b"QUIT"}))
async def test_nothing_is_done_before_the_password(verb: bytes) -> None:
    """In any spelling. Whoever adds to what may come first must change this line too."""
    assert frozenset({b"AUTH", b"HELLO", b"LEADER", b"QUIT"}) == BEFORE_AUTH
    async with guarded(SharedPassword("sesame")) as here, Talk(here.address) as client:
        assert here.node is not None
        seq = here.node.machine.seq
        for word in (verb, verb.lower()):
            assert (await client.ask(word, TOKEN, b"GRACE", b"1")).startswith("NOAUTH")
        assert (await client.ask(b"HELLO", b"3")).startswith("NOAUTH")
        assert here.node.machine.seq == seq


@pytest.mark.parametrize("wrong", [b"", b"s", b"sesam", b"sesame ", b"sesamesesame", b"Sesame", b"\xff"])
async def test_only_the_password_is_the_password(wrong: bytes) -> None:
    async with guarded(SharedPassword("sesame")) as here, Talk(here.address) as client:
        assert (await client.ask(b"AUTH", wrong)).startswith("NOAUTH")
        assert (await client.ask(b"AUTH", b"anna", wrong)).startswith("NOAUTH")
        assert (await client.ask(b"HELLO", b"2", b"AUTH", b"anna", wrong)).startswith("NOAUTH")
        assert (await client.ask(b"PING")).startswith("NOAUTH")
        assert await client.ask(b"AUTH", b"sesame") == b"OK"
        assert await client.ask(b"PING") == b"PONG"


class Anna:
    """May do what the test says; remembers what was asked."""

    name = "anna"

    def __init__(self) -> None:
        self.asked: list[tuple[str, int | None]] = []
        self.may: Callable[[str, int | None], bool] = lambda verb, kind: True

    def allows(self, verb: str, kind: int | None) -> bool:
        self.asked.append((verb, kind))
        return self.may(verb, kind)

    def authenticate(self, user: str, password: str, peer: str) -> Anna:
        return self


WANTS = {
    (b"NEW", b"7"): ("NEW", 7),
    (b"APPEND", b"1-2", b"x"): ("APPEND", 7),
    (b"REPLACE", b"1-2", b"x"): ("REPLACE", 7),
    (b"DELETE", b"1-2"): ("DELETE", 7),
    (b"STORE", b"1-2", b"1"): ("STORE", 7),
    (b"FAIL", b"1-2"): ("FAIL", 7),
    (b"TOUCH", b"1-2"): ("TOUCH", 7),
    (b"OWNER", TOKEN): ("OWNER", None),
    (b"LS",): ("LS", None),
    (b"LS", b"KIND", b"7"): ("LS", 7),
    (b"SHOW", b"1-2"): ("SHOW", 7),
    (b"RESUME", b"1-2"): ("RESUME", 7),
    (b"REMOVE", b"1-2"): ("REMOVE", 7),
    (b"PAUSE", b"7"): ("PAUSE", 7),
    (b"CONTINUE", b"seven"): ("CONTINUE", 7),
    (b"INFO",): ("INFO", None),
    (b"INFO", b"KIND", b"seven"): ("INFO", 7),
    (b"INFO", b"replication"): ("INFO", None),
}


@pytest.mark.parametrize("words", WANTS, ids=lambda words: b" ".join(words).decode())
async def test_each_verb_needs_its_own_right_for_its_kind(words: tuple[bytes, ...]) -> None:
    anna = Anna()
    async with guarded(anna) as here, Talk(here.address) as client:
        assert here.node is not None
        assert await client.ask(b"AUTH", b"anna", b"x") == b"OK"
        assert await client.ask(b"NEW", b"7", b"a") == b"1-2"
        seq = here.node.machine.seq
        anna.may = lambda verb, kind: (verb, kind) != WANTS[words]
        anna.asked.clear()
        assert (await client.ask(*words)).startswith("NOPERM")
        assert anna.asked == [WANTS[words]]
        assert here.node.machine.seq == seq


@pytest.mark.parametrize("proto", [b"2", b"3"])
async def test_nobody_is_handed_sessions_on_a_connection_of_his_own(proto: bytes) -> None:
    async with guarded(Anna()) as here, Talk(here.address) as client:
        await client.ask(b"HELLO", proto, b"AUTH", b"anna", b"x")
        assert (await client.ask(b"KINDS", b"7", b"CREDIT", b"5")).startswith("ERR KINDS is for handlers")
        (connection,) = here.resp.connections
        assert not connection.has_seat(7)
