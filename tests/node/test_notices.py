"""Who is told of parked sessions, how often, and how many at once; the hook is played."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from contextlib import suppress
from dataclasses import dataclass, field

from tests.node.world import World, nobody
from truba.kinds import Breaker, Kind
from truba.node.node import Node
from truba.node.notices import AT_ONCE, CALL_S_MAX, TRIES_MAX
from truba.node.presence import LOST_AT_ONCE
from truba.ports.parked import ParkedHook, ParkedSession
from truba.testing.jump import JumpClock
from truba.types import Cause, Index

Jump = Callable[[Coroutine[object, object, None]], None]
KIND = Kind(7, "transfer", nobody, max_attempts=1, max_age_s=600, concurrency=1_000, breaker=Breaker(0))


@dataclass
class PlayedHook:
    """Fails the first `failures` times, and takes `takes_s`."""

    failures: int = 0
    takes_s: float = 1.0
    told: list[ParkedSession] = field(default_factory=list)
    calls: int = 0
    at_once: int = 0
    at_once_most: int = 0
    stopped: int = 0

    async def __call__(self, parked: ParkedSession) -> None:
        self.calls += 1
        self.at_once += 1
        self.at_once_most = max(self.at_once_most, self.at_once)
        try:
            await asyncio.sleep(self.takes_s)
            if self.calls <= self.failures:
                raise RuntimeError("nobody is on duty")
            self.told.append(parked)
        except asyncio.CancelledError:
            self.stopped += 1
            raise
        finally:
            self.at_once -= 1


class HookedWorld(World):
    hook: ParkedHook

    async def start(self, kinds: object = None) -> Node:
        self.log = self.make_log()
        self.routes = {kind.number: self.make_route() for kind in self.kinds}
        self.node = Node(
            self.log, self.store, self.kinds, dict(self.routes), clock=self.clock, tell=self._heard,
            hooks={7: self.hook},
        )  # fmt: skip
        await self.node.start()
        return self.node

    async def park(self, count: int = 1, *, held: bool = False) -> list[Index]:
        """Sessions whose only attempt fails. `held`: that is not durable before `log.release`."""
        owner, before = self.node.presence.attach(), len(self.route(7).given)
        for _ in range(count):
            self.node.store(self.node.new(owner, 7, [b"a secret"]), 0)
        await self.pass_time(0.01)
        holds = [handover.hold for handover in self.route(7).given[before:]]
        self.log.held = held
        for hold in holds:
            self.node.fail(hold, "no such account")
        return [hold.id for hold in holds]

    def heard(self, event: str) -> list[dict[str, object]]:
        return [fields for told, fields in self.told if told == event]


async def begin(clock: JumpClock, hook: PlayedHook) -> HookedWorld:
    world = HookedWorld(KIND, clock=clock)
    world.hook = hook
    await world.start()
    return world


def test_each_parked_session_is_told_of_once_it_is_durable_a_few_at_once(jump: Jump, clock: JumpClock) -> None:
    async def main() -> None:
        hook = PlayedHook()
        world = await begin(clock, hook)
        ids = await world.park(20, held=True)
        await world.pass_time(1)
        assert not hook.calls  # what is not durable may never have been
        world.log.held = False
        while world.log.release():
            await world.pass_time(0)
        await world.pass_time(100)
        hook.told.sort(key=lambda parked: parked.id)
        assert [parked.id for parked in hook.told] == ids
        assert hook.told[0] == ParkedSession(
            ids[0], 7, "transfer", Cause.FAILED, "1 attempts, max_attempts is 1: no such account", 1, 1
        )
        assert hook.at_once_most == AT_ONCE
        assert len(world.heard("parked session told of")) == 20
        (again,) = await world.park()
        await world.pass_time(2)
        assert hook.told[-1].id == again

    jump(main())


def test_a_hook_that_fails_is_called_again_until_it_has_succeeded(jump: Jump, clock: JumpClock) -> None:
    async def main() -> None:
        hook = PlayedHook(failures=5)
        world = await begin(clock, hook)
        ids = await world.park()
        await world.pass_time(600)
        assert ([parked.id for parked in hook.told], hook.calls) == (ids, 6)
        failed = world.heard("parked hook failed")
        assert [fields["tries"] for fields in failed] == [1, 2, 3, 4, 5]
        assert failed[0]["error"] == "RuntimeError: nobody is on duty"

    jump(main())


def test_after_many_tries_it_is_given_up_and_that_is_told(jump: Jump, clock: JumpClock) -> None:
    async def main() -> None:
        hook = PlayedHook(failures=10**9)
        world = await begin(clock, hook)
        await world.park()
        await world.pass_time(3_600)
        assert hook.calls == TRIES_MAX
        assert len(world.heard("parked hook failed, given up")) == 1

    jump(main())


def test_one_that_hangs_is_stopped_and_the_others_are_told_of_meanwhile(jump: Jump, clock: JumpClock) -> None:
    async def main() -> None:
        hook = PlayedHook(takes_s=10_000)
        world = await begin(clock, hook)
        await world.park()
        await world.pass_time(0.1)
        hook.takes_s = 0
        ids = await world.park(5)
        await world.pass_time(1)
        assert [parked.id for parked in hook.told] == ids
        await world.pass_time(CALL_S_MAX + 5)
        assert hook.stopped == 1
        assert len(hook.told) == 6

    jump(main())


def test_who_was_resumed_or_removed_meanwhile_is_passed_over(jump: Jump, clock: JumpClock) -> None:
    async def main() -> None:
        hook = PlayedHook(takes_s=20)
        world = await begin(clock, hook)
        ids = await world.park(AT_ONCE + 3)
        await world.pass_time(1)
        world.node.operators.resume(ids[-1])
        world.node.operators.remove(ids[-2])
        await world.pass_time(50)
        assert sorted(parked.id for parked in hook.told) == ids[:-2]

    jump(main())


def test_a_session_over_its_age_is_told_of_too(jump: Jump, clock: JumpClock) -> None:
    async def main() -> None:
        hook = PlayedHook()
        world = await begin(clock, hook)
        world.route(7).up = False
        owner = world.node.presence.attach()
        world.node.store(world.node.new(owner, 7, [b"old"]), 0)
        await world.pass_time(601)
        world.route(7).up = True
        await world.pass_time(5)
        assert [parked.cause for parked in hook.told] == [Cause.STORED]
        assert "max_age" in hook.told[0].detail

    jump(main())


def test_a_stop_stops_what_is_under_way_and_says_who_was_not_told_of(jump: Jump, clock: JumpClock) -> None:
    async def main() -> None:
        hook = PlayedHook(takes_s=20)
        world = await begin(clock, hook)
        await world.park(10)
        await world.pass_time(1)
        await world.node.stop()
        assert hook.stopped == AT_ONCE
        assert world.heard("some parked sessions were not told of")[0]["left"] == 10
        await world.pass_time(100)
        assert hook.calls == AT_ONCE

    jump(main())


def test_a_hook_that_cancels_itself_has_failed(jump: Jump, clock: JumpClock) -> None:
    async def main() -> None:
        calls = 0

        async def cancelling(parked: ParkedSession) -> None:
            nonlocal calls
            calls += 1
            raise asyncio.CancelledError("no")

        world = HookedWorld(KIND, clock=clock)
        world.hook = cancelling
        await world.start()
        await world.park()
        await world.pass_time(3_600)
        assert calls == TRIES_MAX

    jump(main())


def test_of_a_kind_without_a_hook_nobody_is_told_any_more(jump: Jump, clock: JumpClock) -> None:
    async def main() -> None:
        hook = PlayedHook(failures=1_000)
        world = await begin(clock, hook)
        await world.park(10)
        await world.pass_time(0.5)
        world.node.reconfigure(world.kinds, dict(world.routes), {})
        await world.pass_time(3_600)
        assert hook.calls == AT_ONCE
        await world.node.stop()

    jump(main())


def test_who_loses_the_stop_of_a_node_is_not_called_again(jump: Jump, clock: JumpClock) -> None:
    """The stop would wait for all others that are still to be told of."""

    async def main() -> None:
        calls = 0

        async def stubborn(parked: ParkedSession) -> None:
            nonlocal calls
            calls += 1
            with suppress(asyncio.CancelledError):
                await asyncio.sleep(20)

        world = HookedWorld(KIND, clock=clock)
        world.hook = stubborn
        await world.start()
        await world.park(10)
        await world.pass_time(1)
        await world.node.stop()
        assert calls == AT_ONCE

    jump(main())


def test_a_hook_that_is_configured_while_the_node_stops_is_not_called(jump: Jump, clock: JumpClock) -> None:
    async def main() -> None:
        world = HookedWorld(KIND, clock=clock)
        world.hook = PlayedHook()
        await world.start()
        node = world.node
        node.reconfigure(world.kinds, dict(world.routes), {})
        owner = node.presence.attach()
        for _ in range(LOST_AT_ONCE + 1):
            node.store(node.new(owner, 7, [b"a secret"]), 0)
        await world.pass_time(0.01)
        assert node.dispatcher.out == LOST_AT_ONCE + 1
        world.log.held = True
        stopping = asyncio.create_task(node.stop())
        await world.pass_time(0.01)
        late = PlayedHook()
        node.reconfigure(world.kinds, dict(world.routes), {7: late})
        world.log.held = False
        world.log.release()
        await stopping
        await world.pass_time(100)
        assert late.calls == 0

    jump(main())
