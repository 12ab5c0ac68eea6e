"""The adapter of JetStream beyond the contract of all streams: its limits, a lost connection, how a stream is made."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Sequence

import pytest
from nats.aio.msg import Msg
from nats.errors import Error as NatsError

from tests.streams.fresh import CLUSTER, fresh
from truba.errors import ConfigError
from truba.ports.stream import Message, Outcome, Stored, StreamDown, Unsure
from truba.streams.jetstream import JetStream
from truba.testing.nats import PASSWORDS, NatsServers
from truba.testing.stream import published, take


@pytest.fixture
async def stream(server: NatsServers) -> AsyncIterator[JetStream]:
    stream = await fresh(server)
    yield stream
    await stream.close()


async def put(stream: JetStream, *datas: bytes, after: int | None = None) -> Sequence[Outcome]:
    """Publish them all at once, the first one expecting that number; their outcomes."""
    under_way = [published(stream, data, None if after is None else after + at) for at, data in enumerate(datas)]
    return await asyncio.gather(*under_way)


async def test_what_the_tail_itself_drops_it_reads_again(server: NatsServers, stream: JetStream) -> None:
    narrow = await JetStream.connect(server.settings(tail_bytes_max=100))
    tail = narrow.tail(0)
    assert list(await tail.take()) == []
    await put(stream, *(b"%03d" % seq * 20 for seq in range(1, 21)), bytes(1000), after=0)
    await asyncio.sleep(0.1)  # it arrives, and there is room for one message
    assert [each.seq for each in await take(tail, 21)] == list(range(1, 22))
    await narrow.close()


async def test_the_servers_hold_back_what_a_tail_does_not_take(server: NatsServers, stream: JetStream) -> None:
    body = bytes(1 << 20)
    tail = stream.tail(0)
    assert list(await tail.take()) == []
    for last in range(0, 80, 8):
        await put(stream, *[body] * 8, after=last)
    await asyncio.sleep(0.3)
    [consumer] = (await server.ask("CONSUMER.LIST.truba"))["consumers"]
    assert consumer["num_pending"] > 40
    assert [each.seq for each in await take(tail, 80)] == list(range(1, 81))
    [same] = (await server.ask("CONSUMER.LIST.truba"))["consumers"]
    assert same["name"] == consumer["name"]


async def test_a_connection_that_the_library_gives_up_is_made_anew(server: NatsServers, stream: JetStream) -> None:
    conf, pid = server.directory / "n1" / "nats.conf", server.pid("n1")
    assert pid is not None
    text = conf.read_text()
    tail, client = stream.tail(0), stream.link.client
    assert list(await tail.take()) == []
    try:
        conf.write_text(text.replace(PASSWORDS["truba"], "another password"))
        os.kill(pid, signal.SIGHUP)
        async with asyncio.timeout(20):
            while not client.is_closed:  # noqa: ASYNC110 - the library has given up for good
                await asyncio.sleep(0.05)
        [outcome] = await put(stream, b"1", after=0)
        assert isinstance(outcome, Unsure)
        with pytest.raises(StreamDown):
            await stream.bounds()
    finally:
        conf.write_text(text)
        os.kill(pid, signal.SIGHUP)
    async with asyncio.timeout(20):
        while not stream.link.up:  # noqa: ASYNC110 - nobody tells
            await asyncio.sleep(0.05)
    assert stream.link.client is not client
    assert await put(stream, b"1", after=0) == [Stored(1)]
    assert await take(tail, 1) == [Message(1, b"1")]


async def test_a_message_that_the_servers_would_not_take_is_refused_at_once(stream: JetStream) -> None:
    with pytest.raises(ValueError, match="max_payload of 67108864"):
        stream.publish(bytes(stream.message_bytes_max + 1), None, lambda outcome: None)


async def test_large_messages_go_all_ways(stream: JetStream) -> None:
    body = os.urandom(16 << 20)
    assert await put(stream, body, after=0) == [Stored(1)]
    assert await stream.get(1) == Message(1, body)
    assert await take(stream.tail(0), 1) == [Message(1, body)]


async def test_who_comes_second_is_told_whose_stream_it_is(server: NatsServers, stream: JetStream) -> None:
    assert await stream.create(bytes(16)) == CLUSTER
    assert await stream.cluster_id() == CLUSTER
    await stream.remove()
    await stream.remove()
    assert await stream.cluster_id() is None
    await server.ask("STREAM.CREATE.truba", {"name": "truba", "subjects": ["truba.log"]})
    with pytest.raises(ConfigError, match="not made by truba"):
        await stream.cluster_id()


async def test_the_subject_is_somebody_elses(server: NatsServers, stream: JetStream) -> None:
    await stream.remove()
    await server.ask("STREAM.CREATE.other", {"name": "other", "subjects": ["truba.>"]})
    try:
        with pytest.raises(ConfigError, match="overlap"):
            await stream.create(CLUSTER)
    finally:
        await server.ask("STREAM.DELETE.other")


async def test_no_server_and_no_entry_are_told_apart(server: NatsServers) -> None:
    with pytest.raises(StreamDown):
        await JetStream.connect(server.settings(servers=("nats://127.0.0.1:1",), connect_timeout_s=0.5))
    with pytest.raises(ConfigError, match="does not let us in"):
        await JetStream.connect(server.settings(password="wrong", connect_timeout_s=0.5))


async def test_a_question_that_is_answered_as_it_is_cancelled_is_cancelled(stream: JetStream) -> None:
    asking = asyncio.create_task(stream.bounds())
    answers = stream.link.client._resp_map  # noqa: SLF001 - the moment of the answer can be had nowhere else
    async with asyncio.timeout(10):
        while not answers:  # noqa: ASYNC110 a few turns of the loop
            await asyncio.sleep(0)
    ((token, answer),) = answers.items()

    class Cancels:
        """In the turn of the loop in which the answer comes."""

        done = answer.done

        @staticmethod
        def set_result(message: Msg) -> None:
            answer.set_result(message)
            asking.cancel()

    answers[token] = Cancels  # type: ignore[assignment]
    with pytest.raises(asyncio.CancelledError):
        await asking


async def test_a_nodes_user_may_do_what_a_node_needs_and_no_more(server: NatsServers, stream: JetStream) -> None:
    await server.ask("STREAM.CREATE.other", {"name": "other", "subjects": ["other.log"]})
    async with server.connected("truba") as client:
        subscription = await client.subscribe("_INBOX_truba.test")
        for subject in ("other.log", "$JS.API.STREAM.DELETE.other", "$JS.API.STREAM.UPDATE.truba", "$KV.x"):
            await client.publish(subject, b"{}", reply="_INBOX_truba.test")
        with pytest.raises(NatsError):
            await subscription.next_msg(timeout=0.3)
    reply = await server.ask("STREAM.DELETE.other")
    assert reply["success"] is True
