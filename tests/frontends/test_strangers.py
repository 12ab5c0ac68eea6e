"""Who has not said who he is: a short time, few places, few bytes; and who does not read is cut."""

from __future__ import annotations

import asyncio
import tracemalloc
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

import pytest
import structlog

import truba
from tests.frontends.cluster import Place, Talk
from truba.auth import Everything, SharedPassword
from truba.frontends.listening import Listen, bind
from truba.ports.auth import Authenticator
from truba.rejections import LINES_MAX
from truba.strangers import Strangers
from truba.testing.jump import JumpClock, run_jumping
from truba.wire import patience
from truba.wire.connection import WireSettings
from truba.wire.stranger import STRANGER_REQUESTS_MAX

LARGE = bytes(1 << 20)


class Slow:
    """Its verdict comes later."""

    async def authenticate(self, user: str, password: str, peer: str) -> Everything | None:
        await asyncio.sleep(0)
        return Everything(user) if password == "sesame" else None


@asynccontextmanager
async def guarded(
    authenticator: Authenticator | None = None, connections_max: int = 1000, settings: WireSettings | None = None
) -> AsyncIterator[Place]:
    settings = settings or WireSettings(authenticator=authenticator or SharedPassword("sesame"))
    made = Place(await bind(Listen("127.0.0.1:0", None, connections_max)), settings)
    try:
        await made.lead()
        yield made
    finally:
        made.listening.close()
        await made.rest()


def encoded(*words: bytes) -> bytes:
    return b"*%d\r\n" % len(words) + b"".join([b"$%d\r\n%b\r\n" % (len(word), word) for word in words])


async def test_who_is_silent_is_cut_and_who_is_known_is_not(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("truba.strangers.KNOWN_WITHIN_S", 0.05)
    async with guarded() as here, Talk(here.address) as known, Talk(here.address) as silent:
        assert await known.ask(b"AUTH", b"sesame") == b"OK"
        silent.send(b"HELLO")  # answered, and yet he is nobody
        assert (await silent.answer()).startswith("NOAUTH")
        assert await silent.ended()
        assert await known.ask(b"PING") == b"PONG"


async def test_a_relayed_one_must_go_on_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("truba.strangers.KNOWN_WITHIN_S", 0.05)
    async with guarded() as leader, guarded() as follower:
        await follower.follow(leader.address)
        async with Talk(follower.address) as silent, Talk(follower.address) as relayed:
            assert await relayed.ask(b"AUTH", b"sesame") == b"OK"
            assert await silent.ask(b"LEADER") == str(leader.address).encode()
            assert await silent.ended()
            assert await relayed.ask(b"PING") == b"PONG"


async def test_the_one_that_has_waited_longest_makes_room(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("truba.strangers.STRANGERS_MAX", 3)
    async with guarded() as here, Talk(here.address) as known:
        assert await known.ask(b"AUTH", b"sesame") == b"OK"
        strangers = [Talk(here.address) for _ in range(5)]
        for one in strangers:
            await one.__aenter__()
            assert (await one.ask(b"PING")).startswith("NOAUTH")
        for one in strangers[:2]:
            assert await one.ended()
        for one in strangers[2:]:
            assert await one.ask(b"AUTH", b"sesame") == b"OK"
        assert await known.ask(b"PING") == b"PONG"
        for one in strangers:
            await one.__aexit__(None, None, None)


async def test_a_flood_in_one_turn_of_the_loop_is_let_go_too(monkeypatch: pytest.MonkeyPatch) -> None:
    """Connections that the loop has taken, and whose transport it has not made yet."""
    monkeypatch.setattr("truba.strangers.STRANGERS_MAX", 3)
    async with guarded() as here:

        async def come() -> asyncio.StreamWriter:
            return (await asyncio.open_connection(*here.address))[1]

        writers = await asyncio.gather(*(come() for _ in range(60)))
        async with asyncio.timeout(20):
            while len(here.resp.connections) > 3:  # noqa: ASYNC110 - nobody tells of it
                await asyncio.sleep(0.01)
        for writer in writers:
            writer.transport.abort()


def test_time_is_counted_for_each() -> None:
    async def play() -> list[tuple[str, float]]:
        loop, dropped = asyncio.get_running_loop(), list[tuple[str, float]]()
        start_s = loop.time()
        strangers = Strangers[str](lambda one, why: dropped.append((one, loop.time() - start_s)))
        strangers.add("a")
        await asyncio.sleep(4)
        strangers.add("b")
        strangers.add("c")
        strangers.known("b")
        strangers.known("nobody")
        await asyncio.sleep(60)
        assert not len(strangers)
        return dropped

    assert [(one, round(at_s)) for one, at_s in run_jumping(play(), JumpClock())] == [("a", 10), ("c", 14)]


@pytest.mark.parametrize("authenticator", [SharedPassword("sesame"), Slow()], ids=["at once", "later"])
@pytest.mark.parametrize("end", [False, True])
async def test_what_follows_the_password_is_read_as_of_who_is_known(authenticator: Authenticator, end: bool) -> None:
    """In one write: the password, a request larger than strangers may send, many more, and perhaps the end."""
    asked = encoded(b"AUTH", b"sesame") + encoded(b"NEW", b"7", LARGE) + encoded(b"PING") * 500
    async with guarded(authenticator) as here, Talk(here.address) as client:
        client.writer.write(asked)
        if end:
            client.writer.write_eof()
        assert await client.answer() == b"OK"
        assert await client.answer() == b"1-2"
        assert [await client.answer() for _ in range(500)] == [b"PONG"] * 500
        if end:
            assert await client.ended()


async def test_what_comes_while_the_verdict_is_late_keeps_its_order() -> None:
    """Bytes that a loop has read before the pause."""
    gate = asyncio.Event()

    class Gated(Slow):
        async def authenticate(self, user: str, password: str, peer: str) -> Everything | None:
            await gate.wait()
            return Everything(user)

    async with guarded(Gated()) as here, Talk(here.address) as client:
        client.send(b"LEADER")
        assert await client.answer() is None
        (connection,) = here.resp.connections
        for said in (encoded(b"AUTH", b"x") + encoded(b"ECHO", b"1"), encoded(b"ECHO", b"2") + b"*2\r\n$4\r\nEC"):
            connection.data_received(said)
        connection.data_received(b"HO\r\n$1\r\n3\r\n")
        gate.set()
        assert [await client.answer() for _ in range(4)] == [b"OK", b"1", b"2", b"3"]
        assert await client.ask(b"ECHO", b"4") == b"4"


@pytest.mark.parametrize("authenticator", [SharedPassword("sesame"), Slow()], ids=["at once", "later"])
async def test_the_wrong_password_changes_nothing(authenticator: Authenticator) -> None:
    async with guarded(authenticator) as here, Talk(here.address) as client:
        client.writer.write(encoded(b"AUTH", b"no") + encoded(b"NEW", b"7") + encoded(b"AUTH", b"sesame"))
        client.writer.write(encoded(b"PING"))
        first, second, third, fourth = [await client.answer() for _ in range(4)]
        assert first.startswith("NOAUTH wrong")
        assert second.startswith("NOAUTH authenticate first")
        assert (third, fourth) == (b"OK", b"PONG")


class Broken:
    def authenticate(self, user: str, password: str, peer: str) -> Everything | None:
        raise {"key": KeyError(user), "text": UnicodeDecodeError("utf-8", b"\xff", 0, 1, "no")}[password]


class BrokenLater:
    async def authenticate(self, user: str, password: str, peer: str) -> Everything | None:
        return Broken().authenticate(user, password, peer)


@pytest.mark.parametrize("authenticator", [Broken(), BrokenLater()], ids=["at once", "later"])
async def test_an_authenticator_that_fails_is_told_of_and_answered(authenticator: Authenticator) -> None:
    async with guarded(authenticator) as here, Talk(here.address) as client:
        for password in (b"key", b"text"):
            answer = await client.ask(b"AUTH", password)
            assert answer.startswith("UNAVAILABLE the authentication service failed; nothing was stored")
        assert here.listening.rejections.counts["the authenticator failed"] == 2


@pytest.mark.parametrize("authenticator", [SharedPassword("sesame"), Slow()], ids=["at once", "later"])
async def test_a_hello_that_is_refused_switches_nothing(authenticator: Authenticator) -> None:
    async with guarded(authenticator) as here, Talk(here.address) as client:
        refused = encoded(b"HELLO", b"3", b"AUTH", b"anna", b"no", b"SETNAME", b"anna")
        client.writer.write(refused + encoded(b"AUTH", b"sesame") + encoded(b"CLIENT", b"GETNAME") + encoded(b"LEADER"))
        said = [(await client.reader.readline()).decode().strip() for _ in range(5)]
        assert said == ["-NOAUTH wrong user or password", "+OK", "$0", "", "$-1"]


@pytest.mark.parametrize("authenticator", [SharedPassword("sesame"), Slow()], ids=["at once", "later"])
async def test_guesses_fill_no_disk_with_log_and_none_is_forgotten(authenticator: Authenticator) -> None:
    with structlog.testing.capture_logs() as logged:
        async with guarded(authenticator) as here:
            for _ in range(25):
                async with Talk(here.address) as client:
                    for _ in range(2):
                        assert (await client.ask(b"AUTH", b"guess")).startswith("NOAUTH wrong")
            for _ in range(25):
                async with Talk(here.address) as client:
                    client.writer.write(b"*1000000000\r\n")
                    assert (await client.answer()).startswith("TOOBIG")
            assert here.listening.rejections.counts == {"wrong user or password": 50, "connection given up": 25}
            assert len(logged) == 2 * LINES_MAX
    for cause, left_out in (("wrong user or password", 50 - LINES_MAX), ("connection given up", 25 - LINES_MAX)):
        lines = [line for line in logged if line["event"] == cause]
        assert len(lines) == LINES_MAX + 1
        assert all(line["peer"].startswith("127.0.0.1:") for line in lines[:-1])
        assert lines[-1]["left_out"] == left_out


async def test_what_a_stranger_says_behind_quit_is_not_looked_at() -> None:
    troubles: list[object] = []
    asyncio.get_running_loop().set_exception_handler(lambda _loop, trouble: troubles.append(trouble))
    async with guarded() as here, Talk(here.address) as client:
        client.writer.write(encoded(b"QUIT") + encoded(b"PING"))
        assert await client.answer() == b"OK"
        assert await client.ended()
    assert not troubles


@pytest.mark.parametrize(
    ("said", "answer"),
    [
        (b"*1000000000\r\n", "TOOBIG a request of 1000000000 arguments"),
        (b"*2\r\n$4\r\nAUTH\r\n$67108864\r\n", "TOOBIG a request of at least"),
        (encoded(b"NEW", b"7", LARGE)[:100], "TOOBIG a request of at least"),
        (b"AUTH " + b"x" * 5_000, "TOOBIG a line of words"),
        (encoded(b"PING") * (STRANGER_REQUESTS_MAX + 1), "NOAUTH authenticate first"),
        (encoded(b"AUTH", b"guess") * (STRANGER_REQUESTS_MAX + 1), "NOAUTH wrong user or password"),
    ],
)
async def test_a_stranger_who_wants_much_gets_nothing(said: bytes, answer: str) -> None:
    async with guarded() as here, Talk(here.address) as client:
        tracemalloc.start()
        try:
            client.writer.write(said)
            assert (await client.answer()).startswith(answer)
            assert tracemalloc.get_traced_memory()[1] < 4 << 20
        finally:
            tracemalloc.stop()
        client.writer.write(encoded(b"AUTH", b"sesame"))
        while not isinstance(last := await _next(client), EOFError):
            assert last != b"OK"


async def _next(client: Talk) -> object:
    try:
        return await client.answer()
    except (EOFError, ConnectionError):
        return EOFError()


async def test_without_authentication_nobody_is_a_stranger() -> None:
    async with guarded(settings=WireSettings()) as here, Talk(here.address) as client:
        client.writer.write(encoded(b"NEW", b"7", LARGE) + encoded(b"PING") * 100)
        assert await client.answer() == b"1-2"
        assert [await client.answer() for _ in range(100)] == [b"PONG"] * 100


async def test_who_does_not_read_his_answers_is_cut_and_who_reads_slowly_is_not(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(patience, "STALL_S", 0.05)
    async with guarded(settings=WireSettings()) as here, Talk(here.address) as slow, Talk(here.address) as stuck:
        session = await slow.ask(b"NEW", b"7", LARGE)
        for client in (slow, stuck):
            client.writer.transport.pause_reading()  # type: ignore[attr-defined]
            client.writer.write(encoded(b"SHOW", session) * 40)
        async with asyncio.timeout(15):  # less than the 25 s after which the kernel cuts a TCP connection that stands
            while len(here.resp.connections) == 2:
                slow.writer.transport.resume_reading()  # type: ignore[attr-defined]
                await asyncio.sleep(0.005)
        (left,) = here.resp.connections
        assert left.peer == "{}:{}".format(*slow.writer.get_extra_info("sockname"))
        slow.writer.transport.resume_reading()  # type: ignore[attr-defined]
        for _ in range(40):
            assert isinstance(await slow.answer(), list)
        assert await slow.ask(b"PING") == b"PONG"


async def test_a_handler_service_has_places_for_few_strangers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("truba.strangers.STRANGERS_MAX", 2)

    async def finish(repeat: truba.RepeatData) -> None: ...

    async with truba.serve_handlers({7: finish}, "127.0.0.1:0", secret="hush") as server:
        told: list[str] = []
        server.on_trouble = lambda what, error: told.append(what)
        host, _, port = server.address.rpartition(":")
        streams = [await asyncio.open_connection(host, int(port)) for _ in range(3)]
        async with asyncio.timeout(20):
            assert await streams[0][0].read() == b""
            tracemalloc.start()
            try:
                streams[1][1].write(b"*1000000000\r\n")
                assert await _end(streams[1][0])
                assert tracemalloc.get_traced_memory()[1] < 4 << 20
            finally:
                tracemalloc.stop()
            streams[2][1].write(b">4\r\n$5\r\nhello\r\n$5\r\ntruba\r\n$1\r\n1\r\n$4\r\nhush\r\n")
            assert (await streams[2][0].readline()).startswith(b"*4")
            streams[2][1].write(b"+OK\r\n")
            streams += [await asyncio.open_connection(host, int(port)) for _ in range(3)]
            streams[2][1].write(b">2\r\n$4\r\nnews\r\n$1\r\nx\r\n*1000000000\r\n")
            assert await _end(streams[2][0])
        assert any("over 2 have not said who they are" in what for what in told)
        for _, writer in streams:
            writer.close()


async def _end(reader: asyncio.StreamReader) -> bool:
    with suppress(ConnectionError):
        await reader.read()
    return True
