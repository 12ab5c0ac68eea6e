"""The stream on real servers, new for each test, and the log of a leader on it."""

from __future__ import annotations

import asyncio

from tests.cluster.logs import WholeLog, catch_up, lead
from truba.codec.chain import Chain
from truba.log.memory import MemoryLog, Shelf
from truba.ports.log import Log
from truba.ports.stream import StreamDown
from truba.streams.jetstream import JetStream
from truba.testing.log import batch, commit
from truba.testing.nats import NatsServers

CLUSTER = bytes(range(16))
LINKS = Chain(CLUSTER)


async def connected(servers: NatsServers, **changes: object) -> JetStream:
    """One more connection to the stream, which is made if there is none; changes: of the settings."""
    stream = await JetStream.connect(servers.settings(**changes))
    async with asyncio.timeout(30):
        while True:
            try:
                await stream.create(CLUSTER)
            except StreamDown:  # removed a moment ago, or not led yet
                await asyncio.sleep(0.05)
            else:
                return stream


async def fresh(servers: NatsServers, **changes: object) -> JetStream:
    """A new stream. One that begins with messages of a removed one, as it may on a single server, is removed again."""
    async with asyncio.timeout(30):
        while True:
            stream = await JetStream.connect(servers.settings())
            await stream.remove()
            await stream.close()
            stream = await connected(servers, **changes)
            if not (await stream.bounds()).last:
                return stream
            await stream.close()


async def emptied(servers: NatsServers) -> None:
    """What the test before has left is gone."""
    await (await fresh(servers)).close()


async def leading(stream: JetStream, writer: str = "a", window: int = 4) -> WholeLog:
    """A log that has just begun a new term at the end of the stream."""
    log = await lead(stream, LINKS, MemoryLog(Shelf(CLUSTER)), writer=writer, window=window)
    await commit(log, batch(log.tail.seq + 1, term=log.tail.term + 1))
    return log


async def entries(stream: JetStream) -> list[int]:
    """First seqs of the batches that a new reader finds valid."""
    own = MemoryLog(Shelf(CLUSTER))
    await catch_up(stream, LINKS, own)
    return [each.first_seq for each, _ in own.read(0)]


async def contents(stream: JetStream) -> list[bytes]:
    """All that is there."""
    first, last, _ = await stream.bounds()
    messages = [await stream.get(seq) for seq in range(first, last + 1)]
    return [message.data for message in messages if message is not None]


def appended(log: Log, first_seq: int, term: int = 1) -> asyncio.Future[None]:
    """A batch under way."""
    done: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def tell(error: BaseException | None) -> None:
        if error is None:
            done.set_result(None)
        else:
            done.set_exception(error)

    log.append(batch(first_seq, term=term), tell)
    return done
