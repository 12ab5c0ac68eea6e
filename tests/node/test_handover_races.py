"""Between the moment that a hand-over is decided and the moment that a handler hears of it, anything may happen."""

from __future__ import annotations

from collections.abc import Callable, Coroutine

import pytest

from tests.node.test_life import OTHER, TOKEN, kind
from tests.node.world import PlayedRoute, World
from truba.errors import BadRequest
from truba.node.node import Node
from truba.testing.jump import JumpClock
from truba.types import Cause, Index, Phase

Jump = Callable[[Coroutine[object, object, None]], None]


async def granted_not_durable(world: World, token: bytes = b"") -> tuple[Node, Index]:
    """A session is granted to the played handler; the log has not yet made that durable."""
    node = await world.start()
    hold = node.new(node.presence.attach(), 7, [b"a"])
    node.store(hold, 1000)
    await world.durable()
    if token:
        node.presence.name_owner(world.route(7).owner, token, 10_000)
    world.log.held = True
    await world.pass_time(2)
    assert node.machine.counts[7, Phase.REPEATING] == 1
    return node, hold.id


@pytest.mark.parametrize("token", [b"", TOKEN])
def test_handler_lost_before_its_push_has_not_been_reached(jump: Jump, clock: JumpClock, token: bytes) -> None:
    async def main() -> None:
        world = World(kind(max_attempts=1), clock=clock)
        node, session_id = await granted_not_durable(world, token)
        node.presence.detach(world.route(7).owner)
        world.log.held = False
        world.log.release()
        await world.durable()
        assert not node.failed.done()
        assert not world.route(7).given
        head = node.look_up(session_id)
        assert (head.phase, head.cause, head.attempts) == (Phase.STORED, Cause.UNREACHABLE, 0)
        assert node.dispatcher.out == 0

    jump(main())


def test_handler_taken_over_before_its_push_gets_the_session_anew(jump: Jump, clock: JumpClock) -> None:
    async def main() -> None:
        world = World(kind(max_attempts=1), clock=clock)
        node, session_id = await granted_not_durable(world, TOKEN)
        fresh = node.presence.attach()
        assert node.presence.name_owner(fresh, TOKEN, 10_000) == []
        world.log.held = False
        world.log.release()
        await world.durable()
        assert not world.route(7).given
        assert node.look_up(session_id).cause is Cause.UNREACHABLE

    jump(main())


def test_kinds_that_share_a_handler_share_its_seats(jump: Jump, clock: JumpClock) -> None:
    async def main() -> None:
        world = World(kind(7), kind(8), clock=clock)
        node = await world.start()
        shared = world.routes[7]
        assert isinstance(shared, PlayedRoute)
        shared.seats = 1
        node.dispatcher.lanes[8].route = shared
        owner = node.presence.attach()
        for _ in range(50):
            node.store(node.new(owner, 7, [b"a"]), 0)
        node.store(node.new(owner, 8, [b"b"]), 0)
        for done in range(4):
            await world.pass_time(0.1)
            node.delete(shared.given[done].hold)
        assert 8 in [handover.hold.kind for handover in shared.given]

    jump(main())


def test_handler_that_comes_back_after_a_restart_is_counted(jump: Jump, clock: JumpClock) -> None:
    async def main() -> None:
        world = World(kind(concurrency=1), clock=clock)
        node = await world.start()
        node.presence.name_owner(world.route(7).owner, OTHER, 60_000)
        owner = node.presence.attach()
        for _ in range(2):
            node.store(node.new(owner, 7, [b"a"]), 0)
        await world.pass_time(0.1)
        assert len(world.route(7).given) == 1
        node = await world.crash()
        await world.pass_time(0.1)
        assert not world.route(7).given  # the one seat is kept for the handler that may come back
        assert len(node.presence.name_owner(world.route(7).owner, OTHER, 60_000)) == 1

    jump(main())


def test_words_of_a_failing_owner_and_tags_cannot_break_the_log(jump: Jump, clock: JumpClock) -> None:
    async def main() -> None:
        world = World(kind(), clock=clock)
        node = await world.start()
        hold = node.new(node.presence.attach(), 7, [b"a"])
        node.fail(hold, "no file caf\udce9.txt")
        await world.durable()
        assert node.look_up(hold.id).detail == "no file caf?.txt"
        for tag in (2**63, 2**70, -2):
            with pytest.raises(BadRequest):
                node.new(node.presence.attach(), 7, [b"a"], tag)
        await world.crash()

    jump(main())
