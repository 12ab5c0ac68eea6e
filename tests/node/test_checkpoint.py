"""Checkpoints: one after the other, and never of what the log does not hold."""

from __future__ import annotations

import asyncio
import errno
from collections.abc import Callable, Coroutine
from contextlib import suppress

import pytest

from tests.node.world import World, nobody
from truba.errors import UnknownOutcome
from truba.kinds import Kind
from truba.node.node import Limits
from truba.testing.jump import JumpClock

Jump = Callable[[Coroutine[object, object, None]], None]


@pytest.mark.timeout(30, method="thread")  # a checkpoint that hangs cannot be cancelled
async def test_checkpoints_follow_each_other_when_nobody_else_awaits_a_batch() -> None:
    """Connections wait with callbacks, so the checkpoint is the only one that asks for the batch's future."""
    world = World(Kind(7, "transfer", nobody), limits=Limits(checkpoint_bytes=5_000))
    node = await world.start()
    owner = node.attach()
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
    owner = node.attach()
    while not node.failed.done():
        with suppress(UnknownOutcome):
            node.new(owner, 7, [b"x" * 600])
        await asyncio.sleep(0)
    assert "the store's disk failed" in str(node.failed.result())
    await node.stop()


@pytest.mark.timeout(30, method="thread")
async def test_a_checkpoint_that_fails_while_the_node_stops_is_told_by_failed() -> None:
    world = World(Kind(7, "transfer", nobody), limits=Limits(checkpoint_bytes=1_000))
    node = await world.start()
    world.store.commit = _fails  # type: ignore[method-assign]
    node.new(node.attach(), 7, [b"x" * 2_000])
    await node.stop()
    assert "the store's disk failed" in str(node.failed.result())


def test_g6_a_state_that_is_ahead_of_a_failed_log_is_never_written(jump: Jump, clock: JumpClock) -> None:
    async def main() -> None:
        world = World(Kind(7, "transfer", nobody), clock=clock)
        node = await world.start()
        world.log.held = True
        node.new(node.attach(), 7, [b"applied, and in no log"])
        await world.pass_time(0.1)
        node.give_up(RuntimeError("the log has failed"))
        with pytest.raises(UnknownOutcome):
            await node.checkpoint()
        assert world.store.summary.applied.seq == 0
        await node.checkpointer.close()

    jump(main())
