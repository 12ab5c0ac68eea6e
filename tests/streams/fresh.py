"""The stream on real servers, new for each test."""

from __future__ import annotations

import asyncio

from truba.ports.stream import StreamDown
from truba.streams.jetstream import JetStream
from truba.testing.nats import NatsServers

CLUSTER = bytes(range(16))


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


async def removed(servers: NatsServers) -> None:
    """Remove the stream that the test before has left."""
    stream = await JetStream.connect(servers.settings())
    await stream.remove()
    await stream.close()


async def fresh(servers: NatsServers, **changes: object) -> JetStream:
    await removed(servers)
    return await connected(servers, **changes)
