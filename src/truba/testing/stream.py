"""What every stream must do. Subclass `StreamSuite` in a test file, say how yours is opened, and pytest does the rest:

    class TestMyStream(StreamSuite):
        @pytest.fixture
        def opener(self):
            sea = Sea()
            return lambda: MemoryStream(sea)

Each call of the opener makes one more connection to the same stream, which is empty and new for each test. It runs
inside an event loop, and may be a coroutine function.
"""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Awaitable, Callable, Coroutine
from contextlib import suppress
from typing import Any

import pytest

from truba.ports.stream import Bounds, Message, Outcome, Rejected, Stored, Stream, StreamDown, StreamGone, Tail, Unsure

Opener = Callable[[], Stream | Awaitable[Stream]]
PATIENCE_S = 30.0


async def opened(opener: Opener) -> Stream:
    """What the opener opens, at once or in its own time."""
    stream = opener()
    return await stream if isinstance(stream, Awaitable) else stream


def published(stream: Stream, data: bytes, expected: int | None = None) -> asyncio.Future[Outcome]:
    """Publish; what becomes of it. Fails where `done` comes twice, or before `publish` has returned."""
    loop = asyncio.get_running_loop()
    outcome: asyncio.Future[Outcome] = loop.create_future()
    returned = False

    def done(told: Outcome) -> None:
        if outcome.done() or not returned:
            error = AssertionError("done was called twice" if outcome.done() else "done came before publish returned")
            loop.call_exception_handler({"message": str(error), "exception": error})
            raise error
        outcome.set_result(told)

    stream.publish(data, expected, done)
    returned = True
    return outcome


async def fill(stream: Stream, *datas: bytes) -> list[Message]:
    """Store messages at the end, one after the other."""
    filled = []
    for data in datas:
        outcome = await asyncio.wait_for(published(stream, data), PATIENCE_S)
        assert isinstance(outcome, Stored), outcome
        filled.append(Message(outcome.seq, data))
    return filled


async def take(tail: Tail, count: int) -> list[Message]:
    """The next `count` messages of a tail; more than that is a mistake."""
    taken: list[Message] = []
    async with asyncio.timeout(PATIENCE_S):
        while len(taken) < count:
            taken += await tail.take()
    assert len(taken) == count
    return taken


def _in_loop(test: Callable[..., Coroutine[Any, Any, None]]) -> Callable[..., None]:
    @functools.wraps(test)
    def run(*args: Any, **kwargs: Any) -> None:
        asyncio.run(_watched(test(*args, **kwargs)))

    return run


async def _watched(test: Coroutine[Any, Any, None]) -> None:
    """What fails in a callback fails the test."""
    failed: list[BaseException] = []

    def remember(_: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        failed.append(context.get("exception") or AssertionError(context["message"]))

    asyncio.get_running_loop().set_exception_handler(remember)
    await test
    if failed:
        raise failed[0]


class StreamSuite:
    """The contract of `truba.ports.stream.Stream` as tests."""

    @pytest.fixture
    def opener(self) -> Opener:
        raise NotImplementedError("override this fixture: return a function that connects to your stream")

    async def remove(self, stream: Stream) -> None:
        """Remove the stream from the engine. Override it, or what is told of a missing stream is not tested."""
        pytest.skip("remove is not overridden: what this stream says when it is gone was not tested")

    @_in_loop
    async def test_an_empty_stream_begins_behind_its_end(self, opener: Opener) -> None:
        stream = await opened(opener)
        assert await stream.bounds() == Bounds(1, 0, 0)
        assert [await stream.get(seq) for seq in (0, 1, 2)] == [None] * 3
        await stream.trim(0)
        await stream.trim(9)
        assert (await stream.bounds())[:2] == (1, 0)
        assert await fill(stream, b"one") == [Message(1, b"one")]
        await stream.close()

    @_in_loop
    async def test_messages_are_numbered_from_1_and_come_back_as_they_were(self, opener: Opener) -> None:
        stream = await opened(opener)
        datas = [b"one", b"", bytes(range(256)), b"\r\n+OK\r\n", bytes(300_000), b"one"]
        messages = await fill(stream, *datas)
        assert [message.seq for message in messages] == [1, 2, 3, 4, 5, 6]
        assert [await stream.get(seq) for seq in range(1, 7)] == messages
        assert await stream.get(7) is None
        first, last, size = await stream.bounds()
        assert (first, last) == (1, 6)
        assert size >= sum(map(len, datas))
        tail = stream.tail(0)
        assert await take(tail, 6) == messages
        await tail.close()
        await stream.close()

    @_in_loop
    async def test_what_expects_another_end_is_rejected_and_leaves_no_trace(self, opener: Opener) -> None:
        stream = await opened(opener)
        assert isinstance(await published(stream, b"ahead", 1), Rejected)
        assert await published(stream, b"one", 0) == Stored(1)
        assert await published(stream, b"two", 1) == Stored(2)
        for wrong in (0, 1, 3, 1 << 40):
            assert isinstance(await published(stream, b"wrong", wrong), Rejected)
        assert await published(stream, b"three", None) == Stored(3)
        assert await published(stream, b"four", 3) == Stored(4)
        assert [await stream.get(seq) for seq in (3, 4, 5)] == [Message(3, b"three"), Message(4, b"four"), None]
        await stream.close()

    @_in_loop
    async def test_many_under_way_are_stored_where_they_expect_to_be(self, opener: Opener) -> None:
        stream = await opened(opener)
        under_way = [published(stream, b"%d" % seq, seq - 1) for seq in range(1, 201)]
        outcomes = await asyncio.wait_for(asyncio.gather(*under_way), PATIENCE_S)
        assert outcomes == [Stored(seq) for seq in range(1, 201)]
        tail = stream.tail(0)
        assert await take(tail, 200) == [Message(seq, b"%d" % seq) for seq in range(1, 201)]
        await tail.close()
        await stream.close()

    @_in_loop
    async def test_one_rejected_among_many_turns_away_all_that_count_on_it(self, opener: Opener) -> None:
        stream = await opened(opener)
        under_way = [published(stream, b"%d" % seq, seq - 1) for seq in range(1, 6)]
        under_way += [published(stream, b"%d" % seq, seq - 1) for seq in range(7, 12)]
        outcomes = await asyncio.wait_for(asyncio.gather(*under_way), PATIENCE_S)
        assert outcomes[:5] == [Stored(seq) for seq in range(1, 6)]
        assert all(isinstance(outcome, Rejected) for outcome in outcomes[5:])
        assert (await stream.bounds()).last == 5
        await stream.close()

    @_in_loop
    async def test_of_two_that_expect_the_same_end_one_is_stored(self, opener: Opener) -> None:
        one, other = await opened(opener), await opened(opener)
        for last in range(20):
            race = [published(stream, name, last) for stream, name in ((one, b"one"), (other, b"other"))]
            outcomes = await asyncio.wait_for(asyncio.gather(*race), PATIENCE_S)
            winner = outcomes.index(Stored(last + 1))
            assert isinstance(outcomes[1 - winner], Rejected)
            assert await other.get(last + 1) == Message(last + 1, (b"one", b"other")[winner])
        await one.close()
        await other.close()

    @_in_loop
    async def test_trimming_drops_the_beginning_and_never_the_last(self, opener: Opener) -> None:
        stream = await opened(opener)
        messages = await fill(stream, *(b"%d" % seq for seq in range(1, 11)))
        for nothing in (0, 1):
            await stream.trim(nothing)
            assert (await stream.bounds())[:2] == (1, 10)
        before = (await stream.bounds()).bytes
        await stream.trim(4)
        assert (await stream.bounds())[:2] == (4, 10)
        assert (await stream.bounds()).bytes < before
        assert [await stream.get(seq) for seq in (1, 3, 4)] == [None, None, messages[3]]
        for less in (0, 1, 3, 4):
            await stream.trim(less)
            assert (await stream.bounds())[:2] == (4, 10)
        await stream.trim(10)
        assert (await stream.bounds())[:2] == (10, 10)
        await stream.close()

    @_in_loop
    async def test_trimming_beyond_the_end_leaves_the_last(self, opener: Opener) -> None:
        stream = await opened(opener)
        messages = await fill(stream, *(b"%d" % seq for seq in range(1, 4)))
        await stream.trim(1_000_000)
        assert (await stream.bounds())[:2] == (3, 3)
        assert await stream.get(3) == messages[2]
        await stream.close()

    @_in_loop
    async def test_a_number_is_never_given_twice(self, opener: Opener) -> None:
        stream = await opened(opener)
        await fill(stream, b"one", b"two", b"three")
        await stream.trim(3)
        await stream.close()
        stream = await opened(opener)
        assert isinstance(await published(stream, b"again", 0), Rejected)
        assert await published(stream, b"four", 3) == Stored(4)
        await stream.trim(4)
        assert await fill(stream, b"five") == [Message(5, b"five")]
        await stream.close()

    @_in_loop
    async def test_a_tail_begins_behind_the_number_it_is_given(self, opener: Opener) -> None:
        stream = await opened(opener)
        messages = await fill(stream, *(b"%d" % seq for seq in range(1, 11)))
        tail = stream.tail(6)
        assert await take(tail, 4) == messages[6:]
        await tail.close()
        await stream.close()

    @_in_loop
    async def test_a_tail_whose_beginning_was_trimmed_jumps_there(self, opener: Opener) -> None:
        stream = await opened(opener)
        messages = await fill(stream, *(b"%d" % seq for seq in range(1, 11)))
        await stream.trim(8)
        tail = stream.tail(2)
        assert await take(tail, 3) == messages[7:]
        await tail.close()
        await stream.close()

    @_in_loop
    async def test_a_tail_at_the_end_waits_for_what_others_publish(self, opener: Opener) -> None:
        stream, other = await opened(opener), await opened(opener)
        await fill(stream, b"one", b"two")
        tail = stream.tail(2)
        waiting = asyncio.ensure_future(take(tail, 1))
        await asyncio.sleep(0.05)
        assert not waiting.done()
        assert await fill(other, b"three") == await waiting
        waiting = asyncio.ensure_future(take(tail, 100))
        messages = await fill(other, *(b"%d" % seq for seq in range(100)))
        assert await waiting == messages
        await tail.close()
        await stream.close()
        await other.close()

    @_in_loop
    async def test_an_idle_stream_proves_that_it_is_up(self, opener: Opener) -> None:
        stream = await opened(opener)
        tail = stream.tail(0)
        for _ in range(3):
            assert list(await asyncio.wait_for(tail.take(), 5)) == []
        messages = await fill(stream, b"one")
        assert await take(tail, 1) == messages
        assert list(await asyncio.wait_for(tail.take(), 5)) == []
        await tail.close()
        await stream.close()

    @_in_loop
    async def test_take_can_be_given_up_and_loses_nothing(self, opener: Opener) -> None:
        stream = await opened(opener)
        tail = stream.tail(0)
        taken: list[Message] = []
        messages: list[Message] = []
        for number in range(20):
            waiting = asyncio.ensure_future(tail.take())
            await asyncio.sleep(0.001 * number)
            messages += await fill(stream, b"%d" % number)
            waiting.cancel()  # no matter if it has ended
            with suppress(asyncio.CancelledError):
                taken += await waiting
        taken += await take(tail, 20 - len(taken))
        assert taken == messages
        await tail.close()
        await stream.close()

    @_in_loop
    async def test_who_waits_at_a_tail_hears_that_it_was_closed(self, opener: Opener) -> None:
        stream = await opened(opener)
        tail = stream.tail(0)
        waiting = asyncio.ensure_future(_until_closed(tail))
        await asyncio.sleep(0.1)
        await tail.close()
        await asyncio.wait_for(waiting, 5)
        await asyncio.wait_for(_until_closed(tail), 5)
        await tail.close()
        await stream.close()

    @_in_loop
    async def test_tails_do_not_disturb_each_other(self, opener: Opener) -> None:
        stream, other = await opened(opener), await opened(opener)
        messages = await fill(stream, *(b"%d" % seq for seq in range(1, 11)))
        one, two, three = stream.tail(0), stream.tail(5), other.tail(0)
        assert await take(one, 10) == messages
        assert await take(two, 5) == messages[5:]
        await one.close()
        more = await fill(other, b"11", b"12")
        assert await take(two, 2) == more
        assert await take(three, 12) == messages + more
        await two.close()
        await three.close()
        await stream.close()
        await other.close()

    @_in_loop
    async def test_a_closed_stream_is_sure_of_nothing(self, opener: Opener) -> None:
        stream = await opened(opener)
        await fill(stream, b"one")
        under_way = [published(stream, b"%d" % seq) for seq in range(5)]
        await stream.close()
        under_way.append(published(stream, b"late"))
        outcomes = await asyncio.wait_for(asyncio.gather(*under_way), PATIENCE_S)
        assert all(isinstance(outcome, Stored | Unsure) for outcome in outcomes[:-1])
        assert isinstance(outcomes[-1], Unsure)

    @_in_loop
    async def test_a_stream_that_was_removed_is_gone(self, opener: Opener) -> None:
        stream = await opened(opener)
        await fill(stream, b"one")
        tail = stream.tail(0)
        await take(tail, 1)
        await self.remove(stream)
        with pytest.raises(StreamGone):
            await stream.bounds()
        with pytest.raises(StreamGone):
            await stream.get(1)
        with pytest.raises(StreamGone):
            await stream.trim(1)
        assert isinstance(await asyncio.wait_for(published(stream, b"two"), PATIENCE_S), Unsure)
        with pytest.raises(StreamGone):
            await asyncio.wait_for(_forever(tail), PATIENCE_S)
        await tail.close()
        await stream.close()


async def _forever(tail: Tail) -> None:
    while True:
        await tail.take()


async def _until_closed(tail: Tail) -> None:
    with pytest.raises(StreamDown):
        await _forever(tail)
