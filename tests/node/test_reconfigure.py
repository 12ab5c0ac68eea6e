"""Other kinds and other handlers for a node that goes on: all or nothing, and nobody is disturbed."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from dataclasses import replace

import pytest

from tests.node.test_life import TOKEN, kind
from tests.node.world import PlayedRoute, World
from truba.errors import Busy, UnknownKind
from truba.kinds import Backoff, Breaker
from truba.node.node import Node
from truba.testing.jump import JumpClock
from truba.types import Cause, Phase

Jump = Callable[[Coroutine[object, object, None]], None]


def test_a_kind_with_sessions_cannot_go_and_nothing_changes(jump: Jump, clock: JumpClock) -> None:
    async def main() -> None:
        world = World(kind(7), kind(8), clock=clock)
        node = await world.start()
        owner = node.presence.attach()
        hold = node.new(owner, 8, [b"a"])
        other = replace(node.kinds[7], max_attempts=99)
        with pytest.raises(Busy, match=r"has 1 sessions: .* nothing was changed"):
            node.reconfigure([other], {7: world.route(7)})
        assert set(node.kinds) == {7, 8}
        assert node.kinds[7].max_attempts != 99
        node.delete(hold)
        node.reconfigure([other], {7: world.route(7)})
        with pytest.raises(UnknownKind):
            node.new(owner, 8, [])
        assert node.kinds[7].max_attempts == 99
        assert set(node.dispatcher.lanes) == {7}
        await world.pass_time(1)
        assert (world.route(8).stopped, world.route(7).stopped) == (True, False)

    jump(main())


def test_a_new_kind_takes_sessions_and_hands_them_over(jump: Jump, clock: JumpClock) -> None:
    async def main() -> None:
        world = World(kind(7), clock=clock)
        node = await world.start()
        route = PlayedRoute()
        node.reconfigure([*node.kinds.values(), kind(9)], {7: world.route(7), 9: route})
        node.store(node.new(node.presence.attach(), 9, [b"a"]), 1000)
        await world.pass_time(2)
        assert [handover.records for handover in route.given] == [[b"a"]]
        await node.stop()
        assert route.stopped

    jump(main())


def test_what_is_out_stays_with_the_old_handler_and_what_follows_goes_to_the_new(jump: Jump, clock: JumpClock) -> None:
    async def main() -> None:
        world = World(kind(7, handler_timeout_s=60), clock=clock)
        node = await world.start()
        client = node.presence.attach()
        node.store(node.new(client, 7, [b"first"]), 0)
        await world.pass_time(0.1)
        old, new = world.route(7), PlayedRoute()
        [first] = old.given
        node.reconfigure(list(node.kinds.values()), {7: new})
        node.store(node.new(client, 7, [b"second"]), 0)
        await world.pass_time(30)
        assert [handover.records for handover in new.given] == [[b"second"]]
        assert (len(old.given), old.stopped, node.dispatcher.out) == (1, False, 2)
        node.append(first.hold, [b"still mine"])
        node.delete(first.hold)
        await world.pass_time(0.1)
        assert old.stopped
        assert not old.taken_away

    jump(main())


def test_what_the_old_handler_makes_of_it_is_not_the_new_ones_trouble(jump: Jump, clock: JumpClock) -> None:
    async def main() -> None:
        policy = Breaker(3, open_for_s=1_000, cap_s=1_000)
        world = World(kind(7, handler_timeout_s=60, breaker=policy, backoff=Backoff(0, 1, 0)), clock=clock)
        node = await world.start()
        client = node.presence.attach()
        old, new = world.route(7), PlayedRoute()
        for _ in range(4):
            node.store(node.new(client, 7, [b"a"]), 0)
        await world.pass_time(0.1)
        assert len(old.given) == 4
        node.reconfigure(list(node.kinds.values()), {7: new})
        await world.pass_time(61)  # the old one is late with all of them
        assert len(old.taken_away) == len(new.given) == 4
        assert not [event for event, _ in world.told if event.startswith("handler in trouble")]
        for handover in new.given[:3]:
            node.fail(handover.hold)
        await world.durable()
        assert [event for event, _ in world.told if event.startswith("handler in trouble")]

    jump(main())


def test_a_handler_that_keeps_what_it_has_is_left_in_the_end(jump: Jump, clock: JumpClock) -> None:
    async def main() -> None:
        world = World(kind(7, handler_timeout_s=60), clock=clock)
        node = await world.start()
        node.store(node.new(node.presence.attach(), 7, [b"a"]), 0)
        await world.pass_time(0.1)
        old, new = world.route(7), PlayedRoute()
        node.reconfigure(list(node.kinds.values()), {7: new})
        for _ in range(5):
            await world.pass_time(15)
            if not old.stopped:  # signs of life, and nothing else
                node.touch(old.given[0].hold)
        assert old.stopped
        await world.pass_time(20)
        assert [handover.records for handover in new.given[:1]] == [[b"a"]]

    jump(main())


def test_a_connection_that_comes_back_does_not_hold_the_old_route(jump: Jump, clock: JumpClock) -> None:
    async def main() -> None:
        world = World(kind(7, handler_timeout_s=600), clock=clock)
        node = await world.start()
        old, new = world.route(7), PlayedRoute()
        node.presence.name_owner(old.owner, TOKEN, 60_000)
        node.store(node.new(node.presence.attach(), 7, [b"a"]), 0)
        await world.pass_time(0.1)
        node.reconfigure(list(node.kinds.values()), {7: new})
        again = node.presence.attach()
        assert len(node.presence.name_owner(again, TOKEN, 60_000)) == 1
        [hold] = again.holds.values()
        assert node.dispatcher.out == 1
        node.delete(hold)
        await world.pass_time(0.1)
        assert node.dispatcher.out == 0
        assert old.stopped

    jump(main())


def test_a_route_that_stays_is_not_touched_and_a_policy_counts_at_once(jump: Jump, clock: JumpClock) -> None:
    async def main() -> None:
        world = World(kind(7, concurrency=1), clock=clock)
        node = await world.start()
        client = node.presence.attach()
        for at in range(5):
            node.store(node.new(client, 7, [b"%d" % at]), 0)
        await world.pass_time(0.1)
        route = world.route(7)
        assert len(route.given) == 1
        node.reconfigure([replace(node.kinds[7], concurrency=3)], {7: route})
        await world.pass_time(0.1)
        assert (len(route.given), route.stopped) == (3, False)
        node.fail(route.given[0].hold, "no", Cause.FAILED)
        assert node.machine.counts[7, Phase.REPEATING] == 2

    jump(main())


def test_stopping_while_an_old_route_is_still_in_use_ends_it_too(jump: Jump, clock: JumpClock) -> None:
    async def main() -> None:
        world = World(kind(7), clock=clock)
        node = await world.start()
        node.store(node.new(node.presence.attach(), 7, [b"a"]), 0)
        await world.pass_time(0.1)
        old, new = world.route(7), PlayedRoute()
        node.reconfigure(list(node.kinds.values()), {7: new})
        await asyncio.sleep(0)
        await node.stop()
        assert (old.stopped, new.stopped) == (True, True)

    jump(main())


def test_what_is_configured_while_a_node_stops_is_not_begun(jump: Jump, clock: JumpClock) -> None:
    """Nobody would end it: in a cluster the process lives on, and follows."""

    class Slow(PlayedRoute):
        async def stop(self) -> None:
            await asyncio.sleep(2)
            await super().stop()

    class Heard(PlayedRoute):
        begun = False

        def start(self, node: Node, wake: Callable[[], None]) -> None:
            super().start(node, wake)
            self.begun = True

    async def main() -> None:
        world = World(kind(7), clock=clock)
        node = await world.start()
        slow, late = Slow(), Heard()
        node.reconfigure(list(node.kinds.values()), {7: slow})
        stopping = asyncio.create_task(node.stop())
        await world.pass_time(1)
        node.reconfigure(list(node.kinds.values()), {7: late})
        await stopping
        assert slow.stopped
        assert not late.begun

    jump(main())
