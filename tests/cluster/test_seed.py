"""A new stream made of a node's own log, and what an old stream still has beyond it."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Sequence
from itertools import count

import pytest

from tests.cluster.logs import catch_up
from tests.cluster.world import CLUSTER
from truba.cluster.entry import EntryKind, encode, without_events
from truba.cluster.rule import Cursor
from truba.cluster.seed import WINDOW, salvage, seed
from truba.codec.batch import encode_batch
from truba.codec.chain import Chain
from truba.errors import LogRegression
from truba.log.memory import MemoryLog, Shelf
from truba.machine.events import Created, Event, Opened
from truba.ports.log import LogBatch
from truba.ports.stream import Message, Outcome, Stored
from truba.streams.memory import MemoryStream, Sea, Way
from truba.types import ORIGIN, Position

Jump = Callable[[Coroutine[object, object, None]], None]
LINKS = Chain(CLUSTER)


def put(log: MemoryLog, term: int, event: Event) -> None:
    log.append(LogBatch(term, log.tail.seq + 1, 1, encode_batch([event])), lambda error: None)


def own_log(batches: int = 100) -> MemoryLog:
    """Two terms of two writers, the second with so many batches."""
    log = MemoryLog(Shelf(CLUSTER))
    put(log, 1, Opened(0, "a"))
    put(log, 1, Created(7, 0, b"", 0, -1, [b"first"]))
    put(log, 4, Opened(0, "b"))
    for number in range(batches):
        put(log, 4, Created(7, 0, b"", 0, -1, [b"%d" % number]))
    return log


class InOrder(Way):
    """Messages stay in order, as on one connection; number `lost` (from 0) never arrives."""

    def __init__(self, lost: int = -1) -> None:
        self._numbers = count()
        self._lost = lost

    def there(self) -> Sequence[float]:
        number = next(self._numbers)
        return () if number == self._lost else (number * 0.001,)


def in_order(sea: Sea, lost: int = -1, kind: type[MemoryStream] = MemoryStream) -> MemoryStream:
    return kind(sea, InOrder(lost))


def nothing(_: object) -> None:
    """Nobody looks at the progress."""


async def read(sea: Sea, begin: Position = ORIGIN) -> tuple[MemoryLog, Cursor]:
    """What a reader that has nothing finds in the stream."""
    shelf = Shelf(CLUSTER)
    shelf.begin = begin
    log = MemoryLog(shelf)
    cursor = Cursor(0, begin)
    if begin == ORIGIN:
        return log, await catch_up(MemoryStream(sea), LINKS, log)
    copied = await salvage(MemoryStream(sea), LINKS, log, nothing)
    return log, cursor._replace(stream_seq=copied)


def test_the_stream_leads_to_exactly_the_own_log(jump: Jump) -> None:
    async def main() -> None:
        own, sea = own_log(), Sea()
        told: list[int] = []
        last = await seed(in_order(sea), LINKS, own, ORIGIN, "a", told.append)
        assert sea.last == last == 1 + 103, "stored when it returns: a BASE, and every batch"
        assert told == [0, *range(1, 104)]
        log, cursor = await read(sea)
        assert list(log.read(0)) == list(own.read(0))
        assert cursor == Cursor(last, own.tail, "b", last)

    jump(main())


def test_a_log_that_begins_later_begins_the_stream_there(jump: Jump) -> None:
    async def main() -> None:
        own, sea = own_log(), Sea()
        own.trim(50)
        last = await seed(in_order(sea), LINKS, own, own.shelf.begin, "b", nothing)
        assert last == 1 + 53
        log, _ = await read(sea, own.shelf.begin)
        assert list(log.read(50)) == list(own.read(50))

    jump(main())


@pytest.mark.parametrize("lost", [0, 1, 2, 3, 50, 104 - WINDOW, 103])
def test_a_message_that_is_not_known_to_be_stored_is_told(jump: Jump, lost: int) -> None:
    """Whichever it is, the last one too: what was not stored is not called done."""

    async def main() -> None:
        stream = in_order(Sea(), lost)
        with pytest.raises(LogRegression, match=f"did not take message {lost + 1} as such"):
            await seed(stream, LINKS, own_log(), ORIGIN, "a", nothing)

    jump(main())


class CarelessStream(MemoryStream):
    """Stores whatever comes, wherever the stream ends."""

    def publish(self, data: bytes, expected: int | None, done: Callable[[Outcome], None]) -> None:
        super().publish(data, None, done)


@pytest.mark.parametrize("kind", [MemoryStream, CarelessStream])
def test_a_stream_that_somebody_else_writes_to_is_not_taken(jump: Jump, kind: type[MemoryStream]) -> None:
    async def main() -> None:
        sea = Sea()
        assert sea.store(b"who is this", 0) == Stored(1)
        with pytest.raises(LogRegression, match="is another node at work"):
            await seed(in_order(sea, kind=kind), LINKS, own_log(), ORIGIN, "a", nothing)

    jump(main())


@pytest.mark.parametrize("has", [0, 1, 3, 60, 103])
def test_what_only_the_stream_has_is_copied(jump: Jump, has: int) -> None:
    async def main() -> None:
        whole, sea, kept = own_log(), Sea(), list[Message]()
        last = await seed(in_order(sea), LINKS, whole, ORIGIN, "a", nothing)
        sea.store(b"not of this cluster", None)
        sea.store(encode(LINKS, without_events(EntryKind.PROBE, ORIGIN, "c")), None)
        own = MemoryLog(Shelf(CLUSTER))
        for batch, _ in list(whole.read(0))[:has]:
            own.append(batch, lambda error: None)
        assert await salvage(MemoryStream(sea), LINKS, own, kept.append) == 103 - has
        assert list(own.read(0)) == list(whole.read(0))
        assert [message.seq for message in kept] == list(range(1, last + 3))

    jump(main())


@pytest.mark.parametrize("how", ["missing", "changed"])
def test_nothing_is_copied_from_behind_a_hole_and_everything_is_kept(jump: Jump, how: str) -> None:
    async def main() -> None:
        whole, sea, kept = own_log(), Sea(), list[Message]()
        last = await seed(in_order(sea), LINKS, whole, ORIGIN, "a", nothing)
        data = sea.messages.pop(41)  # of event 40
        there = list(range(1, last + 1))
        if how == "changed":
            sea.messages[41] = data[:-1] + bytes([data[-1] ^ 1])
        else:
            there.remove(41)
        own = MemoryLog(Shelf(CLUSTER))
        await salvage(MemoryStream(sea), LINKS, own, kept.append)
        assert list(own.read(0)) == list(whole.read(0))[:39]
        assert [message.seq for message in kept] == there

    jump(main())


def test_nothing_is_copied_that_does_not_follow(jump: Jump) -> None:
    """The own log ends before the stream begins: a hole, though nothing of the stream itself is missing."""

    async def main() -> None:
        whole, sea = own_log(), Sea()
        await seed(in_order(sea), LINKS, whole, ORIGIN, "a", nothing)
        sea.drop_before(50)
        own = MemoryLog(Shelf(CLUSTER))
        for batch, _ in list(whole.read(0))[:20]:
            own.append(batch, lambda error: None)
        tail = own.tail
        assert await salvage(MemoryStream(sea), LINKS, own, nothing) == 0
        assert own.tail == tail

    jump(main())


def test_a_stream_that_begins_with_a_probe_is_copied_all_the_same(jump: Jump) -> None:
    """Somebody has purged it to there. A PROBE stands nowhere, and says nothing of where the log begins."""

    async def main() -> None:
        whole, sea = own_log(), Sea()
        await seed(in_order(sea), LINKS, whole, ORIGIN, "a", nothing)
        sea.drop_before(50)
        sea.messages[50] = encode(LINKS, without_events(EntryKind.PROBE, ORIGIN, "c"))
        own = MemoryLog(Shelf(CLUSTER))
        for batch, _ in list(whole.read(0))[:49]:
            own.append(batch, lambda error: None)
        assert await salvage(MemoryStream(sea), LINKS, own, nothing) == 103 - 49
        assert list(own.read(0)) == list(whole.read(0))

    jump(main())
