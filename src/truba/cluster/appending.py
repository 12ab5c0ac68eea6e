"""Appending to a log and waiting for it, for those who have one batch at a time."""

from __future__ import annotations

import asyncio

from truba.ports.log import Log, LogBatch


async def append(log: Log, batch: LogBatch) -> None:
    """Until the batch is done; raises what went wrong with it."""
    done: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def tell(error: BaseException | None) -> None:
        if error is None:
            done.set_result(None)
        else:
            done.set_exception(error)

    log.append(batch, tell)
    await done
