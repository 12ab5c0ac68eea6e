"""What JetStream and nats-py do that a log cannot live with, each shown on the real ones; and that it does no harm."""

from __future__ import annotations

import asyncio
import functools
import logging
from collections.abc import Callable, Coroutine
from contextlib import suppress
from typing import Any

import nats
import pytest
from nats.aio.client import Client

from tests.streams.fresh import LINKS, appended, connected, contents, entries, fresh, leading
from truba.cluster.entry import encode, of_batch
from truba.errors import Deposed
from truba.ports.stream import Message, Rejected, Stored, StreamDown, Unsure
from truba.streams.jetstream import JetStream
from truba.streams.publisher import EXPECTED
from truba.streams.settings import JetStreamSettings
from truba.testing.log import batch, commit
from truba.testing.nats import PASSWORDS, NatsServers
from truba.testing.stream import fill, published, take

SUBJECT = "truba.log"


async def until(true: Callable[[], bool]) -> None:
    async with asyncio.timeout(30):
        while not true():  # noqa: ASYNC110 another process's doing
            await asyncio.sleep(0.01)


async def test_a_late_message_of_an_old_leader_fits_the_numbers_and_is_void(server: NatsServers) -> None:
    """Two were under way; the first was lost, the new leader took its number, and then the second one fits."""
    stream, other = await fresh(server), await connected(server)
    old = await leading(stream, "a")
    lost = of_batch(LINKS, batch(2), old.tail, "a", 1)
    late = of_batch(LINKS, batch(3), lost.position, "a", 1)
    end = (await stream.bounds()).last
    new = await leading(other, "b")
    assert (await stream.bounds()).last == end + 1
    assert await published(stream, encode(LINKS, late), end + 1) == Stored(end + 2)  # the hazard

    await commit(new, batch(3, term=2))
    assert new.voids == 1
    assert [(at.term, at.seq) for _, at in new.read(0)] == [(1, 1), (2, 2), (2, 3)]
    assert await entries(stream) == [1, 2, 3]
    with pytest.raises(Deposed):
        await commit(old, batch(2))
    new.close()
    await stream.close()
    await other.close()


async def test_nats_py_never_tells_of_a_rejection_and_our_publish_does(server: NatsServers) -> None:
    stream = await fresh(server)
    await fill(stream, b"one")
    async with server.connected("admin") as client:
        jetstream = client.jetstream()
        told = await jetstream.publish_async(SUBJECT, b"fits", headers={EXPECTED: "1"})
        assert (await asyncio.wait_for(told, 5)).seq == 2
        told = await jetstream.publish_async(SUBJECT, b"does not fit", headers={EXPECTED: "7"})
        await asyncio.wait([told], timeout=0.5)
        assert not told.done()  # the hazard
        assert jetstream.publish_async_pending() == 1
    assert isinstance(await asyncio.wait_for(published(stream, b"does not fit", 7), 0.5), Rejected)
    await stream.close()


async def test_the_ordered_consumer_skips_what_the_client_dropped_and_our_tail_does_not(
    server: NatsServers, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A subscription holds so many messages; further ones are dropped, and an error goes to a callback."""
    stream, reader = await fresh(server), await connected(server)
    messages = await fill(stream, *(b"%d" % seq for seq in range(1, 41)))
    async with server.connected("admin") as client:
        subscription = await client.jetstream().subscribe(SUBJECT, ordered_consumer=True, pending_msgs_limit=10)
        await until(subscription._pending_queue.full)  # noqa: SLF001 only it shows how much is held
        await asyncio.sleep(0.2)
        seen = []
        with suppress(nats.errors.TimeoutError):
            while True:
                message = await subscription.next_msg(timeout=0.5)
                seen.append(message.metadata.sequence.stream)
        more = await fill(stream, b"41")
        with suppress(nats.errors.TimeoutError):
            while True:
                message = await subscription.next_msg(timeout=0.5)
                seen.append(message.metadata.sequence.stream)
    assert seen[-1] == 41
    assert seen != list(range(1, 42))  # the hazard

    client = reader.link.client
    drops: list[Exception] = []

    async def remember(error: Exception) -> None:
        drops.append(error)

    monkeypatch.setattr(client, "_error_cb", remember)
    monkeypatch.setattr(client, "subscribe", functools.partial(client.subscribe, pending_msgs_limit=10))
    tail = reader.tail(0)
    assert await take(tail, 41) == messages + more
    assert any(isinstance(error, nats.errors.SlowConsumerError) for error in drops)
    await tail.close()
    await stream.close()
    await reader.close()


async def test_a_purge_up_to_0_or_beyond_the_end_empties_a_stream_and_our_trim_does_not(server: NatsServers) -> None:
    for seq, empty in ((0, (4, 3)), (100, (100, 99))):  # and the second one jumps over all numbers between
        stream = await fresh(server)
        await fill(stream, b"one", b"two", b"three")
        await stream.trim(seq)
        assert (await stream.bounds()).last == 3
        assert await stream.get(3) == Message(3, b"three")
        assert (await server.ask("STREAM.PURGE.truba", {"seq": seq}))["success"]
        assert (await stream.bounds())[:2] == empty  # the hazard
        await stream.close()


async def test_nats_py_sends_later_what_was_published_while_disconnected_and_ours_ends_unsure(
    server: NatsServers,
) -> None:
    stream = await fresh(server)
    await fill(stream, b"one")
    plain: Client = await nats.connect(
        server.url("n1"), user="admin", password=PASSWORDS["admin"], reconnect_time_wait=0.1,
        max_reconnect_attempts=-1, error_cb=_ignore,
    )  # fmt: skip
    await server.kill("n1")
    await until(lambda: not plain.is_connected and not stream.link.up)
    await plain.publish(SUBJECT, b"buffered")
    outcomes = await asyncio.wait_for(asyncio.gather(*(published(stream, b"ours") for _ in range(5))), 5)
    assert all(isinstance(outcome, Unsure) for outcome in outcomes)
    server.revive("n1")
    await server.ready()
    await until(lambda: plain.is_connected and stream.link.up)
    await plain.flush()
    assert isinstance(await stored(lambda: published(stream, b"after")), Stored)
    assert await contents(stream) == [b"one", b"buffered", b"after"]  # the hazard: `buffered`
    await plain.close()
    await stream.close()


async def test_a_timeout_is_not_a_fact(server: NatsServers) -> None:
    stream = await fresh(server)
    await fill(stream, b"one")
    server.pause("n1")
    try:
        assert isinstance(await published(stream, b"two", 1), Unsure)
        with pytest.raises(StreamDown):
            await stream.bounds()
    finally:
        server.resume("n1")
    assert await answered(lambda: stream.get(2)) == Message(2, b"two")  # the hazard: there after all
    await stream.close()


async def test_a_rejection_is_not_a_fact(server: NatsServers) -> None:
    """The first answer was lost; who sends the same again is rejected, by itself."""
    stream = await fresh(server)
    assert await published(stream, b"one", 0) == Stored(1)
    assert isinstance(await published(stream, b"one", 0), Rejected)  # the hazard
    assert await contents(stream) == [b"one"]
    await stream.close()


@pytest.mark.parametrize("pause_s", [0.3, 1.5, 2.5])
async def test_a_log_over_a_server_that_pauses_loses_nothing_and_doubles_nothing(
    server: NatsServers, pause_s: float
) -> None:
    """Its publishes time out after 1 s, its questions after 2 s."""
    stream = await fresh(server)
    log = await leading(stream)
    server.pause("n1")
    try:
        under_way = [appended(log, seq) for seq in (2, 3, 4)]
        await asyncio.wait(under_way, timeout=pause_s)
        assert not any(each.done() for each in under_way)
    finally:
        server.resume("n1")
    await asyncio.wait_for(asyncio.gather(*under_way), 20)
    await commit(log, batch(5))
    assert [each.first_seq for each, _ in log.read(0)] == [1, 2, 3, 4, 5]
    assert await entries(stream) == [1, 2, 3, 4, 5]
    assert len(await contents(stream)) == 6  # with the BASE
    assert log.voids == 0
    log.close()
    await stream.close()


async def test_a_log_over_a_server_that_dies_loses_nothing_and_doubles_nothing(server: NatsServers) -> None:
    stream = await fresh(server)
    log = await leading(stream)
    waiting = None
    for seq in range(2, 102):
        if seq == 60:
            waiting = asyncio.create_task(_kill_and_revive(server))
        await asyncio.wait_for(appended(log, seq), 20)
    assert waiting is not None
    await waiting
    assert await entries(stream) == list(range(1, 102))
    assert len(await contents(stream)) == 102
    log.close()
    await stream.close()


async def test_two_leaders_at_once_are_one_history(server: NatsServers) -> None:
    """The old one has a window of work under way; the new one cuts in."""
    stream, other = await fresh(server), await connected(server)
    old = await leading(stream, "a", window=8)
    acknowledged: list[int] = [1]
    fallen = asyncio.Event()
    loop = asyncio.get_running_loop()

    def append(seq: int) -> None:
        def told(error: BaseException | None) -> None:
            if error is not None:
                fallen.set()
            else:
                acknowledged.append(seq)
                loop.call_later(0.02, append, seq + 8)  # leaves gaps for the new one

        if not fallen.is_set():
            old.append(batch(seq), told)

    for seq in range(2, 10):
        append(seq)
    new = None
    async with asyncio.timeout(20):
        while new is None:
            with suppress(Deposed, AssertionError):  # what was read is no longer the end
                new = await leading(other, "b")
        await fallen.wait()  # before that it may take work, and acknowledges none of it
    await commit(new, batch(new.tail.seq + 1, term=2))
    read = {each.first_seq: each.term for each, _ in new.read(0)}
    assert list(read) == list(range(1, new.tail.seq + 1)) == await entries(stream)
    assert acknowledged == list(range(1, len(acknowledged) + 1))
    assert all(read[seq] == 1 for seq in acknowledged)
    new.close()
    await stream.close()
    await other.close()


async def _kill_and_revive(server: NatsServers) -> None:
    await server.kill("n1")
    server.revive("n1")
    await server.ready()


async def stored(publish: Callable[[], asyncio.Future[Any]]) -> object:
    """Publish until the servers take it: they need a moment after a start."""
    async with asyncio.timeout(30):
        while isinstance(outcome := await publish(), Unsure):  # noqa: ASYNC110
            await asyncio.sleep(0.05)
    return outcome


async def answered(ask: Callable[[], Coroutine[Any, Any, Any]]) -> object:
    """Ask until there is an answer."""
    async with asyncio.timeout(30):
        while True:
            try:
                return await ask()
            except StreamDown:
                await asyncio.sleep(0.05)


async def _ignore(error: Exception) -> None:
    """nats-py would print it."""


async def closed_unheard(stream: JetStream, monkeypatch: pytest.MonkeyPatch) -> Client:
    """The client that the stream had: closed, and nobody was called."""
    client = stream.link.client
    for callback in ("_disconnected_cb", "_closed_cb"):
        monkeypatch.setattr(client, callback, None)
    await client.close()
    return client


async def test_nats_py_tells_nobody_of_a_close_that_breaks_and_the_next_question_finds_out(
    server: NatsServers, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its connection is reset while it writes the last bytes: it is closed by then, and calls nobody any more."""
    stream = await fresh(server)
    generation = stream.link.generation
    client = await closed_unheard(stream, monkeypatch)
    with pytest.raises(StreamDown):
        await stream.bounds()
    async with asyncio.timeout(30):
        while stream.link.generation == generation:  # noqa: ASYNC110 nothing else tells
            await asyncio.sleep(0.01)
    assert (await stream.bounds()).last == 0
    assert stream.link.client is not client
    await stream.close()


async def test_nats_py_tells_nobody_of_a_close_that_breaks_and_a_tail_finds_out(
    server: NatsServers, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A follower asks nothing else for as long as it waits for messages."""
    stream, other = await fresh(server), await connected(server)
    tail = stream.tail(0)
    await fill(other, b"one")
    assert [message.data for message in await take(tail, 1)] == [b"one"]
    await closed_unheard(stream, monkeypatch)
    await fill(other, b"two")
    assert [message.data for message in await asyncio.wait_for(take(tail, 1), 20)] == [b"two"]
    await stream.close()
    await other.close()


@pytest.mark.parametrize("how", ["it breaks", "it takes too long"])
async def test_a_client_that_does_not_close_is_replaced_and_the_log_tells_why(
    server: NatsServers, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, how: str
) -> None:
    stream = await fresh(server, request_timeout_s=0.2)
    generation = stream.link.generation
    client = await closed_unheard(stream, monkeypatch)

    async def close() -> None:
        if how == "it breaks":
            raise ConnectionResetError("reset by peer")
        await asyncio.Event().wait()

    monkeypatch.setattr(client, "close", close)
    with caplog.at_level(logging.DEBUG, "truba.streams.link"):
        with pytest.raises(StreamDown):
            await stream.bounds()
        await until(lambda: stream.link.generation > generation)
    why = "reset by peer" if how == "it breaks" else "TimeoutError"
    assert [record.levelname for record in caplog.records] == ["DEBUG"]
    assert caplog.messages == [f"a NATS client that is replaced did not close: {why}"]
    assert stream.link.client is not client
    await stream.close()


@pytest.mark.parametrize("ends", ["for good", "for now"])
async def test_nats_py_stumbles_over_who_is_no_nats_server_and_is_asked_again(ends: str) -> None:
    """What it raises then is none of its errors, nor one of the system."""
    calls: list[asyncio.StreamWriter] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        calls.append(writer)
        no_server = len(calls) == 2
        writer.write(b"INFO []\r\n" if no_server else b'INFO {"max_payload": 1000000}\r\n')
        while line := await reader.readline():
            if b"PING" in line:
                writer.write(b"PONG\r\n")
        writer.close()

    listening = await asyncio.start_server(serve, "127.0.0.1", 0)
    port = listening.sockets[0].getsockname()[1]
    stream = await JetStream.connect(JetStreamSettings((f"nats://127.0.0.1:{port}",), request_timeout_s=0.1))
    calls[0].write(b"-ERR 'User Authentication Expired'\r\n" if ends == "for good" else b"-ERR 'Stale Connection'\r\n")
    async with asyncio.timeout(30):
        while len(calls) < 3 or not stream.link.up:
            with suppress(StreamDown):
                await stream.bounds()
            await asyncio.sleep(0.01)
    await stream.close()
    listening.close()
    for writer in calls:
        writer.close()
        with suppress(ConnectionError):
            await writer.wait_closed()
