"""What one consumer's messages tell of those that did not arrive, and a tail through the deaths of real servers."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack, suppress
from pathlib import Path
from typing import Any

import pytest
from nats.aio.client import Client
from nats.aio.msg import Msg

from truba.ports.stream import Message, Rejected, Stored, StreamDown
from truba.streams.jetstream import JetStream
from truba.streams.tail import _Consumer
from truba.testing.nats import NatsServers
from truba.testing.stream import published


def sent(seq: int, count: int, *, domain: bool = False) -> Msg:
    place = ".hub.ACCOUNT" if domain else ""
    after = ".token" if domain else ""
    return Msg(Client(), "inbox", f"$JS.ACK{place}.truba.consumer.1.{seq}.{count}.17.0{after}", b"%d" % seq)


def heartbeat(count: int, **more: str) -> Msg:
    return Msg(Client(), "inbox", "", b"", {"Status": "100", "Nats-Last-Consumer": str(count), **more})


@pytest.fixture
def consumer() -> _Consumer:
    return _Consumer(Client(), 1, 4, 1000)


@pytest.mark.parametrize("domain", [False, True])
async def test_holes_in_the_stream_are_handed_on(consumer: _Consumer, domain: bool) -> None:
    for message in (sent(5, 1, domain=domain), sent(9, 2, domain=domain), heartbeat(2)):
        await consumer.receive(message)
    assert consumer.take() == ([Message(5, b"5"), Message(9, b"9")], [])
    assert (consumer.lost, consumer.alive) == (False, True)


@pytest.mark.parametrize("next_one", [sent(7, 3), sent(5, 1), heartbeat(2)])
async def test_a_hole_on_the_way_is_not(consumer: _Consumer, next_one: Msg) -> None:
    await consumer.receive(sent(5, 1))
    await consumer.receive(next_one)
    await consumer.receive(sent(8, 4))
    assert consumer.take() == ([Message(5, b"5")], [])
    assert consumer.lost


async def test_what_a_replica_that_lags_sends_again_is_left_out(consumer: _Consumer) -> None:
    for seq in range(3, 7):
        await consumer.receive(sent(seq, seq - 2))
    assert consumer.take() == ([Message(5, b"5"), Message(6, b"6")], [])
    assert not consumer.lost


async def test_the_server_is_asked_for_more_once_what_came_was_taken(consumer: _Consumer) -> None:
    await consumer.receive(sent(5, 1))
    await consumer.receive(Msg(Client(), "inbox", "$JS.FC.truba.consumer.1", b"", {"Status": "100"}))
    await consumer.receive(heartbeat(1, **{"Nats-Consumer-Stalled": "$JS.FC.truba.consumer.2"}))
    assert consumer.take() == ([Message(5, b"5")], ["$JS.FC.truba.consumer.1", "$JS.FC.truba.consumer.2"])


async def test_a_tail_through_the_deaths_of_servers(tmp_path: Path) -> None:
    async with AsyncExitStack() as stack:
        servers = await stack.enter_async_context(await NatsServers.start(tmp_path, 3))
        stream = await JetStream.connect(servers.settings())
        stack.push_async_callback(stream.close)
        reader = await JetStream.connect(servers.settings())
        stack.push_async_callback(reader.close)
        await stream.create(bytes(16))
        seen, last, acknowledged = list[Message](), 0, set[int]()

        async def follow() -> None:
            tail = reader.tail(0)
            while True:
                seen.extend(await tail.take())

        async def write(until: int) -> None:
            """As a leader does: what was rejected or is unsure is settled by looking."""
            nonlocal last
            async with asyncio.timeout(120):
                while last < until:
                    match await published(stream, b"%d" % last, last):
                        case Stored(seq):
                            acknowledged.add(seq)
                            last = seq
                        case Rejected():
                            last = await look()
                        case _:
                            await asyncio.sleep(0.05)

        async def look() -> int:
            async with asyncio.timeout(40):
                while True:
                    with suppress(StreamDown):
                        return (await stream.bounds()).last
                    await asyncio.sleep(0.05)

        following = asyncio.ensure_future(follow())
        stack.callback(following.cancel)
        await write(200)
        for victim in (await servers.leader("truba"), _connected_to(servers, reader)):
            if servers.pid(victim) is None:
                victim = await servers.leader("truba")
            await servers.kill(victim)
            await write(last + 200)
            servers.revive(victim)
            await servers.ready()
        await servers.step_down("truba")
        await write(last + 200)
        async with asyncio.timeout(20):
            while len(seen) < last:  # noqa: ASYNC110 - it counts what another task reads
                await asyncio.sleep(0.05)
        assert [each.seq for each in seen] == list(range(1, last + 1))
        assert acknowledged <= {each.seq for each in seen}


def _connected_to(servers: NatsServers, stream: JetStream) -> str:
    at: Any = stream.servers[0]
    return next(name for name in servers.names if servers.url(name).endswith(at))
