"""Waiting for what a log calls done, for those who have one thing at a time."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import partial

from truba.ports.log import Done, Log, LogBatch


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
