"""Batches: who shares a sync, when answers leave, and what is told when the log fails."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine

import pytest

from tests.node.test_life import kind
from tests.node.world import World
from truba.errors import LogPoisoned, UnknownOutcome
from truba.log.memory import MemoryLog
from truba.machine.digest import state_digest
from truba.node.node import Node
from truba.node.recovery import recover
from truba.node.sequencer import CROWD_S
from truba.node.session import LocalSession
from truba.store.memory import MemoryStore
from truba.testing.jump import JumpClock

KIND = kind()

Jump = Callable[[Coroutine[object, object, None]], None]


def test_operations_of_one_turn_share_a_batch(jump: Jump, clock: JumpClock) -> None:
    async def main() -> None:
        world = World(kind(), clock=clock)
        node = await world.start()
        owner = node.presence.attach()
        before = node.sequencer.batches

        async def one() -> None:
            session = LocalSession(node, node.new(owner, 7, [b"a"]))
            await session.append(b"b")
            await session.delete()

        await asyncio.gather(*(one() for _ in range(50)))
        assert node.sequencer.batches - before == 2  # the first holds New and Append: New was not awaited

    jump(main())


def test_answers_leave_in_order_and_only_when_durable(jump: Jump, clock: JumpClock) -> None:
    async def main() -> None:
        world = World(kind(), clock=clock)
        node = await world.start()
        owner = node.presence.attach()
        world.log.held = True
        left: list[int] = []
        for number in range(6):
            node.new(owner, 7, [b"a"])
            node.when_durable(lambda durable, number=number: left.append(number if durable else -1))
            if number % 2:
                await asyncio.sleep(0)
        await asyncio.sleep(1)
        assert left == []
        world.log.release(1)
        await asyncio.sleep(0)
        assert left == [0, 1]
        world.log.held = False  # as a log that goes over from its thread to the loop: the next batches are done inline
        world.log.release()
        await asyncio.sleep(1)
        assert left == list(range(6))

    jump(main())


def test_cancelled_waiter_does_not_disturb_the_others(jump: Jump, clock: JumpClock) -> None:
    async def main() -> None:
        world = World(kind(), clock=clock)
        node = await world.start()
        owner = node.presence.attach()
        sessions = [LocalSession(node, node.new(owner, 7, [])) for _ in range(3)]
        await world.durable()
        world.log.held = True
        tasks = [asyncio.create_task(session.append(b"a")) for session in sessions]
        await asyncio.sleep(0.1)
        tasks[1].cancel()
        await asyncio.sleep(0.1)
        world.log.release()
        assert [type(outcome) for outcome in await asyncio.gather(*tasks, return_exceptions=True)] == [
            type(None),
            asyncio.CancelledError,
            type(None),
        ]
        assert [node.machine.records(session.id.seq) for session in sessions] == [[b"a"]] * 3

    jump(main())


def test_log_that_fails_makes_outcomes_unknown_and_ends_the_node(jump: Jump, clock: JumpClock) -> None:
    async def main() -> None:
        world = World(kind(), clock=clock)
        node = await world.start()
        owner = node.presence.attach()
        session = LocalSession(node, node.new(owner, 7, []))
        await world.durable()
        world.log.held = True
        under_way = asyncio.create_task(session.append(b"a"))
        await asyncio.sleep(0.1)
        gathering = asyncio.create_task(session.append(b"b"))
        await asyncio.sleep(0.1)
        world.log.fail(OSError(5, "Input/output error"))
        for task in (under_way, gathering):
            with pytest.raises(UnknownOutcome):
                await task
        assert isinstance(node.failed.result(), LogPoisoned)
        with pytest.raises(UnknownOutcome):
            await session.append(b"c")
        node.presence.detach(owner)
        await node.stop()

    jump(main())


def test_checkpoint_under_way_when_the_pipe_is_killed_loses_nothing(jump: Jump, clock: JumpClock) -> None:
    async def main() -> None:
        world = World(kind(), clock=clock)
        node = await world.start()
        owner = node.presence.attach()
        for number in range(300):
            node.store(node.new(owner, 7, [b"%d" % number]), 10**6 + number)
        await world.durable()
        for turns in range(8):
            checkpoint = asyncio.create_task(node.checkpoint())
            for _ in range(turns):
                await asyncio.sleep(0)
            checkpoint.cancel()
            node = await world.crash()
            assert sum(node.machine.counts.values()) == 300
            for number, head in enumerate(node.machine.scan()):
                assert node.machine.records(head.number) == [b"%d" % number]
            node.new(node.presence.attach(), 7, [])  # something to write for the next one
            await world.durable()

    jump(main())


def test_a_batch_that_is_large_enough_is_full(jump: Jump, clock: JumpClock) -> None:
    """However much one turn of the loop brings, no batch is much larger than the log says, and all keep their order."""

    async def main() -> None:
        log = MemoryLog(batch_bytes_max=1000, held=True)
        store = MemoryStore()
        node = Node(log, store, (KIND,), {}, clock=clock)
        starting = asyncio.create_task(node.start())
        while not starting.done():
            log.release()
            await asyncio.sleep(0)
        owner = node.presence.attach()
        hold = node.new(owner, KIND.number, [b"first"])
        for n in range(100):
            node.append(hold, [b"%03d" % n + bytes(97)])
        flushed = node.sequencer.flush()
        await asyncio.sleep(0)
        batches = 0
        while not flushed.done():
            batches += log.release(1)
            await asyncio.sleep(0)
        assert batches >= 10
        bodies = [batch for batch, _ in log.read(1)]
        assert max(len(batch.body) for batch in bodies) < 1500
        assert [record[:3] for record in node.machine.records(hold.number)][1:] == [b"%03d" % n for n in range(100)]
        again = recover(log, store, {KIND.number: KIND})
        assert state_digest(again) == state_digest(node.machine)
        checkpoint = asyncio.create_task(node.checkpoint())
        await asyncio.wait([checkpoint])
        assert store.summary.applied == log.tail

    jump(main())


def test_a_small_batch_waits_for_the_one_before_where_the_log_says_so(jump: Jump, clock: JumpClock) -> None:
    async def main() -> None:
        log = MemoryLog(window=4, batch_bytes_min=500, held=True)
        node = Node(log, MemoryStore(), (KIND,), {}, clock=clock)
        starting = asyncio.create_task(node.start())
        while not starting.done():
            log.release()
            await asyncio.sleep(0)
        owner = node.presence.attach()
        before = node.sequencer.batches
        for sizes in ([10], [10], [10], [600]):
            for size in sizes:
                node.new(owner, KIND.number, [bytes(size)])
            await asyncio.sleep(0)
            await asyncio.sleep(0)
        assert node.sequencer.batches == before + 2  # the first at once; the others together, once they are large
        log.release()
        await node.sequencer.flush()

    jump(main())


def test_who_had_an_answer_a_moment_ago_is_waited_for_but_not_for_long(jump: Jump, clock: JumpClock) -> None:
    """Where the log gains from large batches. A client alone never waits."""

    async def main() -> None:
        log = MemoryLog(batch_bytes_min=500, held=True)
        node = Node(log, MemoryStore(), (KIND,), {}, clock=clock)
        starting = asyncio.create_task(node.start())
        while not starting.done():
            log.release()
            await asyncio.sleep(0)
        sequencer, owner = node.sequencer, node.presence.attach()

        async def new(count: int) -> int:
            """Batches sent by so many operations in one turn of the loop."""
            before = sequencer.batches
            for _ in range(count):
                node.new(owner, KIND.number, [b"r"])
            await asyncio.sleep(0)
            await asyncio.sleep(0)
            return sequencer.batches - before

        assert await new(2) == 1
        assert await new(3) == 0
        log.release()
        await asyncio.sleep(0)
        assert await new(1) == 0  # 4 of 5 are there
        assert await new(1) == 1
        log.release()
        await asyncio.sleep(0)
        before = sequencer.batches
        assert await new(1) == 0
        await asyncio.sleep(CROWD_S * 1.01)
        assert sequencer.batches == before + 1
        log.release()
        await asyncio.sleep(0)
        assert await new(1) == 1  # nobody else is left to wait for
        log.release()
        await sequencer.flush()

    jump(main())
