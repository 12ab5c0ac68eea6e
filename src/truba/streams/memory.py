"""A stream in memory, for tests and simulations of whole clusters in one process. Never does I/O.

`Sea` is what all nodes share; each node has a `MemoryStream` of its own on it, which can be cut off. Faults are the
test's to play: messages and answers may be delayed, lost and reordered, and a node may be shown what was true before.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

from truba.ports.stream import Bounds, Message, Outcome, Rejected, Stored, StreamDown, StreamGone, Unsure

BEAT_S = 0.5
"""Between two proofs of life of a tail."""


class Sea:
    """The messages, and what the engine would keep of them. `up`: it has a leader."""

    def __init__(self) -> None:
        self.messages: dict[int, bytes] = {}
        self.first = 1
        self.last = 0
        self.up = True
        self.gone = False
        self._changed: set[Callable[[], None]] = set()

    def store(self, data: bytes, expected: int | None) -> Outcome:
        if not self.up or self.gone:
            return Unsure("the stream has no leader")
        if expected is not None and expected != self.last:
            return Rejected(f"wrong last sequence: {self.last}")
        self.last += 1
        self.messages[self.last] = data
        for changed in list(self._changed):
            changed()
        return Stored(self.last)

    def drop_before(self, seq: int) -> None:
        for dropped in range(self.first, min(seq, self.last)):
            self.messages.pop(dropped, None)
            self.first = dropped + 1

    def watch(self, changed: Callable[[], None]) -> Callable[[], None]:
        """Call `changed` at each new message, until the function that this returns is called."""
        self._changed.add(changed)
        return lambda: self._changed.discard(changed)


class MemoryStream:
    """One node's end. `connected`: its way to the engine. `delays`: asked for each message, in seconds, of it and
    of its answer; None for a lost one."""

    def __init__(
        self,
        sea: Sea,
        *,
        publish_timeout_s: float = 1.0,
        delays: Callable[[], tuple[float | None, float | None]] = lambda: (0.0, 0.0),
    ) -> None:
        self.sea = sea
        self.connected = True
        self.publish_timeout_s = publish_timeout_s
        self._delays = delays
        self._loop = asyncio.get_running_loop()
        self._closed = False

    def publish(self, data: bytes, expected: int | None, done: Callable[[Outcome], None]) -> None:
        flight = _Flight(done)
        flight.timer = self._loop.call_later(self.publish_timeout_s, flight.land, Unsure("no answer in time"))
        there_s, back_s = self._delays()
        if there_s is None or not self._reaches():
            return

        def arrive() -> None:
            outcome = self.sea.store(data, expected)
            if back_s is not None and self._reaches():
                self._loop.call_later(back_s, flight.land, outcome)

        self._loop.call_later(there_s, arrive)

    async def get(self, seq: int) -> Message | None:
        self._ask()
        data = self.sea.messages.get(seq)
        return None if data is None else Message(seq, data)

    async def bounds(self) -> Bounds:
        self._ask()
        sea = self.sea
        return Bounds(sea.first, sea.last, sum(map(len, sea.messages.values())))

    def tail(self, after_seq: int) -> MemoryTail:
        return MemoryTail(self, after_seq)

    async def trim(self, before_seq: int) -> None:
        self._ask()
        self.sea.drop_before(before_seq)

    async def close(self) -> None:
        self._closed = True

    def _reaches(self) -> bool:
        return self.connected and self.sea.up and not self._closed

    def _ask(self) -> None:
        if not self._reaches():
            raise StreamDown("the stream cannot be reached", cut_off=not self.connected)
        if self.sea.gone:
            raise StreamGone("there is no such stream")


class _Flight:
    """One message under way: whoever comes first, answer or timeout, settles it."""

    __slots__ = ("_done", "timer")

    def __init__(self, done: Callable[[Outcome], None]) -> None:
        self._done: Callable[[Outcome], None] | None = done
        self.timer: asyncio.TimerHandle

    def land(self, outcome: Outcome) -> None:
        done, self._done = self._done, None
        if done is not None:
            self.timer.cancel()
            done(outcome)


class MemoryTail:
    def __init__(self, stream: MemoryStream, after_seq: int) -> None:
        self._stream = stream
        self._next = after_seq + 1
        self._news = asyncio.Event()
        self._unwatch = stream.sea.watch(self._news.set)
        self._closed = False

    async def take(self) -> Sequence[Message]:
        stream, sea = self._stream, self._stream.sea
        while True:
            self._news.clear()
            if self._closed:
                raise StreamDown("the tail was closed")
            if sea.gone:
                raise StreamGone("there is no such stream")
            if stream.connected and sea.up:
                start = max(self._next, sea.first)
                found = [Message(seq, sea.messages[seq]) for seq in range(start, sea.last + 1) if seq in sea.messages]
                if found:
                    self._next = found[-1].seq + 1
                    return found
            try:
                async with asyncio.timeout(BEAT_S):
                    await self._news.wait()
            except TimeoutError:
                if stream.connected and sea.up:
                    return ()

    async def close(self) -> None:
        self._closed = True
        self._unwatch()
        self._news.set()
