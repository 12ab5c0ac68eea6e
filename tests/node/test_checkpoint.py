"""Checkpoints: they follow each other, nobody notices one that is under way, and one that fails loses nothing."""

from __future__ import annotations

import asyncio
import errno
import threading
from collections.abc import AsyncIterator, Callable, Coroutine
from concurrent.futures import Executor, Future
from contextlib import suppress
from itertools import pairwise
from typing import Any

import pytest

from tests.node.world import World, nobody
from truba.errors import Unavailable, UnknownOutcome
from truba.kinds import Kind
from truba.machine.layers import Layer
from truba.node.checkpoint import SLICE_MAX
from truba.node.node import Limits, Node
from truba.node.presence import LOST_AT_ONCE
from truba.ports.store import Staged, Summary
from truba.store.memory import MemoryStore
from truba.testing.jump import JumpClock
from truba.types import ORIGIN, Index, Phase

Jump = Callable[[Coroutine[object, object, None]], None]
KIND = Kind(7, "transfer", nobody)


@pytest.mark.timeout(30, method="thread")  # a checkpoint that hangs cannot be cancelled
async def test_checkpoints_follow_each_other_when_nobody_else_awaits_a_batch() -> None:
    """Connections wait with callbacks, so the checkpoint is the only one that asks for the batch's future."""
    world = World(KIND, limits=Limits(checkpoint_bytes=5_000))
    node = await world.start()
    owner = node.presence.attach()
    for _ in range(100):
        node.new(owner, 7, [b"x" * 300])
        await asyncio.sleep(0)
        await asyncio.sleep(0)  # sealed and durable by now
        await node.checkpointer.wait()
    assert node.checkpointer.done >= 10
    assert world.log.size_bytes < 5_000  # each let the log before it go
    await node.stop()
    assert world.store.summary.applied == world.log.tail


def _fails(*_: object) -> None:
    raise OSError(errno.EIO, "the store's disk failed")


@pytest.mark.timeout(30, method="thread")
async def test_a_checkpoint_that_fails_ends_the_node_with_its_own_error() -> None:
    """Batches are sealed between the failure and the moment it is heard of: none of them begins another checkpoint."""
    world = World(Kind(7, "transfer", nobody), limits=Limits(checkpoint_bytes=1_000))
    node = await world.start()
    world.store.commit = _fails  # type: ignore[method-assign]
    owner = node.presence.attach()
    began_s = asyncio.get_running_loop().time()
    while not node.failed.done():
        assert asyncio.get_running_loop().time() < began_s + 20, "nobody has heard of it"
        with suppress(UnknownOutcome):
            node.new(owner, 7, [b"x" * 600])
        await asyncio.sleep(0.001)
    assert "the store's disk failed" in str(node.failed.result())
    await node.stop()


@pytest.mark.timeout(30, method="thread")
async def test_a_checkpoint_that_fails_while_the_node_stops_is_told_by_failed() -> None:
    world = World(Kind(7, "transfer", nobody), limits=Limits(checkpoint_bytes=1_000))
    node = await world.start()
    world.store.commit = _fails  # type: ignore[method-assign]
    node.new(node.presence.attach(), 7, [b"x" * 2_000])
    await node.stop()
    assert "the store's disk failed" in str(node.failed.result())


def test_g6_a_state_that_is_ahead_of_a_failed_log_is_never_written(jump: Jump, clock: JumpClock) -> None:
    async def main() -> None:
        world = World(Kind(7, "transfer", nobody), clock=clock)
        node = await world.start()
        world.log.held = True
        node.new(node.presence.attach(), 7, [b"applied, and in no log"])
        await world.pass_time(0.1)
        node.give_up(RuntimeError("the log has failed"))
        with pytest.raises(UnknownOutcome):
            await node.checkpoint()
        assert world.store.summary.applied.seq == 0
        await node.checkpointer.close()

    jump(main())


class SlowStore(MemoryStore):
    """A commit takes until the test lets it go on, and then may fail."""

    def __init__(self) -> None:
        super().__init__()
        self.begun = threading.Event()
        self.go_on = threading.Event()
        self.failure: OSError | None = None

    def commit(self, staged: Staged, summary: Summary) -> None:
        self.begun.set()
        assert self.go_on.wait(60)
        if self.failure is not None:
            raise self.failure
        super().commit(staged, summary)


@pytest.fixture
async def slow() -> AsyncIterator[tuple[World, SlowStore]]:
    world = World(KIND)
    world.store = store = SlowStore()
    yield world, store
    store.failure = None
    store.go_on.set()  # whatever happened, its thread ends
    await world.node.stop()


async def twenty_sessions(node: Node) -> list[int]:
    owner = node.presence.attach()
    held = [node.new(owner, 7, [b"%d" % number]) for number in range(20)]
    for hold in held[::2]:
        node.store(hold, 10**6)
    await node.sequencer.flush()
    return [hold.number for hold in held]


async def test_nobody_notices_one_that_is_under_way(slow: tuple[World, SlowStore]) -> None:
    """The store is as it was, the log is whole, every session is there and may be changed; a kill loses nothing."""
    world, store = slow
    node = await world.start()
    numbers = await twenty_sessions(node)
    checkpoint = asyncio.create_task(node.checkpoint())
    assert await asyncio.to_thread(store.begun.wait, 60)
    through = world.log.tail
    assert store.summary.applied == ORIGIN
    assert world.shelf.begin == ORIGIN, "the log was trimmed before the store had it"
    assert [node.machine.records(number) for number in numbers] == [[b"%d" % at] for at in range(20)]
    node.operators.remove(node.look_up(Index(1, numbers[0])).id)
    node.new(node.presence.attach(), 7, [b"late"])
    await node.sequencer.flush()
    store.go_on.set()
    await checkpoint
    assert store.summary.applied == through == world.shelf.begin
    assert store.summary.counts == {(7, Phase.ACTIVE): 10, (7, Phase.STORED): 10}, "not of the state that was written"
    assert node.machine.counts == {(7, Phase.ACTIVE): 11, (7, Phase.STORED): 9}
    found = {number: node.machine.records(number) for number in numbers[1:]}
    assert found == {number: [b"%d" % at] for at, number in enumerate(numbers) if at}
    node = await world.crash()
    assert sum(node.machine.counts.values()) == 20
    assert {number: node.machine.records(number) for number in numbers[1:]} == found


async def test_one_that_fails_stops_the_node_and_loses_nothing(slow: tuple[World, SlowStore]) -> None:
    world, store = slow
    node = await world.start()
    numbers = await twenty_sessions(node)
    store.failure = OSError(28, "No space left on device")
    store.go_on.set()
    await node.checkpoint()
    await asyncio.sleep(0)
    assert node.failed.done()
    assert node.failed.result() is store.failure
    assert store.summary.applied == world.shelf.begin == ORIGIN
    again = World(KIND)
    again.shelf = world.shelf
    restarted = await again.start()
    assert [restarted.machine.records(number) for number in numbers] == [[b"%d" % at] for at in range(20)]
    await restarted.stop()


async def test_what_an_owner_lost_waits_for_one_that_is_slow(slow: tuple[World, SlowStore]) -> None:
    """Else the next one holds all that came meanwhile, and the interpreter's lock for as long as that takes."""
    world, store = slow
    world.limits = Limits(checkpoint_sessions=600)
    node = await world.start()
    sizes = sizes_of(node)
    owner = node.presence.attach()
    store.go_on.set()
    for at in range(12 * LOST_AT_ONCE):
        node.new(owner, 7, [b"%d" % at])
        if at % 100 == 0:
            await node.sequencer.flush()
    await node.checkpoint()
    store.go_on.clear()
    sizes.clear()
    node.presence.detach(owner)
    for _ in range(200):  # turns, in which all of it would be given back ten times over
        await asyncio.sleep(0)
    assert node.checkpointer.running
    assert 600 <= node.machine.layers.young_count < 600 + LOST_AT_ONCE
    lost = node.presence.losses
    assert lost < 2 * 600 + 2 * LOST_AT_ONCE
    await served(node)
    assert node.presence.losses == lost
    store.go_on.set()
    while owner.holds:  # noqa: ASYNC110 - a turn, not a time
        await asyncio.sleep(0)
    assert node.presence.losses == 12 * LOST_AT_ONCE
    await node.sequencer.flush()
    await node.checkpointer.wait()
    assert len(sizes) > 3
    assert max(sizes) < 600 + 2 * LOST_AT_ONCE


async def served(node: Node) -> None:
    hold = node.new(node.presence.attach(), 7, [b"meanwhile"])
    await node.sequencer.flush()
    node.delete(hold)
    await node.sequencer.flush()


def sizes_of(node: Node) -> list[int]:
    """Of each layer that is written from now on."""
    sizes: list[int] = []
    freeze = node.machine.freeze

    def counted() -> Layer:
        frozen = freeze()
        sizes.append(len(frozen.heads))
        return frozen

    node.machine.freeze = counted  # type: ignore[method-assign]
    return sizes


async def test_what_was_written_is_freed_bit_by_bit() -> None:
    world = World(KIND)
    node = await world.start()
    owner = node.presence.attach()
    for at in range(6 * SLICE_MAX):
        node.new(owner, 7, [b"%d" % at])
    frozen = node.machine.layers.young
    await node.checkpoint()
    left = [len(frozen.heads)]
    assert left[0], "all were let go in one turn"
    while left[-1]:
        await asyncio.sleep(0)
        left.append(len(frozen.heads))
        assert len(left) < 100
    assert all(before - after <= SLICE_MAX for before, after in pairwise(left)), left
    assert len(node.machine.owned) == 6 * SLICE_MAX
    await node.stop()


async def test_the_store_never_knows_more_than_the_log() -> None:
    """A checkpoint begins at the end of a batch that is still being written: it waits, and is of exactly that place."""
    world = World(KIND, limits=Limits(checkpoint_bytes=2_000))
    node = await world.start()
    world.log.held = True
    owner = node.presence.attach()
    node.new(owner, 7, [b"x" * 3_000])
    for _ in range(20):
        await asyncio.sleep(0)
    assert node.checkpointer.running
    assert world.store.summary.applied == ORIGIN
    node.new(owner, 7, [b"of the next batch"])
    for _ in range(20):
        await asyncio.sleep(0)
    assert world.store.summary.applied == ORIGIN
    world.log.release(1)
    await node.checkpointer.wait()
    assert world.store.summary.applied == world.log.position_at(2)
    assert world.store.summary.counts == {(7, Phase.ACTIVE): 1}
    assert [head.number for head in world.store.scan(0)] == [2]
    world.log.held = False
    world.log.release()
    await node.stop()


def test_after_a_checkpoint_that_failed_there_is_no_other(jump: Jump, clock: JumpClock) -> None:
    """Whoever is told of it ends the node; until then nothing may stumble over what was frozen for it."""

    async def main() -> None:
        world = World(Kind(7, "transfer", nobody), clock=clock)
        node = await world.start()
        told: list[BaseException] = []
        node.checkpointer.on_failure = told.append

        def full(staged: object, summary: object) -> None:
            raise OSError("the disk is full")

        world.store.commit = full  # type: ignore[method-assign]
        node.new(node.presence.attach(), 7, [b"a"])
        await node.checkpoint()
        assert [str(error) for error in told] == ["the disk is full"]
        node.checkpointer.sealed(None, 1 << 40)
        with pytest.raises(Unavailable, match="the disk is full"):
            await node.checkpoint()
        assert len(told) == 1
        await node.checkpointer.close()

    jump(main())


async def test_the_log_stays_while_somebody_reads_it() -> None:
    world = World(KIND)
    node = await world.start()
    node.new(node.presence.attach(), 7, [b"x" * 300])
    first, second = node.checkpointer.keep_log(), node.checkpointer.keep_log()
    await node.checkpoint()
    assert node.checkpointer.done == 1
    assert next(world.log.read(0))[0].first_seq == 1  # all of it
    first.let_go()
    first.let_go()
    assert next(world.log.read(0))[0].first_seq == 1
    second.let_go()
    assert world.log.size_bytes == 0  # what the checkpoint holds went at last
    await node.stop()


async def test_one_begins_by_the_number_of_changed_sessions_too() -> None:
    """However little log they took: what is young takes memory, and the commit holds up the loop by their number."""
    world = World(KIND, limits=Limits(checkpoint_sessions=50))
    node = await world.start()
    owner = node.presence.attach()
    for at in range(49):
        node.new(owner, 7, [b"%d" % at])
    await node.sequencer.flush()
    assert not node.checkpointer.running
    node.delete(node.new(owner, 7, []))  # born and gone: the store will never hear of it
    await node.sequencer.flush()
    assert not node.checkpointer.running
    node.new(owner, 7, [b"one more"])
    await node.sequencer.flush()
    await node.checkpointer.wait()
    assert node.checkpointer.done == 1
    assert len(list(world.store.scan(0))) == 50
    await node.stop()


async def test_one_that_is_staged_while_very_many_sessions_come_is_ahead_of_them(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Else each would be larger than the one before: the next one begins when this has ended."""
    world = World(KIND, limits=Limits(checkpoint_sessions=2_000))
    node = await world.start()
    owner = node.presence.attach()
    sizes = sizes_of(node)
    monkeypatch.setattr(node.checkpointer, "_thread", _AtOnce())  # how long one takes is not what this is about
    turns = 0
    while len(sizes) < 6:
        for _ in range(300):  # more than twice as many as are staged at least in one turn
            node.new(owner, 7, [b"x"])
        await asyncio.sleep(0)
        turns += 1
        assert turns < 1_000
    await node.checkpointer.wait()
    assert max(sizes[1:]) < 2 * 2_000, sizes  # half of what is staged comes meanwhile
    await node.stop()


class _AtOnce(Executor):
    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        done: Future[Any] = Future()
        done.set_result(fn(*args, **kwargs))
        return done
