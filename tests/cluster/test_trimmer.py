"""What the stream may forget: what every node has, or a majority when it is too long; and only at a marked place."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Mapping

import pytest

from tests.cluster.logs import lead
from tests.cluster.world import CLUSTER
from truba.cluster.marks import APART_S, KEPT, Marks
from truba.cluster.rule import Cursor
from truba.cluster.trimmer import Trimmer, through
from truba.codec.chain import Chain
from truba.log.memory import MemoryLog, Shelf
from truba.ports.stream import Bounds
from truba.streams.memory import MemoryStream, Sea
from truba.testing.log import batch, commit
from truba.types import Position

Jump = Callable[[Coroutine[object, object, None]], None]


@pytest.mark.parametrize(
    ("tails", "all_have", "majority_has"),
    [([9], 9, 9), ([5, 9], 5, 5), ([5, 9, 3], 3, 5), ([0, 9, 9], 0, 9), ([0, 0, 9], 0, 0), ([9, 7, 5, 3], 3, 5),
     ([1, 2, 3, 4, 5], 1, 3), ([0, 0, 3, 4, 5], 0, 3)],
)  # fmt: skip
def test_through_which_event(tails: list[int], all_have: int, majority_has: int) -> None:
    """A majority must still have what is dropped although some node has not."""
    assert through(tails, Bounds(1, 10, 100), 100) == all_have
    assert through(tails, Bounds(1, 10, 101), 100) == majority_has
    assert sum(tail >= majority_has for tail in tails) > len(tails) / 2


def marked(*places: tuple[int, int]) -> Marks:
    marks = Marks()
    for at, (event, message) in enumerate(places):
        marks.add(Cursor(message, Position(1, event, bytes(16))), at * APART_S)
    return marks


def test_a_mark_never_leads_further_than_asked() -> None:
    marks = marked((3, 10), (3, 12), (7, 20), (9, 30))
    found = {seq: marks.before(seq) for seq in (0, 2, 3, 6, 7, 8, 9, 100)}
    assert found == {0: 0, 2: 0, 3: 12, 6: 12, 7: 20, 8: 20, 9: 30, 100: 30}
    marks.forget(20)
    assert (marks.before(6), marks.before(7)) == (0, 20)


def test_marks_are_apart_and_few() -> None:
    marks = marked((1, 10))
    marks.add(Cursor(11, Position(1, 2, bytes(16))), APART_S / 2)
    assert marks.before(5) == 10
    for at in range(3 * KEPT):
        marks.add(Cursor(100 + at, Position(1, 100 + at, bytes(16))), 10 + at * APART_S)
    assert 0 < marks.before(100 + KEPT) <= 100 + KEPT


def test_a_trim_is_told_before_it_happens(jump: Jump) -> None:
    """Else a leader that comes just then finds a stream that begins later than anybody has said."""

    async def main() -> None:
        sea, loop = Sea(), asyncio.get_running_loop()
        log = await lead(MemoryStream(sea), Chain(CLUSTER), MemoryLog(Shelf(CLUSTER)))
        await commit(log, batch(1, term=1))
        told: list[tuple[int, int]] = []
        purged: list[tuple[int, int]] = []

        tell_first = log.tell_first

        async def heard(stream_seq: int) -> None:
            told.append((stream_seq, sea.first))
            await tell_first(stream_seq)

        log.tell_first = heard  # type: ignore[method-assign]

        async def tails() -> Mapping[str, int]:
            return {"a": 30, "b": 20, "c": 10}

        marks = Marks()
        for seq in range(2, 31):
            await commit(log, batch(seq))
            marks.add(log.copied, seq * APART_S)
        trimmer = Trimmer(MemoryStream(sea), log, marks, tails, 1, lambda *seqs: purged.append(seqs), loop, 1)
        task = asyncio.create_task(trimmer.run())
        await asyncio.sleep(1)
        # Of the tails the middle one: event 20 is message 21, for a BASE comes first.
        assert told == [(21, 1)]
        assert (sea.first, trimmer.first, purged) == (21, 21, [])
        sea.drop_before(25)
        await asyncio.sleep(10)
        assert purged == [(25, 21)]
        task.cancel()
        log.close()

    jump(main())
