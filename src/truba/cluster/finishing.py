"""Waiting for what a log or a stream calls back, for those who have one thing at a time."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import partial

from truba.ports.log import Done, Log, LogBatch
from truba.ports.stream import Outcome, Stream


async def finished(begin: Callable[[Done], object]) -> None:
    """Until what `begin` begins is done; raises what went wrong with it."""
    ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def done(error: BaseException | None) -> None:
        if ended.done():
            return  # nobody waits any more
        if error is None:
            ended.set_result(None)
        else:
            ended.set_exception(error)

    begin(done)
    await ended


async def append(log: Log, batch: LogBatch) -> None:
    """Until the batch is durable."""
    await finished(partial(log.append, batch))


async def publish(stream: Stream, data: bytes, expected: int | None) -> Outcome:
    """Until it is known what became of the message, or that nobody knows."""
    told: asyncio.Future[Outcome] = asyncio.get_running_loop().create_future()

    def done(outcome: Outcome) -> None:
        if not told.done():  # else nobody waits any more
            told.set_result(outcome)

    stream.publish(data, expected, done)
    return await told
