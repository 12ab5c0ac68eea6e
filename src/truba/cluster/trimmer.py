"""The leader keeps the stream short: what every node has on its own disk may go, what a majority has goes in the end.

A node that needs more than the stream holds takes a checkpoint from a peer, so trimming never loses anything; it only
decides which of the two ways a node that was away comes back.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress

from truba.cluster.finishing import finished
from truba.cluster.log import ReplicatedLog
from truba.cluster.marks import Marks
from truba.errors import TrubaError
from truba.ports.stream import Bounds, Stream

LOOK_S = 5.0
SLACK = 8
"""The stream is left alone while it holds less than one part in so many of what may be kept."""


class Trimmer:
    """`purged` is called with the first message and the one trimmed to, when somebody else has dropped more.

    `first` is what leaders have said so far that the stream may begin with (0: nobody has said). A leader says it
    before it trims, so that the next one, which may never have met it, takes no trimmed stream for a purged one.
    """

    def __init__(
        self,
        stream: Stream,
        log: ReplicatedLog,
        marks: Marks,
        tails: Callable[[], Awaitable[Mapping[str, int]]],
        keep_bytes: int,
        purged: Callable[[int, int], None],
        loop: asyncio.AbstractEventLoop,
        first: int,
    ) -> None:
        self._stream = stream
        self._log = log
        self._marks = marks
        self._tails = tails
        self._keep_bytes = keep_bytes
        self._purged = purged
        self._loop = loop
        self.first = first

    async def run(self) -> None:
        while True:
            with suppress(TrubaError):  # the log itself will notice, and knows what to do
                await self._look()
            await asyncio.sleep(LOOK_S)

    async def _look(self) -> None:
        self._marks.add(self._log.copied, self._loop.time())
        await self._log.look_back()
        bounds = await self._stream.bounds()
        if bounds.first > self.first:
            await finished(self._log.confirm)  # else another node leads, and has trimmed it
            self._purged(bounds.first, self.first)
            self.first = bounds.first
        if bounds.bytes * SLACK < self._keep_bytes:
            return
        before = self._marks.before(through(list((await self._tails()).values()), bounds, self._keep_bytes))
        if before > bounds.first:
            await self._log.tell_first(before)
            self.first = before
            await self._stream.trim(before)
            self._marks.forget(before)


def through(tails: list[int], bounds: Bounds, keep_bytes: int) -> int:
    """The event through which the stream is not needed any more."""
    ascending = sorted(tails)
    if bounds.bytes > keep_bytes:
        return ascending[(len(ascending) - 1) // 2]  # a majority has it, this node among them
    return ascending[0]
