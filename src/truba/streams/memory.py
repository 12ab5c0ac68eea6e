"""A stream in memory, for tests and simulations of whole clusters in one process. Never does I/O.

`Sea` is what all nodes share; each node has a `MemoryStream` of its own on it, which can be cut off. Faults are the
test's to play, on the `Way` between the two: messages and answers are late, lost, doubled and out of order, and a node
is shown what was true before, or what was never written.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from contextvars import Context, copy_context

from truba.ports.stream import Bounds, Message, Outcome, Rejected, Stored, StreamDown, StreamGone, Unsure

BEAT_S = 0.5
"""Between two proofs of life of a tail."""


class Sea:
    """The messages, and what the engine would keep of them."""

    def __init__(self) -> None:
        self.messages: dict[int, bytes] = {}
        self.first = 1
        self.last = 0
        self.gone = False
        self._up = True
        self._lingering: list[tuple[bytes, int | None]] = []
        self._changed: dict[Callable[[], None], None] = {}  # in order: a set's depends on addresses

    @property
    def up(self) -> bool:
        """It has a leader."""
        return self._up

    @up.setter
    def up(self, up: bool) -> None:
        self._up = up
        if up:
            lingering, self._lingering = self._lingering, []
            for data, expected in lingering:
                self.store(data, expected)

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

    def linger(self, data: bytes, expected: int | None) -> None:
        """A leader took it and was deposed before it could answer; the next one stores it, if it still fits."""
        self._lingering.append((data, expected))

    def drop_before(self, seq: int) -> None:
        for dropped in range(self.first, min(seq, self.last)):
            self.messages.pop(dropped, None)
            self.first = dropped + 1

    def watch(self, changed: Callable[[], None]) -> Callable[[], None]:
        """Call `changed` at each new message, until the function that this returns is called."""
        self._changed[changed] = None
        return lambda: self._changed.pop(changed, None)


class Way:
    """What lies between a node and the engine. Here all goes well, at once; a simulation overrides what should not."""

    def there(self) -> Sequence[float]:
        """After how many seconds each copy of a message arrives: none when it is lost, two when it is doubled."""
        return (0.0,)

    def back(self) -> float | None:
        """After how many seconds its answer arrives; None: never."""
        return 0.0

    def lingers(self) -> bool:
        """Whether a message that comes while there is no leader was taken by the old one, and is stored by the next."""
        return False

    def ask_s(self) -> float | None:
        """How long a question takes; None: no answer comes, though what was asked for is done."""
        return 0.0

    def behind(self) -> int:
        """How many messages are missing to whoever answers."""
        return 0

    def show(self, message: Message) -> Message | None:
        """A message as this reader is shown it now; None: it is missing."""
        return message

    def portion(self) -> int:
        """How many messages a tail is given at once, at most; 0: none now."""
        return 1 << 30


class MemoryStream:
    """One node's end. `connected`: whether there is a way at all."""

    def __init__(self, sea: Sea, way: Way | None = None, *, publish_timeout_s: float = 1.0) -> None:
        self.sea = sea
        self.way = way or Way()
        self.connected = True
        self.publish_timeout_s = publish_timeout_s
        self._loop = asyncio.get_running_loop()
        self._closed = False

    def publish(self, data: bytes, expected: int | None, done: Callable[[Outcome], None]) -> None:
        flight = _Flight(done)
        flight.timer = self._loop.call_later(self.publish_timeout_s, flight.land, Unsure("no answer in time"))
        if self.connected and not self._closed:
            for there_s in self.way.there():
                # What was sent is on its way, whatever becomes of the sender: hence the context of nobody.
                if there_s > 0:
                    self._loop.call_later(there_s, self._arrive, data, expected, flight, context=Context())
                else:  # timers of one moment ring in any order
                    self._loop.call_soon(self._arrive, data, expected, flight, context=Context())

    def _arrive(self, data: bytes, expected: int | None, flight: _Flight) -> None:
        if not self.sea.up and self.way.lingers():
            self.sea.linger(data, expected)
        outcome = self.sea.store(data, expected)
        if self._reaches() and (back_s := self.way.back()) is not None:
            self._loop.call_later(back_s, flight.land, outcome, context=flight.context)

    async def get(self, seq: int) -> Message | None:
        await self._ask()
        data = self.sea.messages.get(seq) if seq <= self._last() else None
        return None if data is None else self.way.show(Message(seq, data))

    async def bounds(self) -> Bounds:
        await self._ask()
        sea = self.sea
        return Bounds(sea.first, self._last(), sum(map(len, sea.messages.values())))

    def tail(self, after_seq: int) -> MemoryTail:
        return MemoryTail(self, after_seq)

    async def trim(self, before_seq: int) -> None:
        self._reach()
        self.sea.drop_before(before_seq)
        await self._ask()

    async def close(self) -> None:
        self._closed = True

    def _last(self) -> int:
        """As whoever answers sees it: never less than one message, once there are any."""
        sea = self.sea
        return max(min(sea.first, sea.last), sea.last - self.way.behind())

    def _reaches(self) -> bool:
        return self.connected and self.sea.up and not self._closed

    def _reach(self) -> None:
        if not self._reaches():
            raise StreamDown("the stream cannot be reached", cut_off=not self.connected)
        if self.sea.gone:
            raise StreamGone("there is no such stream")

    async def _ask(self) -> None:
        self._reach()
        ask_s = self.way.ask_s()
        if ask_s is None:
            await asyncio.sleep(self.publish_timeout_s)
            raise StreamDown("no answer in time")
        if ask_s:
            await asyncio.sleep(ask_s)
            self._reach()


class _Flight:
    """One message under way: whoever comes first, answer or timeout, settles it."""

    __slots__ = ("_done", "context", "timer")

    def __init__(self, done: Callable[[Outcome], None]) -> None:
        self._done: Callable[[Outcome], None] | None = done
        self.context = copy_context()  # of whoever waits for the answer
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
        self._loop = asyncio.get_running_loop()
        self._waiter: asyncio.Future[bool] | None = None
        self._unwatch = stream.sea.watch(self._wake)
        self._closed = False

    async def take(self) -> Sequence[Message]:
        stream = self._stream
        while True:
            sea = stream.sea
            if self._closed:
                raise StreamDown("the tail was closed")
            if sea.gone:
                raise StreamGone("there is no such stream")
            reached = stream.connected and sea.up
            if reached and (found := self._found()):
                self._next = found[-1].seq + 1
                return found
            if not await self._news() and reached and stream.connected and sea.up:
                return ()

    def _found(self) -> list[Message]:
        sea, way = self._stream.sea, self._stream.way
        begin = max(self._next, sea.first)
        if begin > sea.last:
            return []
        end = min(sea.last, begin + way.portion() - 1)
        stored = [Message(seq, sea.messages[seq]) for seq in range(begin, end + 1) if seq in sea.messages]
        return [shown for message in stored if (shown := way.show(message)) is not None]

    async def _news(self) -> bool:
        """Wait for news; False: there were none in time for a proof of life."""
        waiter: asyncio.Future[bool] = self._loop.create_future()
        self._waiter = waiter
        timer = self._loop.call_later(BEAT_S, self._silent)
        try:
            return await waiter
        finally:
            timer.cancel()
            self._waiter = None

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(True)

    def _silent(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(False)

    async def close(self) -> None:
        self._closed = True
        self._unwatch()
        self._wake()
