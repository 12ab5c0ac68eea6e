"""What operators decide through a node: pause and continue, another due time, pages of sessions; and what they see."""

from __future__ import annotations

from collections.abc import Callable, Coroutine

import pytest

from tests.node.world import World, nobody
from truba.errors import Busy, UnknownKind
from truba.kinds import Backoff, Kind
from truba.machine.history import HISTORY_MAX, holds
from truba.node import operators
from truba.node.node import Node
from truba.ports.store import Head
from truba.testing.jump import JumpClock
from truba.types import Index

Jump = Callable[[Coroutine[object, object, None]], None]
KINDS = [
    Kind(n, f"kind-{n}", nobody, recovery_delay_s=0, jitter_s=0, backoff=Backoff(1, 1, 1), max_attempts=0)
    for n in (7, 8)
]


def stored(node: Node, kind: int = 7, delay_ms: int = 0) -> Index:
    hold = node.new(node.presence.attach(), kind, [b"x"])
    node.store(hold, delay_ms)
    return hold.id


def test_a_paused_kind_is_not_handed_over_and_no_other_is_held_up(jump: Jump, clock: JumpClock) -> None:
    async def main() -> None:
        world = World(*KINDS, clock=clock)
        node = await world.start()
        node.operators.pause(7, True)
        stored(node, 7), stored(node, 8)
        await world.pass_time(30.5)
        assert not world.route(7).given
        assert len(world.route(8).given) == 1
        node.operators.pause(7, False)
        await world.pass_time(0.1)  # at once, not by the next tick
        assert len(world.route(7).given) == 1
        assert [told for told, _ in world.told] == ["hand-over paused", "hand-over continues"]

    jump(main())


@pytest.mark.parametrize("checkpoint", [False, True])
def test_a_pause_outlives_a_kill(jump: Jump, clock: JumpClock, checkpoint: bool) -> None:
    async def main() -> None:
        world = World(*KINDS, clock=clock)
        node = await world.start()
        node.operators.pause(7, True)
        stored(node)
        await world.durable()
        if checkpoint:
            await node.checkpoint()
        node = await world.crash()
        assert node.dispatcher.lanes[7].paused
        await world.pass_time(30)
        assert not world.route(7).given
        node.operators.pause(7, False)
        await world.durable()
        if checkpoint:
            await node.checkpoint()
        await world.crash()
        await world.pass_time(1.1)  # it was handed over just before, and is again once its backoff has passed
        assert len(world.route(7).given) == 1

    jump(main())


def test_pausing_twice_logs_once_and_an_unknown_kind_is_refused(jump: Jump, clock: JumpClock) -> None:
    async def main() -> None:
        node = await World(*KINDS, clock=clock).start()
        node.operators.pause(7, True)
        seq = node.machine.seq
        node.operators.pause(7, True)
        assert node.machine.seq == seq
        with pytest.raises(UnknownKind, match="nothing was changed"):
            node.operators.pause(9, True)

    jump(main())


def test_another_due_time_is_kept_to_the_millisecond_either_way(jump: Jump, clock: JumpClock) -> None:
    async def main() -> None:
        world = World(*KINDS, clock=clock)
        node = await world.start()
        later, sooner = stored(node, delay_ms=1_000), stored(node, delay_ms=3_600_000)
        node.operators.reschedule(later, clock.now_ms() + 50_000)
        node.operators.reschedule(sooner, clock.now_ms())
        await world.pass_time(49.9)
        assert [given.hold.id for given in world.route(7).given] == [sooner]
        await world.pass_time(0.2)
        assert [given.hold.id for given in world.route(7).given] == [sooner, later]
        assert [given.attempt for given in world.route(7).given] == [1, 1]
        with pytest.raises(Busy, match="it has an owner"):
            node.operators.reschedule(later, 0)

    jump(main())


def test_the_history_tells_each_hold_and_survives_a_restart(jump: Jump, clock: JumpClock) -> None:
    async def main() -> None:
        world = World(*KINDS, clock=clock)
        node = await world.start()
        began_ms = clock.now_ms()
        index = stored(node)
        await world.pass_time(0)
        assert len(world.route(7).given) == 1
        await world.pass_time(2)
        failed_ms = clock.now_ms()
        node.fail(world.route(7).given[0].hold, "no such account")
        await world.durable()
        await node.checkpoint()
        node = await world.crash()
        first, second = holds(node.look_up(index))[:2]
        assert (first.epoch, first.at_ms, first.to, first.cause) == (0, began_ms, "", "stored")
        assert (second.epoch, second.to, second.ended_ms) == (1, "local:tests.node.world:nobody", failed_ms)
        assert (second.cause, second.detail) == ("failed", "no such account")

    jump(main())


def test_the_history_is_bounded_and_says_where_it_begins(jump: Jump, clock: JumpClock) -> None:
    async def main() -> None:
        world = World(*KINDS, clock=clock)
        node = await world.start()
        index = stored(node)
        for turn in range(HISTORY_MAX + 5):
            await world.pass_time(1.5)
            node.fail(world.route(7).given[turn].hold, "x" * 300)
        found = holds(node.look_up(index))
        assert [held.epoch for held in found] == list(range(6, HISTORY_MAX + 6))
        assert {len(held.detail) for held in found} == {80}

    jump(main())


def test_a_page_is_bounded_in_work_and_pages_miss_nobody_whatever_changes_between_them(
    jump: Jump, clock: JumpClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(operators, "PAGE_STEPS", 8)

    async def main() -> None:
        world = World(*KINDS, clock=clock)
        node = await world.start()
        old = [stored(node, delay_ms=10**7) for _ in range(200)]
        await world.durable()
        await node.checkpoint()
        for index in old[::3]:
            node.operators.remove(index)
        young = [stored(node, 8, delay_ms=10**7) for _ in range(100)]
        looked_at = 0

        def wanted(head: Head) -> bool:
            nonlocal looked_at
            looked_at += 1
            return head.kind == 8

        found: list[Index] = []
        after: Index | None = None
        pages = 0
        while True:
            looked_at = 0
            heads, after = node.operators.page(after, 10, wanted, 28)
            assert len(heads) <= 10
            assert looked_at <= 28
            found += [head.id for head in heads]
            pages += 1
            node.operators.remove(young[-pages])  # what is ahead goes away
            node.operators.reschedule(young[pages], 10**14)  # what is behind changes
            if pages == 5:
                await node.checkpoint()
            if after is None:
                break
        assert set(young[: -pages - 1]) <= set(found)
        assert found == sorted(set(found))
        assert pages > 10  # those in which nothing was wanted too

    jump(main())
