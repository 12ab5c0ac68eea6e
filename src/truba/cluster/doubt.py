"""Doubt: what became of entries whose outcome nobody knows.

    wait -> read the stream behind the last sure entry, by the one rule of all readers -> nothing is left: settled
     ^        `- cannot be reached, or shows what cannot be -> nothing stored for too long: Deposed
     `------------------------------------------------------------'

What is found is told to whoever asked, and who knows the entries under way. Clocks decide only when to look again, and
when to give up: never what is true.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from truba.cluster.asking import asked
from truba.cluster.rule import Broken, Cursor, Valid, Void, is_there, judge
from truba.codec.chain import Chain
from truba.errors import Deposed, LogRegression
from truba.ports.stream import Message, Stream, StreamDown, StreamGone

STUCK_S = 15.0
"""A leader that has had no entry stored for so long lets its clients go elsewhere: longer than the engine takes to
elect a leader of its own (4 to 11 s measured)."""

CUT_OFF_S = 5.0
"""One that cannot reach any server of the engine, or finds no other node either, gives up sooner: it is cut off, and
others may lead already."""

READ_AGAIN_S = (0.02, 0.5)
"""The first and the longest pause before the stream is read for what became of unsure entries."""

Found = Callable[[Message, Valid | Void], Cursor]
"""Told of each message in turn. Answers the cursor behind it; raises Deposed when another node wrote it."""


class Unreadable(Exception):
    """What the stream shows cannot be. A server that led it before may be the one that answers: look again. If it
    stays so, this node leads no more, and judges the stream as a follower."""


class Doubt:
    """A leader's, for as long as it leads; most of the time there is none. Knows since when nothing was stored."""

    def __init__(
        self, stream: Stream, cluster: Chain, stuck_s: float, alone: Callable[[], Awaitable[bool]] | None
    ) -> None:
        self._stream = stream
        self._cluster = cluster
        self._stuck_s = stuck_s
        self._alone = alone
        self._loop = asyncio.get_running_loop()
        self._tries = 0  # since the last entry stored
        self._progress_s = self._loop.time()

    def waits(self) -> None:
        """An entry is under way, and there was none: silence counts from now on."""
        self._progress_s = self._loop.time()

    def progress(self) -> None:
        """An entry was stored."""
        self._tries = 0
        self._progress_s = self._loop.time()

    async def settle(self, sure: Cursor, found: Found) -> None:
        """Until all that the stream holds behind `sure` was found. Deposed, LogRegression."""
        first_s, longest_s = READ_AGAIN_S
        patience_s = self._stuck_s
        why = ""
        while True:
            silent_s = self._loop.time() - self._progress_s
            if CUT_OFF_S < silent_s <= patience_s and await self._is_alone():
                patience_s = CUT_OFF_S
            if silent_s > patience_s:
                raise Deposed(f"no entry was stored in the stream for {patience_s:g} s{why}: this node leads no more")
            await asyncio.sleep(min(longest_s, first_s * 2 ** min(self._tries, 10)))
            self._tries += 1
            try:
                first, last, _ = await asked(self._stream.bounds)
                await self.look_at(sure, first)
                while sure.stream_seq < last:
                    sure = found(*await self._read(sure, last))
                return
            except StreamDown as down:
                patience_s = min(CUT_OFF_S, self._stuck_s) if down.cut_off else self._stuck_s
                why = ""
            except Unreadable as error:
                patience_s = self._stuck_s
                why = f" ({error})"
            except StreamGone as error:
                raise LogRegression(f"the stream is gone ({error}); see truba cluster reseed") from error

    async def _is_alone(self) -> bool:
        """A server on this node's own host may answer, cut off like the node itself: then nobody else does."""
        return self._alone is not None and await self._alone()

    async def _read(self, sure: Cursor, last: int) -> tuple[Message, Valid | Void]:
        """The message behind `sure`, and what it means."""
        seq = sure.stream_seq + 1
        message = await self._stream.get(seq)
        if message is None:
            first = (await self._stream.bounds()).first
            if first > seq:
                raise Deposed(f"the stream begins with message {first} now: another node leads, and has trimmed it")
            raise Unreadable(f"message {seq} of the stream is missing, {last} is there")
        verdict = judge(self._cluster, sure, message)
        if isinstance(verdict, Broken):
            raise Unreadable(verdict.reason)
        return message, verdict

    async def look_at(self, sure: Cursor, first: int) -> None:
        """The last batch that is known to be stored has to be there, unless the stream was trimmed behind it.

        Unreadable; LogRegression when it is another one.
        """
        if sure.entry_seq < first:
            return
        there = is_there(self._cluster, sure, await self._stream.get(sure.entry_seq))
        if there is None:
            raise Unreadable(f"message {sure.entry_seq} of the stream, an entry, cannot be read")
        if not there:
            raise LogRegression(
                f"message {sure.entry_seq} of the stream led to event {sure.position.term}-{sure.position.seq}, and is"
                " another one now"
            )
