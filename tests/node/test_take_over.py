"""An owner that holds very many sessions is taken over slice by slice: nobody waits, and nothing is told too early."""

from __future__ import annotations

import gc
from collections.abc import Callable, Coroutine, Iterable, Iterator
from itertools import chain

import pytest

from tests.node.test_life import TOKEN, kind
from tests.node.world import World
from truba.errors import Fenced
from truba.node.node import Node
from truba.node.owners import Hold, Owner
from truba.node.presence import LOST_AT_ONCE, MOVED_AT_ONCE, MOVED_UNSEEN, Listed
from truba.testing.jump import JumpClock
from truba.types import Cause, Phase

Jump = Callable[[Coroutine[object, object, None]], None]

MANY = 3 * MOVED_AT_ONCE + 1
GRACE_MS = 10_000


def named(node: Node, count: int = MANY) -> tuple[Owner, list[Hold]]:
    owner = node.presence.attach()
    node.presence.name_owner(owner, TOKEN, GRACE_MS)
    return owner, [node.new(owner, 7, [b"a"], tag) for tag in range(count)]


def begun(node: Node) -> tuple[Owner, list[int], Iterator[list[Listed]]]:
    """A new connection that has taken over a slice; the numbers of the sessions in it, and the slices to come."""
    owner = node.presence.attach()
    slices = node.presence.take_over(owner, TOKEN, GRACE_MS)
    first = numbers(next(slices))
    assert len(owner.holds) == len(first) == MOVED_AT_ONCE
    return owner, first, slices


def numbers(listed: Iterable[Listed]) -> list[int]:
    return [index.seq for index, _, _, _ in listed]


def told(slices: Iterator[list[Listed]]) -> list[int]:
    return numbers(chain.from_iterable(slices))


def test_all_is_taken_over_in_slices(jump: Jump, clock: JumpClock) -> None:
    async def main() -> None:
        world = World(kind(), clock=clock)
        node = await world.start()
        old, holds = named(node)
        new = node.presence.attach()
        slices = list(node.presence.take_over(new, TOKEN, GRACE_MS))
        assert [*map(len, slices)] == [MOVED_AT_ONCE] * 3 + [1]
        assert [row for part in slices for row in part] == [(hold.id, 7, hold.tag, 0) for hold in holds]
        assert not old.holds
        for hold in holds:
            assert hold.ended == "taken"
            node.delete(node.find(new, hold.id_text))
        await world.durable()

    jump(main())


def test_what_is_still_to_be_moved_cannot_be_written_to_by_the_connection_before(jump: Jump, clock: JumpClock) -> None:
    async def main() -> None:
        world = World(kind(), clock=clock)
        node = await world.start()
        old, holds = named(node)
        _, first, slices = begun(node)
        assert holds[-1].id_text in old.holds
        for hold in (holds[0], holds[-1]):
            with pytest.raises(Fenced):
                node.find(old, hold.id_text)
        with pytest.raises(Fenced):
            node.new(old, 7, [b"a"], 0)
        node.presence.detach(old)  # and its end is nobody's loss
        assert first + told(slices) == [hold.number for hold in holds]
        await world.pass_time(60)
        assert not world.route(7).given

    jump(main())


def test_a_third_connection_takes_all_from_both(jump: Jump, clock: JumpClock) -> None:
    async def main() -> None:
        world = World(kind(), clock=clock)
        node = await world.start()
        old, holds = named(node)
        second, _, seconds = begun(node)
        third, first, thirds = begun(node)
        with pytest.raises(Fenced, match="newer connection"):
            next(seconds)
        node.presence.detach(second)
        assert sorted(first + told(thirds)) == [hold.number for hold in holds]
        # And the first one again, which still held some: nothing is lost on the way there either.
        slices = node.presence.take_over(old, TOKEN, GRACE_MS)
        next(slices)
        slices = node.presence.take_over(third, TOKEN, GRACE_MS)
        next(slices)
        assert sorted(told(node.presence.take_over(old, TOKEN, GRACE_MS))) == [hold.number for hold in holds]
        with pytest.raises(Fenced):
            list(slices)
        for hold in holds:
            node.append(node.find(old, hold.id_text + b"@0"), [b"b"])  # it had been taken from that connection

    jump(main())


def test_what_a_lost_owner_still_has_is_its_own_when_an_earlier_connection_names_it(
    jump: Jump, clock: JumpClock
) -> None:
    async def main() -> None:
        world = World(kind(), clock=clock)
        node = await world.start()
        old, holds = named(node)
        new, _, _ = begun(node)
        new.grace_ms = 0
        node.presence.detach(new)
        listed = node.presence.name_owner(old, TOKEN, GRACE_MS)
        assert len(listed) == len(holds) - LOST_AT_ONCE
        opened = node.new(old, 7, [b"a"])
        await world.pass_time(1)
        assert {hold.id for hold in old.holds.values()} == {*(index for index, *_ in listed), opened.id}
        assert node.presence.losses == LOST_AT_ONCE
        node.delete(opened)
        await world.durable()

    jump(main())


def test_whoever_comes_too_late_is_told_of_what_is_not_given_back_yet(jump: Jump, clock: JumpClock) -> None:
    """Else a restart, which finds only what was logged, would give it back what it was told that it holds no more."""

    async def main() -> None:
        world = World(kind(), clock=clock)
        node = await world.start()
        owner, holds = named(node)
        await world.durable()
        node.presence.detach(owner)
        node.presence.expire(clock.steady_ms() + GRACE_MS)
        new = node.presence.attach()
        listed = {index for index, *_ in node.presence.name_owner(new, TOKEN, GRACE_MS)}
        assert len(listed) == len(holds) - LOST_AT_ONCE
        await world.pass_time(1)
        assert {hold.id for hold in new.holds.values()} == listed
        await world.durable()
        node = await world.crash()
        again = node.presence.name_owner(node.presence.attach(), TOKEN, GRACE_MS)
        assert {index for index, *_ in again} == listed

    jump(main())


def test_what_was_idle_while_a_newer_connection_was_there_still_has_an_end(jump: Jump, clock: JumpClock) -> None:
    async def main() -> None:
        world = World(kind(idle_timeout_s=20), clock=clock)
        node = await world.start()
        old, holds = named(node)
        begun(node)
        await world.pass_time(30)
        left = len(holds) - MOVED_AT_ONCE
        assert len(old.holds) == left  # whoever has them in the end may still want them
        node.presence.name_owner(old, TOKEN, GRACE_MS)
        await world.pass_time(19)
        assert len(old.holds) == left
        await world.pass_time(2)
        assert not old.holds

    jump(main())


def test_another_comes_while_the_sessions_are_told(jump: Jump, clock: JumpClock) -> None:
    async def main() -> None:
        world = World(kind(), clock=clock)
        node = await world.start()
        owner, _ = named(node)
        slices = node.presence.take_over(owner, TOKEN, GRACE_MS)
        assert len(next(slices)) == MOVED_AT_ONCE
        node.presence.name_owner(node.presence.attach(), TOKEN, GRACE_MS)
        with pytest.raises(Fenced, match="newer connection"):
            next(slices)

    jump(main())


@pytest.mark.parametrize("grace_ms", [0, GRACE_MS])
def test_a_connection_that_is_lost_in_the_middle(jump: Jump, clock: JumpClock, grace_ms: int) -> None:
    """What it has and what was on its way to it share their fate."""

    async def main() -> None:
        world = World(kind(), clock=clock)
        node = await world.start()
        old, holds = named(node)
        new, _, _ = begun(node)
        new.grace_ms = grace_ms
        node.presence.detach(new)
        if grace_ms:
            await world.pass_time(9)
            assert sorted(told(node.presence.take_over(node.presence.attach(), TOKEN, GRACE_MS))) == [
                hold.number for hold in holds
            ]
            return
        await world.pass_time(9)
        assert [head.number for head in node.machine.scan()] == [hold.number for hold in holds]
        assert {head.cause for head in node.machine.scan()} == {Cause.LOST}
        assert {head.phase for head in node.machine.scan()} == {Phase.STORED, Phase.REPEATING}
        assert not old.holds
        assert not new.holds

    jump(main())


def test_a_lease_that_ends_in_the_grace_ends_nothing(jump: Jump, clock: JumpClock) -> None:
    """Neither while the owner is away nor while its sessions are on the way to its new connection."""

    async def main() -> None:
        world = World(kind(idle_timeout_s=20), clock=clock)
        node = await world.start()
        old, holds = named(node)
        await world.pass_time(15)
        node.presence.detach(old)
        await world.pass_time(8)
        again, first, slices = begun(node)
        await world.pass_time(2)
        assert first + told(slices) == [hold.number for hold in holds]
        await world.pass_time(17)
        assert len(again.holds) == MANY
        await world.pass_time(4)
        assert not again.holds, "a new lease has begun with the new connection"

    jump(main())


def test_the_end_of_a_connection_looks_at_none_of_its_sessions(jump: Jump, clock: JumpClock) -> None:
    class Sealed(dict[bytes, Hold]):
        def values(self) -> object:  # type: ignore[override]
            raise AssertionError("a pass over all sessions of an owner, who may hold a million")

        __iter__ = items = values  # type: ignore[assignment]

    async def main() -> None:
        world = World(kind(), clock=clock)
        node = await world.start()
        old, holds = named(node)
        plain, old.holds = old.holds, Sealed(old.holds)
        node.presence.detach(old)
        old.holds = plain
        assert told(node.presence.take_over(node.presence.attach(), TOKEN, GRACE_MS)) == [hold.number for hold in holds]

    jump(main())


def test_the_collector_never_finds_very_many_holds_that_it_has_not_looked_at(jump: Jump, clock: JumpClock) -> None:
    """It counts what is made less what is freed: nothing, while holds are moved."""

    async def main() -> None:
        world = World(kind(), clock=clock)
        node = await world.start()
        old = node.presence.attach()
        node.presence.name_owner(old, TOKEN, GRACE_MS)
        for _ in range(3 * MOVED_UNSEEN * MOVED_AT_ONCE):
            node.new(old, 7, [b"a"])
        await world.durable()
        gc.collect()
        gc.disable()
        try:
            for _ in node.presence.take_over(node.presence.attach(), TOKEN, GRACE_MS):
                unseen = sum(isinstance(each, Hold) for age in (0, 1) for each in gc.get_objects(age))
                assert unseen <= MOVED_UNSEEN * MOVED_AT_ONCE
        finally:
            gc.enable()

    jump(main())
