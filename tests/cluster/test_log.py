"""The log of a leader: the contract of every log, and what becomes of unsure entries."""

from __future__ import annotations

import asyncio
import random
from collections import deque
from collections.abc import Awaitable, Callable, Coroutine, Sequence

import pytest

from tests.cluster.logs import Alone, catch_up, found, lead
from tests.cluster.world import CLUSTER
from truba.cluster.entry import EntryKind, encode, of_batch, without_events
from truba.cluster.log import ReplicatedLog
from truba.cluster.rule import Cursor
from truba.codec.chain import Chain
from truba.errors import Deposed, LogPoisoned
from truba.log.memory import MemoryLog, Shelf
from truba.ports.log import Log
from truba.ports.stream import Message, Outcome, Stored
from truba.streams.memory import MemoryStream, Sea, Way
from truba.testing.jump import JumpClock
from truba.testing.log import LogSuite, batch, commit

Jump = Callable[[Coroutine[object, object, None]], None]
LINKS = Chain(CLUSTER)


class TestReplicatedLog(LogSuite):
    @pytest.fixture
    def opener(self) -> Callable[[], Awaitable[Log]]:
        sea, shelf = Sea(), Shelf(CLUSTER)
        return lambda: lead(MemoryStream(sea), LINKS, MemoryLog(shelf))

    def break_log(self, log: Log) -> None:
        below = getattr(log, "below")  # noqa: B009 - of tests.cluster.logs
        assert isinstance(below, MemoryLog)
        below.fail(OSError("the disk is gone"))


class TestReplicatedLogOneByOne(TestReplicatedLog):
    @pytest.fixture
    def opener(self) -> Callable[[], Awaitable[Log]]:
        sea, shelf = Sea(), Shelf(CLUSTER)
        return lambda: lead(MemoryStream(sea), LINKS, MemoryLog(shelf), window=1)


class Lossy(Way):
    def __init__(self, dice: random.Random) -> None:
        self.dice = dice

    def there(self) -> Sequence[float]:
        delays = [self.dice.random() * self.dice.choice([0.001, 0.01, 2.0]) for _ in range(2)]
        return delays[: self.dice.choices([0, 1, 2], [15, 80, 5])[0]]

    def back(self) -> float | None:
        return None if self.dice.random() < 0.15 else self.dice.random() * self.dice.choice([0.001, 0.01, 2.0])


class Deaf(Way):
    deaf = False

    def back(self) -> float | None:
        return None if self.deaf else 0.001


def appended(log: Log, first_seq: int, term: int = 1) -> asyncio.Future[None]:
    """A batch under way."""
    done: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def tell(error: BaseException | None) -> None:
        if error is None:
            done.set_result(None)
        else:
            done.set_exception(error)

    log.append(batch(first_seq, term=term), tell)
    return done


async def leading(
    sea: Sea, stream: MemoryStream | None = None, window: int = 4, alone: Alone | None = None
) -> ReplicatedLog:
    log = await lead(stream or MemoryStream(sea), LINKS, MemoryLog(Shelf(CLUSTER)), window=window, alone=alone)
    await commit(log, batch(log.tail.seq + 1, term=log.tail.term + 1))
    return log


async def entries(sea: Sea) -> list[int]:
    """First seqs of the batches that a reader finds valid."""
    own = MemoryLog(Shelf(CLUSTER))
    await catch_up(MemoryStream(sea), LINKS, own)
    return [each.first_seq for each, _ in own.read(0)]


def test_g1_messages_and_answers_are_lost_and_nothing_is_lost_or_doubled(jump: Jump) -> None:
    async def main() -> None:
        for seed in range(60):
            dice = random.Random(seed)

            sea = Sea()
            await found(MemoryStream(sea), LINKS)
            stream = MemoryStream(sea, Lossy(random.Random(seed)))
            own = MemoryLog(Shelf(CLUSTER))
            # Patient: in this test nothing is ever up to somebody else.
            log = ReplicatedLog(stream, own, LINKS, await catch_up(stream, LINKS, own), "a", window=4, stuck_s=1e6)
            under_way: deque[asyncio.Future[None]] = deque()
            for seq in range(1, 31):
                if len(under_way) == 4:
                    await under_way.popleft()
                under_way.append(appended(log, seq))
                if dice.random() < 0.1:
                    sea.store(b"foreign", None)
            await asyncio.gather(*under_way)
            assert await entries(sea) == list(range(1, 31))
            assert [each.first_seq for each, _ in log.read(0)] == list(range(1, 31))
            log.close()

    jump(main())


def test_done_is_never_called_before_the_own_disk_has_it(jump: Jump) -> None:
    async def main() -> None:
        sea = Sea()
        stream = MemoryStream(sea)
        await found(stream, LINKS)
        own = MemoryLog(Shelf(CLUSTER), held=True)  # takes one batch at a time
        defects: list[dict[str, object]] = []
        asyncio.get_running_loop().set_exception_handler(lambda _, context: defects.append(context))
        log = ReplicatedLog(stream, own, LINKS, Cursor(1), "a", window=4)
        first, second = appended(log, 1), appended(log, 2)
        await asyncio.sleep(5)
        assert sea.last == 3
        assert not defects
        assert not first.done()
        own.release(1)
        await asyncio.sleep(0)
        assert first.done()
        assert not second.done()
        own.release(1)
        await asyncio.gather(first, second)
        log.close()

    jump(main())


def test_whatever_keeps_a_batch_from_the_own_log_ends_the_leader(jump: Jump, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing behind it would be copied, and nobody would ever be answered."""

    def no_room(*_: object) -> None:
        raise MemoryError

    async def main() -> None:
        sea = Sea()
        stream = MemoryStream(sea)
        await found(stream, LINKS)
        own = MemoryLog(Shelf(CLUSTER))
        log = ReplicatedLog(stream, own, LINKS, Cursor(1), "a", window=4)
        fell: list[BaseException] = []
        log.lead(fell.append)
        monkeypatch.setattr(own, "append", no_room)
        asyncio.get_running_loop().set_exception_handler(lambda _, context: None)
        with pytest.raises(LogPoisoned, match="MemoryError"):
            await asyncio.wait_for(appended(log, 1), 60)
        assert len(fell) == 1
        log.close()
        await log.rest()

    jump(main())


def test_what_was_stored_elsewhere_than_expected_is_looked_for(jump: Jump) -> None:
    """An engine that does not keep to the number that it was told: a stranger's message has the expected place."""

    class CarelessStream(MemoryStream):
        def publish(self, data: bytes, expected: int | None, done: Callable[[Outcome], None]) -> None:
            super().publish(data, None, done)

    async def main() -> None:
        sea = Sea()
        log = await leading(sea, CarelessStream(sea))
        sea.store(b"who is this", None)
        await commit(log, batch(log.tail.seq + 1))
        assert (log.stream_seq, log.voids) == (sea.last, 1)
        await commit(log, batch(log.tail.seq + 1))
        assert (log.stream_seq, log.voids) == (sea.last, 1)
        assert await entries(sea) == [1, 2, 3]
        log.close()

    jump(main())


def test_a_delayed_batch_of_an_old_leader_is_void_though_the_stream_takes_it(jump: Jump) -> None:
    async def main() -> None:
        sea = Sea()
        old = await leading(sea)
        lost = of_batch(LINKS, batch(2), old.tail, "a", 1)
        late = of_batch(LINKS, batch(3), lost.position, "a", 1)
        expected = sea.last + 1  # as if `lost` were there
        new = await lead(MemoryStream(sea), LINKS, MemoryLog(Shelf(CLUSTER)), writer="b")
        await commit(new, batch(2, term=2))
        assert sea.store(encode(LINKS, late), expected) == Stored(expected + 1)
        await commit(new, batch(3, term=2))
        assert await entries(sea) == [1, 2, 3]
        assert new.voids == 1
        with pytest.raises(Deposed):
            await commit(old, batch(2), batch(3))
        with pytest.raises(LogPoisoned):
            old.append(batch(4), lambda error: None)
        new.close()

    jump(main())


def test_g3_a_leader_that_was_replaced_hears_of_it_before_it_may_answer_from_its_state(jump: Jump) -> None:
    async def main() -> None:
        sea = Sea()
        old = await leading(sea)
        confirmed: asyncio.Future[BaseException | None] = asyncio.get_running_loop().create_future()
        old.confirm(confirmed.set_result)
        assert await confirmed is None
        new = await lead(MemoryStream(sea), LINKS, MemoryLog(Shelf(CLUSTER)), writer="b")
        await commit(new, batch(2, term=2))
        confirmed = asyncio.get_running_loop().create_future()
        old.confirm(confirmed.set_result)
        assert isinstance(await confirmed, Deposed)
        new.close()

    jump(main())


def test_an_idle_leader_beats_and_an_idle_one_that_was_replaced_falls(jump: Jump) -> None:
    async def main() -> None:
        sea = Sea()
        old = await leading(sea)
        fallen: list[BaseException] = []
        old.lead(fallen.append)
        before = sea.last
        await asyncio.sleep(10.5)  # between two beats: who meets one while taking over gives way
        assert 9 <= sea.last - before <= 11
        new = await lead(MemoryStream(sea), LINKS, MemoryLog(Shelf(CLUSTER)), writer="b")
        await commit(new, batch(2, term=2))
        assert fallen == []
        await asyncio.sleep(3)
        assert [type(error) for error in fallen] == [Deposed]
        with pytest.raises(LogPoisoned):
            old.append(batch(2), lambda error: None)
        assert await entries(sea) == [1, 2]
        new.close()

    jump(main())


def test_a_leader_whose_stream_is_away_for_too_long_gives_up(jump: Jump) -> None:
    async def main() -> None:
        sea = Sea()
        log = await leading(sea)
        sea.up = False
        with pytest.raises(Deposed, match="no entry was stored"):
            await asyncio.wait_for(appended(log, 2), 20)

    jump(main())


@pytest.mark.parametrize(("answers", "after_s"), [([], 5), ([False], 5), ([True, False], 5), ([True] * 99, 15)])
def test_a_leader_that_finds_no_other_node_either_gives_up_sooner(
    jump: Jump, answers: list[bool], after_s: int
) -> None:
    """The stream is away, as its servers say: an election among them, or this one server is cut off with the node."""

    async def main() -> None:
        loop = asyncio.get_running_loop()
        asked_s: list[float] = []

        async def alone() -> bool:
            asked_s.append(loop.time() - begun_s)
            await asyncio.sleep(1)
            return len(asked_s) > len(answers) or not answers[len(asked_s) - 1]

        sea = Sea()
        log = await leading(sea, alone=alone)
        sea.up = False
        begun_s = loop.time()
        with pytest.raises(Deposed, match="no entry was stored"):
            await asyncio.wait_for(appended(log, 2), 20)
        assert after_s <= loop.time() - begun_s < after_s + 4
        assert asked_s[0] >= 5, "an election would take that long, too"

    jump(main())


def test_g7_a_leader_that_finds_a_hole_behind_it_leads_no_more(jump: Jump) -> None:
    async def main() -> None:
        sea = Sea()
        log = await leading(sea)
        sea.store(b"foreign", None)
        sea.store(b"foreign", None)
        del sea.messages[sea.last - 1]
        with pytest.raises(Deposed, match="message 3 of the stream is missing"):
            await appended(log, 2)

    jump(main())


@pytest.mark.parametrize("shown", [None, b"TRBE and no more"])
def test_a_leader_in_doubt_looks_again_at_what_cannot_be(jump: Jump, shown: bytes | None) -> None:
    """A server that led the stream a moment ago answers for it, and is behind, or has a bad disk."""

    class Behind(MemoryStream):
        lies = 5

        async def get(self, seq: int) -> Message | None:
            true = await super().get(seq)
            if not self.lies or seq < 3:
                return true
            self.lies -= 1
            return None if shown is None else Message(seq, shown)

    async def main() -> None:
        sea = Sea()
        stream = Behind(sea)
        log = await leading(sea, stream)
        sea.store(b"foreign", None)  # so the next entry comes at another number
        await appended(log, 2)
        assert stream.lies == 0
        assert await entries(sea) == [1, 2]
        log.close()

    jump(main())


def test_what_was_stored_unheard_is_found_and_not_sent_again(jump: Jump, clock: JumpClock) -> None:
    async def main() -> None:
        sea = Sea()
        stream = MemoryStream(sea, way := Deaf())
        log = await leading(sea, stream)
        way.deaf = True
        waiting = appended(log, 2)
        await asyncio.sleep(0.5)
        way.deaf = False
        await waiting
        assert sea.last == 3  # BASE, OPEN, and this one once
        log.close()

    jump(main())


def test_resigning_comes_after_everything(jump: Jump) -> None:
    async def main() -> None:
        sea = Sea()
        log = await leading(sea)
        under_way = [appended(log, 2), appended(log, 3)]
        await log.resign("b")
        await asyncio.gather(*under_way)
        last = MemoryStream(sea)
        message = await last.get(sea.last)
        assert message is not None
        assert message.data == encode(LINKS, without_events(EntryKind.RESIGN, log.tail, "a", 1, b"b"))
        log.close()

    jump(main())
