"""The leader reads through the stream, slowly, again and again: what cannot be read is told before it is needed.

A message that the engine's leader has lost is no loss while the nodes have it on their own disks, and other servers
of the engine may have it; but the next node that comes to read the stream would meet the hole.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress

from truba.errors import TrubaError
from truba.ports.stream import Stream

APART_S = 0.02
ROUND_S = 5.0
"""Pauses after a message, and after all of them: a few percent of a core at most."""


class Audit:
    """`told` is called with the numbers that could not be read, lowest first, whenever these have become others."""

    def __init__(self, stream: Stream, told: Callable[[list[int]], None]) -> None:
        self._stream = stream
        self._told = told
        self._unreadable: list[int] = []

    async def run(self) -> None:
        while True:
            with suppress(TrubaError):  # the stream is down: the log notices, and knows what to do
                await self._round()
            await asyncio.sleep(ROUND_S)

    async def _round(self) -> None:
        stream = self._stream
        found: list[int] = []
        seq, last, _ = await stream.bounds()
        while seq <= last:
            if await stream.get(seq) is None:
                first = (await stream.bounds()).first
                if first <= seq:
                    found.append(seq)
                    self._tell(sorted({*self._unreadable, seq}))
                else:
                    seq = first - 1  # trimmed meanwhile
            seq += 1
            await asyncio.sleep(APART_S)
        self._tell(found)

    def _tell(self, unreadable: list[int]) -> None:
        if unreadable != self._unreadable:
            self._unreadable = unreadable
            self._told(unreadable)
