"""Logs of a leader on a stream, opened as often as a test likes."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress

from truba.cluster.entry import EntryKind, encode, without_events
from truba.cluster.log import ReplicatedLog
from truba.cluster.rule import Cursor, Valid, Void, judge
from truba.codec.chain import Chain
from truba.errors import LogPoisoned
from truba.ports.log import Log
from truba.ports.stream import Outcome, Stored, Stream
from truba.testing.log import commit
from truba.types import ORIGIN

Alone = Callable[[], Awaitable[bool]]


class WholeLog(ReplicatedLog):
    """One that closes what it stands on as well."""

    below: Log

    def close(self) -> None:
        super().close()
        with suppress(LogPoisoned):
            self.below.close()


async def catch_up(stream: Stream, cluster: Chain, own: Log) -> Cursor:
    """Read the stream from its beginning to its end, and copy what the own log lacks."""
    bounds = await stream.bounds()
    cursor = Cursor()
    for seq in range(bounds.first, bounds.last + 1):
        message = await stream.get(seq)
        assert message is not None
        verdict = judge(cluster, cursor, message)
        match verdict:
            case Valid(entry, cursor):
                if (batch := entry.batch) is not None and batch.first_seq > own.tail.seq:
                    await commit(own, batch)
            case Void(_, cursor):
                pass
            case broken:
                raise AssertionError(broken)
    assert own.tail == cursor.position
    return cursor


async def found(stream: Stream, cluster: Chain) -> None:
    """The first message of a new stream, however long it takes until the stream is led."""
    async with asyncio.timeout(30):
        while (await stream.bounds()).last == 0:
            outcome: asyncio.Future[Outcome] = asyncio.get_running_loop().create_future()
            stream.publish(encode(cluster, without_events(EntryKind.BASE, ORIGIN, "a")), 0, outcome.set_result)
            if await outcome == Stored(1):
                return
            await asyncio.sleep(0.05)


async def lead(
    stream: Stream, cluster: Chain, own: Log, *, window: int = 4, writer: str = "a", alone: Alone | None = None
) -> WholeLog:
    """A log at the end of the stream, ready for a new term, or for more of the present one."""
    await found(stream, cluster)
    log = WholeLog(stream, own, cluster, await catch_up(stream, cluster, own), writer, window=window, alone=alone)
    log.below = own
    return log
