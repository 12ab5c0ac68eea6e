"""A follower by itself: where it may begin to read a stream, and when it may not take silence for the leader's end."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine

import pytest

from tests.cluster.test_seed import LINKS, in_order, nothing, own_log
from tests.cluster.world import CLUSTER
from truba.cluster.follower import PATIENCE_S, Follower
from truba.cluster.marks import Marks
from truba.cluster.rule import Cursor
from truba.cluster.seed import seed
from truba.errors import LogRegression
from truba.kinds import Kind
from truba.log.memory import MemoryLog, Shelf
from truba.node.checkpoint import Checkpointer
from truba.node.recovery import recover
from truba.ports.store import Summary
from truba.ports.stream import Bounds, StreamDown
from truba.store.memory import MemoryStore
from truba.streams.memory import MemoryStream, Sea
from truba.testing.jump import JumpClock
from truba.types import ORIGIN, Position

Jump = Callable[[Coroutine[object, object, None]], None]


def follower(stream: MemoryStream, own: MemoryLog, clock: JumpClock, cursor: Cursor | None = None) -> Follower:
    store = MemoryStore()
    machine = recover(own, store, {7: Kind(7, "transfer", "local:nobody:here")})
    checkpointer = Checkpointer(machine, own, store, 1 << 40, nothing)
    return Follower(
        stream, LINKS, own, machine, checkpointer, Marks(), name="c", clock=clock, on_leader=nothing, cursor=cursor
    )


async def filled(own: MemoryLog, begin: Position = ORIGIN) -> Sea:
    """A stream that leads to what this log holds."""
    sea = Sea()
    await seed(in_order(sea), LINKS, own, begin, "b", nothing)
    return sea


@pytest.mark.parametrize("lost", [1, 3, 104])
def test_g7_a_stream_that_is_shorter_than_what_was_read_of_it(jump: Jump, clock: JumpClock, lost: int) -> None:
    """The node has missed nothing, and nobody else would say a word: it finds out by itself."""

    async def main() -> None:
        own = own_log()
        sea = await filled(own)
        read = Cursor(sea.last, own.tail, "b", sea.last)
        for seq in range(sea.last - lost + 1, sea.last + 1):
            del sea.messages[seq]
        sea.last -= lost
        with pytest.raises(LogRegression, match=f"read through message {read.stream_seq}, and now ends before"):
            await asyncio.wait_for(follower(MemoryStream(sea), own, clock, read).run(), 60)

    jump(main())


def test_g7_a_new_stream_in_the_place_of_the_old_one_is_not_begun(jump: Jump, clock: JumpClock) -> None:
    """By a node that holds sessions: what is in its log would be missing for ever."""

    async def main() -> None:
        sea = Sea()
        with pytest.raises(LogRegression, match="the stream is new, and this node's log is at 4-103"):
            await follower(MemoryStream(sea), own_log(), clock).run()
        assert sea.last == 0

    jump(main())


def test_g7_a_stream_that_goes_on_from_another_past_is_not_copied(jump: Jump, clock: JumpClock) -> None:
    """Trimmed to where this node's log ends, it fits by its numbers."""

    async def main() -> None:
        whole = own_log()
        whole.trim(50)
        sea = await filled(whole, whole.shelf.begin)
        shelf = Shelf(CLUSTER)
        shelf.begin = whole.shelf.begin._replace(chain=b"of another past!")
        own = MemoryLog(shelf)
        store = MemoryStore()
        store.commit(store.stage(), Summary(shelf.begin, {}))
        machine = recover(own, store, {})
        checkpointer = Checkpointer(machine, own, store, 1 << 40, nothing)
        reader = Follower(
            MemoryStream(sea), LINKS, own, machine, checkpointer, Marks(), name="c", clock=clock, on_leader=nothing
        )
        with pytest.raises(LogRegression, match="they are not one log"):
            await reader.run()
        assert list(own.read(50)) == []

    jump(main())


class Headless(MemoryStream):
    """Servers that keep a copy say that they live, and the engine has no leader of its own for so many questions."""

    refusals = 0
    refused_s = 0.0

    async def bounds(self) -> Bounds:
        if self.refusals:
            self.refusals -= 1
            self.refused_s = asyncio.get_running_loop().time()
            raise StreamDown("no leader")
        return await super().bounds()


def test_silence_while_the_engine_has_no_leader_says_nothing_of_ours(jump: Jump, clock: JumpClock) -> None:
    """Ours cannot write then. When it can again it has as long as ever to do so."""

    async def main() -> None:
        own = own_log()
        sea = await filled(own)
        stream = Headless(sea)
        reader = follower(stream, own, clock, Cursor(sea.last, own.tail, "b", sea.last))
        following = asyncio.create_task(reader.run())
        await asyncio.sleep(0.1)
        stream.refusals = 10
        await asyncio.wait_for(following, 11 * (PATIENCE_S[1] + 2))
        assert stream.refusals == 0
        assert asyncio.get_running_loop().time() - stream.refused_s >= PATIENCE_S[0]
        assert reader.cursor.stream_seq == sea.last

    jump(main())
