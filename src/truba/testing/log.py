"""What every log must do. Subclass `LogSuite` in a test file, say how your log is opened, and pytest does the rest:

    class TestMyLog(LogSuite):
        @pytest.fixture
        def opener(self, tmp_path):
            return lambda: MyLog.open(tmp_path / "log")

Each call of the opener opens the same storage again, after the log before was closed. It runs inside an event loop,
and may be a coroutine function.
"""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

import pytest

from truba.errors import DataDamaged, LogPoisoned
from truba.ports.log import Log, LogBatch
from truba.types import ORIGIN, Position

Opener = Callable[[], Log | Awaitable[Log]]


async def opened(opener: Opener) -> Log:
    """What the opener opens, at once or in its own time."""
    log = opener()
    return await log if isinstance(log, Awaitable) else log


def batch(first_seq: int, count: int = 1, term: int = 1, body: bytes | None = None) -> LogBatch:
    """A batch with a body of its own."""
    return LogBatch(term, first_seq, count, body if body is not None else b"batch %d" % first_seq * count)


async def commit(log: Log, *batches: LogBatch) -> Position:
    """Append the batches one after the other, each durable before the next; the tail that they lead to."""
    for each in batches:
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()

        def tell(error: BaseException | None, done: asyncio.Future[None] = done) -> None:
            assert not done.done(), "done was called twice"
            if error is None:
                done.set_result(None)
            else:
                done.set_exception(error)

        log.append(each, tell)
        await asyncio.wait_for(done, 30)
    return log.tail


def _in_loop(test: Callable[..., Coroutine[Any, Any, None]]) -> Callable[..., None]:
    @functools.wraps(test)
    def run(*args: Any, **kwargs: Any) -> None:
        asyncio.run(test(*args, **kwargs))

    return run


class LogSuite:
    """The contract of `truba.ports.log.Log` as tests."""

    @pytest.fixture
    def opener(self) -> Opener:
        raise NotImplementedError("override this fixture: return a function that opens your log")

    def break_log(self, log: Log) -> None:
        """Make the log's next append fail as an I/O error would. Override it, or the test of poisoning is skipped."""
        pytest.skip("break_log is not overridden: how this log fails was not tested")

    @_in_loop
    async def test_an_empty_log_is_at_the_origin(self, opener: Opener) -> None:
        log = await opened(opener)
        assert log.tail == ORIGIN
        assert log.position_at(0) == ORIGIN
        assert log.position_at(1) is None
        assert log.size_bytes == 0
        assert log.space == "plenty"
        assert log.window >= 1
        assert list(log.read(0)) == []
        log.close()

    @_in_loop
    async def test_batches_come_back_as_they_were_appended(self, opener: Opener) -> None:
        log = await opened(opener)
        batches = [batch(1, 3), batch(4), batch(5, 2, term=2), batch(7, body=b""), batch(8, 5, 9, bytes(5_000))]
        batches[3] = batch(7, term=2, body=b"")
        tail = await commit(log, *batches)
        read = list(log.read(0))
        assert [each for each, _ in read] == batches
        assert [(at.term, at.seq) for _, at in read] == [(1, 3), (1, 4), (2, 6), (2, 7), (9, 12)]
        assert read[-1][1] == tail
        assert log.size_bytes >= sum(len(each.body) for each in batches)
        log.close()

    @_in_loop
    async def test_done_is_called_once_in_order_on_the_loop(self, opener: Opener) -> None:
        log, order = await opened(opener), []
        for seq in range(1, 50):
            await commit(log, batch(seq))
            order.append(log.tail.seq)
        assert order == list(range(1, 50))
        log.close()

    @_in_loop
    async def test_no_more_than_the_window_is_under_way(self, opener: Opener) -> None:
        log = await opened(opener)
        told: list[tuple[int, bool]] = []

        def tell(error: BaseException | None, seq: int) -> None:
            told.append((seq, error is None))

        appended = 0
        for seq in range(1, log.window + 2):
            try:
                log.append(batch(seq), functools.partial(tell, seq=seq))
            except ValueError:
                break
            appended += 1
        assert appended >= log.window
        log.close()
        assert [seq for seq, _ in told] == list(range(1, appended + 1))  # whatever was under way heard how it ended
        log = await opened(opener)
        assert log.tail.seq >= sum(durable for _, durable in told)
        log.close()

    @_in_loop
    async def test_done_may_append_the_next_batch(self, opener: Opener) -> None:
        log = await opened(opener)
        finished: asyncio.Future[None] = asyncio.get_running_loop().create_future()

        def go_on(error: BaseException | None) -> None:
            assert error is None
            if log.tail.seq == 20:
                finished.set_result(None)
            else:
                log.append(batch(log.tail.seq + 1), go_on)

        log.append(batch(1), go_on)
        await asyncio.wait_for(finished, 30)
        assert [each.first_seq for each, _ in log.read(0)] == list(range(1, 21))
        log.close()

    @_in_loop
    async def test_the_chain_tells_histories_apart(self, opener: Opener) -> None:
        log = await opened(opener)
        await commit(log, batch(1, body=b"same"), batch(2, body=b"same"), batch(3, body=b"same"))
        chains = [at.chain for _, at in log.read(0)]
        assert len({bytes(16), *chains}) == 4
        assert all(len(chain) == 16 for chain in chains)
        log.close()

    @_in_loop
    async def test_the_only_writer_is_told_so(self, opener: Opener) -> None:
        log = await opened(opener)
        await commit(log, batch(1))
        confirmed: asyncio.Future[BaseException | None] = asyncio.get_running_loop().create_future()
        log.confirm(confirmed.set_result)
        assert await asyncio.wait_for(confirmed, 30) is None
        log.close()

    @_in_loop
    async def test_reading_from_the_middle(self, opener: Opener) -> None:
        log = await opened(opener)
        await commit(log, batch(1, 3), batch(4, 2), batch(6))
        assert [each.first_seq for each, _ in log.read(3)] == [4, 6]
        assert [each.first_seq for each, _ in log.read(5)] == [6]
        assert list(log.read(6)) == []
        for inside in (1, 2, 4, 7, 100):
            with pytest.raises(ValueError):
                list(log.read(inside))
        log.close()

    @_in_loop
    async def test_positions(self, opener: Opener) -> None:
        log = await opened(opener)
        await commit(log, batch(1, 3), batch(4, 2, term=5), batch(6, term=5))
        positions = {at.seq: at for _, at in log.read(0)}
        for seq in range(1, 9):
            assert log.position_at(seq) == positions.get(seq)
        assert log.position_at(0) == ORIGIN
        log.close()

    @_in_loop
    async def test_opened_again_it_is_the_same_log(self, opener: Opener) -> None:
        log = await opened(opener)
        await commit(log, batch(1, 3), batch(4))
        before, tail = list(log.read(0)), log.tail
        log.close()
        log = await opened(opener)
        assert log.tail == tail
        assert list(log.read(0)) == before
        await commit(log, batch(5, term=2))
        log.close()
        log = await opened(opener)
        assert [each.first_seq for each, _ in log.read(0)] == [1, 4, 5]
        assert log.tail.term == 2
        log.close()

    @_in_loop
    async def test_a_batch_that_cannot_follow_is_refused_and_not_written(self, opener: Opener) -> None:
        log = await opened(opener)
        await commit(log, batch(1, 3, term=4))
        tail = log.tail

        def never(error: BaseException | None) -> None:
            raise AssertionError("done was called for a batch that was refused")

        for wrong in (batch(3, term=4), batch(5, term=4), batch(1, term=4), batch(4, term=3), batch(4, 0, term=4)):
            with pytest.raises(ValueError):
                log.append(wrong, never)
        assert log.tail == tail
        await commit(log, batch(4, term=4))
        assert [each.first_seq for each, _ in log.read(0)] == [1, 4]
        log.close()
        log = await opened(opener)
        assert log.tail.seq == 4
        log.close()

    @_in_loop
    async def test_trimming_keeps_what_is_needed(self, opener: Opener) -> None:
        log = await opened(opener)
        bodies = {seq: b"%d" % seq * 300 for seq in range(1, 41)}
        await commit(log, *(batch(seq, body=body) for seq, body in bodies.items()))
        tail, at_30, size = log.tail, log.position_at(30), log.size_bytes
        log.trim(0)
        log.trim(30)
        assert log.size_bytes <= size
        for _ in range(2):
            assert log.tail == tail
            assert log.position_at(30) == at_30
            assert [each.body for each, _ in log.read(30)] == [bodies[seq] for seq in range(31, 41)]
            try:
                assert [each.first_seq for each, _ in log.read(5)] == list(range(6, 41))
            except DataDamaged:
                assert log.position_at(5) is None
            log.trim(30)
            log.close()
            log = await opened(opener)
        log.close()

    @_in_loop
    async def test_a_log_trimmed_to_its_end_goes_on(self, opener: Opener) -> None:
        log = await opened(opener)
        tail = await commit(log, *(batch(seq, body=bytes(400)) for seq in range(1, 21)))
        log.trim(20)
        assert log.tail == tail
        log.close()
        log = await opened(opener)
        assert log.tail == tail
        assert log.position_at(20) == tail
        assert list(log.read(20)) == []
        await commit(log, batch(21))
        assert [each.first_seq for each, _ in log.read(20)] == [21]
        log.close()

    @_in_loop
    async def test_a_poisoned_log_does_nothing_more(self, opener: Opener) -> None:
        log = await opened(opener)
        tail = await commit(log, batch(1), batch(2))
        self.break_log(log)
        with pytest.raises(LogPoisoned):
            await commit(log, batch(3))
        with pytest.raises(LogPoisoned):
            log.append(batch(3), lambda error: None)
        with pytest.raises(LogPoisoned):
            log.position_at(2)
        with pytest.raises(LogPoisoned):
            log.confirm(lambda error: None)
        with pytest.raises(LogPoisoned):
            log.trim(1)
        with pytest.raises(LogPoisoned):
            list(log.read(0))
        assert log.failure is not None
        log.close()
        log = await opened(opener)
        assert log.tail.seq in (2, 3)
        assert log.position_at(2) == tail
        log.close()

    @_in_loop
    async def test_closing_twice_is_closing_once(self, opener: Opener) -> None:
        log = await opened(opener)
        await commit(log, batch(1))
        log.close()
        log.close()
        log = await opened(opener)
        assert log.tail.seq == 1
        log.close()
