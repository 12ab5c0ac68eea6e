"""The breaker as a value, against a second implementation; and in a node: what it holds back, and for how long."""

from __future__ import annotations

import random
from collections.abc import Callable, Coroutine

import pytest

from tests.node.gate import Gate
from tests.node.world import World, nobody
from truba.errors import ConfigError
from truba.kinds import Backoff, Breaker, Kind
from truba.machine.events import Deleted, Repeated, Stored
from truba.node.breaker import BAD, CircuitBreaker, Stage
from truba.node.owners import Hold
from truba.testing.jump import JumpClock
from truba.types import Cause

Jump = Callable[[Coroutine[object, object, None]], None]


def kind(number: int = 7, **policy: object) -> Kind:
    defaults: dict[str, object] = {"jitter_s": 0, "backoff": Backoff(1_000, 1, 1_000), "concurrency": 8}
    return Kind(number, f"kind-{number}", nobody, **(defaults | policy))  # type: ignore[arg-type]


def most() -> float:
    """Dice that make every wait as long as it may be."""
    return 1.0


class Played:
    """A breaker of three, and what is out."""

    def __init__(self) -> None:
        self.breaker = CircuitBreaker(Breaker(3, open_for_s=1, cap_s=5), 8, 0)

    def fails(self, *numbers: int, at_ms: int, cause: Cause = Cause.FAILED) -> Stage | None:
        return [self.breaker.ended(number, cause, "no", at_ms, most) for number in numbers][-1]

    def tries(self, number: int, at_ms: int) -> None:
        assert self.breaker.wait_ms(at_ms, 0) == 0
        self.breaker.handed_over(number, at_ms)


def test_it_opens_after_so_many_sessions_in_a_row() -> None:
    played = Played()
    assert played.fails(1, 2, at_ms=10) is None
    assert played.breaker.ended(3, None, "", 20, most) is None  # one well between
    assert played.fails(4, 5, 4, 5, at_ms=30) is None  # the same two: their trouble is their own
    assert played.breaker.wait_ms(30, 7) == 0
    assert played.fails(6, at_ms=40) is Stage.OPEN
    assert [played.breaker.wait_ms(at_ms, 0) for at_ms in (40, 1_039, 1_040)] == [1_000, 1, 0]
    assert played.fails(7, 8, 9, at_ms=50) is None  # were out when it opened, and say nothing new
    assert played.breaker.wait_ms(50, 0) == 990


def test_one_session_is_tried_and_in_vain_the_next_wait_is_twice_as_long() -> None:
    played = Played()
    played.fails(1, 2, 3, at_ms=0)
    now_ms = 0
    for wait_ms in (1_000, 2_000, 4_000, 5_000, 5_000):
        now_ms += wait_ms
        assert played.breaker.wait_ms(now_ms - 1, 0) == 1
        played.tries(99, now_ms)
        assert played.breaker.wait_ms(now_ms + 60_000, 1) is None
        assert played.breaker.ended(2, Cause.LATE, "", now_ms, most) is None  # another that was still out
        assert played.fails(99, at_ms=now_ms) is Stage.OPEN


def test_closed_again_it_begins_with_one_at_once() -> None:
    played = Played()
    played.fails(1, 2, 3, at_ms=0)
    played.tries(4, 1_000)
    assert played.breaker.ended(4, None, "", 1_000, most) is Stage.CLOSED
    for room in (1, 2, 3, 4, 5, 6, 7, 8, 8):
        assert played.breaker.wait_ms(1_000, room - 1) == 0
        assert played.breaker.wait_ms(1_000, room) is None
        assert played.breaker.ended(5, None, "", 1_000, most) is None
    assert played.fails(1, 2, 3, at_ms=2_000) is Stage.OPEN
    assert played.breaker.wait_ms(2_000, 0) == 1_000  # the wait begins anew


def test_open_too_no_more_are_out_than_the_kind_allows() -> None:
    played = Played()
    played.fails(1, 2, 3, at_ms=0)
    assert played.breaker.wait_ms(1_000, 8) is None
    assert played.breaker.wait_ms(1_000, 7) == 0


def test_any_session_that_ends_well_closes_it() -> None:
    played = Played()
    played.fails(1, 2, 3, at_ms=0)
    assert played.breaker.ended(9, None, "", 10, most) is Stage.CLOSED
    assert played.breaker.wait_ms(10, 0) == 0


def test_a_restart_of_the_pipe_says_nothing_about_the_handler() -> None:
    played = Played()
    assert played.fails(1, 2, 3, 4, at_ms=0, cause=Cause.RESTART) is None
    played.fails(1, 2, 3, at_ms=0)
    played.tries(4, 1_000)
    assert played.fails(4, at_ms=1_500, cause=Cause.RESTART) is None
    played.tries(5, 1_500)  # the next one at once


def test_never_means_never() -> None:
    breaker = CircuitBreaker(Breaker(0), 8, 0)
    assert not any(breaker.ended(number, Cause.LOST, "", 0, most) for number in range(1, 1_000))
    assert breaker.wait_ms(0, 7) == 0
    assert not breaker._failed  # noqa: SLF001 - an outage that nobody watches may fail millions


@pytest.mark.parametrize("policy", [(-1, 1, 1), (1, -1, 1), (1, float("inf"), 1), (1, 1, float("nan"))])
def test_a_policy_that_makes_no_sense_is_refused(policy: tuple[int, float, float]) -> None:
    with pytest.raises(ConfigError, match="breaker needs"):
        Breaker(*policy)


def test_what_operators_see() -> None:
    played = Played()
    ahead_ms = 1_800_000_000_000  # of the wall clock

    def status(now_ms: int) -> tuple[object, ...]:
        seen = played.breaker.status(now_ms, now_ms + ahead_ms)
        until_ms = seen.until_ms and seen.until_ms - ahead_ms
        return seen.stage, seen.since_ms - ahead_ms, until_ms, seen.failures, seen.cause, seen.detail, seen.room

    assert status(5) == (Stage.CLOSED, 0, None, 0, None, "", 8)
    played.fails(1, 2, 3, 4, at_ms=10, cause=Cause.LATE)
    assert status(20) == (Stage.OPEN, 10, 1_010, 4, Cause.LATE, "no", 0)
    assert status(1_010) == (Stage.OPEN, 10, 1_010, 4, Cause.LATE, "no", 1)
    played.tries(5, 1_020)
    assert status(1_030) == (Stage.HALF_OPEN, 1_020, None, 4, Cause.LATE, "no", 0)
    played.breaker.ended(5, None, "", 1_040, most)
    assert status(1_050) == (Stage.CLOSED, 1_040, None, 0, None, "", 1)


@pytest.mark.parametrize("seed", range(50))
def test_it_agrees_with_a_second_implementation(seed: int) -> None:
    dice = random.Random(seed)
    policy = kind(concurrency=dice.choice((1, 3, 20)), breaker=Breaker(dice.choice((0, 1, 3)), dice.random(), 4.0))
    breaker, gate, now_ms = CircuitBreaker(policy.breaker, policy.concurrency, 0), Gate(policy), 0
    causes = [*BAD, Cause.RESTART]
    for _ in range(1_000):
        now_ms += dice.choice((0, 0, 1, 100, 5_000))
        wait_ms = breaker.wait_ms(now_ms, len(gate.out))
        assert (wait_ms is None) != gate.may_hand_over
        assert wait_ms is None or now_ms + wait_ms <= max(gate.free_ms + 1, now_ms)
        number = dice.randrange(1, 100)
        if wait_ms == 0 and number not in gate.out:
            breaker.handed_over(number, now_ms)
            gate.saw(Repeated(number, b"", 0), now_ms)
        elif gate.out:
            number = dice.choice(sorted(gate.out))
            cause = None if dice.random() < 0.3 else dice.choice(causes)
            held = gate.held
            stage = breaker.ended(number, cause, "", now_ms, dice.random)
            gate.saw(Deleted(number) if cause is None else Stored(number, 0, cause), now_ms)
            assert (stage is Stage.CLOSED) == (held and not gate.held)
            assert stage is not Stage.OPEN or gate.held


# -- in a node ------------------------------------------------------------------------------------------------------


async def _due(world: World, number: int, count: int) -> None:
    node = world.node
    owner = node.presence.attach()
    for _ in range(count):
        node.store(node.new(owner, number, [b"record"]), 0)
    await world.pass_time(0.01)


def _out(world: World, number: int = 7) -> list[Hold]:
    return [handover.hold for handover in world.route(number).given if not handover.hold.ended]


def test_a_handler_that_fails_everything_is_left_alone_and_its_sessions_keep_their_attempts(
    jump: Jump, clock: JumpClock
) -> None:
    async def main() -> None:
        world = World(kind(), kind(8), clock=clock)
        node = await world.start()
        await _due(world, 7, 1_000)
        route = world.route(7)
        while node.dispatcher.lanes[7].breaker.stage is not Stage.OPEN:
            for hold in _out(world):
                node.fail(hold, "no")
            await world.durable()
        assert len(route.given) <= 10 + 8
        await world.pass_time(0.01)
        opened_ms, before = clock.steady_ms(), len(route.given)
        tried_ms = []
        while clock.steady_ms() < opened_ms + 100_000:
            await world.pass_time(0.005)
            out = _out(world)
            assert len(out) <= 1, "one session is tried, not more"
            if out:
                tried_ms.append(clock.steady_ms())
                node.fail(out[0], "no")
        assert before + 4 <= len(route.given) == before + len(tried_ms) <= before + 40
        assert sum(head.attempts for head in node.machine.scan()) == len(route.given)
        await _due(world, 8, 1)
        assert len(_out(world, 8)) == 1  # the breaker of one kind is nobody else's
        assert [event for event, _ in world.told if event == "handler in trouble, left alone"]
        status = node.dispatcher.lanes[7].breaker
        assert (status.failures, status.cause, status.detail) == (len(route.given), Cause.FAILED, "no")
        assert status.until_ms is not None
        await world.pass_time((status.until_ms - clock.now_ms()) / 1000 + 0.01)
        node.delete(_out(world)[0])
        assert world.told[-1] == ("handler works again", {"kind": 7, "name": "kind-7"})
        for room in (1, 2, 4, 8, 8):
            await world.pass_time(0.01)
            assert len(_out(world)) == room
            for hold in _out(world):
                node.delete(hold)

    jump(main())


def test_the_alarm_rings_when_the_breaker_lets_one_through_whatever_the_wall_clock_does(
    jump: Jump, clock: JumpClock
) -> None:
    async def main() -> None:
        world = World(kind(breaker=Breaker(1, 0.9, 0.9)), clock=clock)
        node = await world.start()
        await _due(world, 7, 20)
        for jump_ms in (0, -3_600_000, 86_400_000):
            for hold in _out(world):
                node.fail(hold)
            status = node.dispatcher.lanes[7].breaker
            assert status.until_ms is not None
            wait_ms = status.until_ms - clock.now_ms()
            clock.wall_ms += jump_ms
            until_ms = clock.steady_ms() + wait_ms
            await world.pass_time(wait_ms / 1000 - 0.001)
            assert not _out(world)
            await world.pass_time(0.003)
            if jump_ms >= 0:
                assert len(_out(world)) == 1, f"{clock.steady_ms() - until_ms} ms late"
            else:  # by the wall clock nothing is due any more
                clock.wall_ms -= jump_ms
                await world.pass_time(1.1)

    jump(main())


def test_a_route_that_takes_nothing_costs_no_attempts_and_is_tried_at_the_pace_of_the_breaker(
    jump: Jump, clock: JumpClock
) -> None:
    async def main() -> None:
        world = World(kind(backoff=Backoff(0, 1, 0)), clock=clock)
        await world.start()
        world.route(7).reachable = False
        await _due(world, 7, 100)
        await world.pass_time(600)
        heads = list(world.node.machine.scan())
        assert {head.attempts for head in heads} == {0}
        assert sum(head.deliveries for head in heads) < 100
        assert world.node.dispatcher.lanes[7].breaker.cause is Cause.UNREACHABLE
        world.route(7).reachable = True
        await world.pass_time(31)
        assert len(_out(world)) == 1

    jump(main())


def test_a_kind_that_is_paused_waits_for_whoever_paused_it(jump: Jump, clock: JumpClock) -> None:
    async def main() -> None:
        world = World(kind(), kind(8), clock=clock)
        node = await world.start()
        node.operators.pause(7, True)
        await _due(world, 7, 3)
        await _due(world, 8, 3)
        await world.pass_time(3_600)
        assert not world.route(7).given
        assert len(world.route(8).given) >= 3
        node.operators.pause(7, False)
        await world.pass_time(0)
        await world.durable()
        assert len(_out(world, 7)) == 3

    jump(main())


def test_a_rate_holds_however_much_is_due_and_is_used(jump: Jump, clock: JumpClock) -> None:
    async def main() -> None:
        world = World(kind(rate_per_s=50, concurrency=10_000, handler_timeout_s=10_000), clock=clock)
        await world.start()
        await _due(world, 7, 1_000)
        at_ms = world.route(7).given_at_ms
        assert len(at_ms) == 50  # one second's worth at once
        await world.pass_time(10)
        assert 540 <= len(at_ms) <= 551
        assert all(at_ms[at + 60] - at_ms[at] >= 190 for at in range(len(at_ms) - 60))
        clock.wall_ms -= 86_400_000  # the rate goes by the time that passes
        await world.pass_time(1)
        clock.wall_ms += 86_400_000
        await world.pass_time(10)
        assert len(at_ms) == 1_000

    jump(main())
