"""The life of a session through a whole node: who may write, who is lost when, who is handed what."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine

import pytest

from tests.node.world import PlayedRoute, World, nobody
from truba.errors import BadRequest, Busy, Closed, ConfigError, Fenced, NoSession, TooBig, Unavailable, UnknownOutcome
from truba.kinds import Backoff, Kind
from truba.log.memory import MemoryLog
from truba.node.node import Limits
from truba.node.session import LocalSession
from truba.testing.jump import JumpClock
from truba.types import Cause, Phase

Jump = Callable[[Coroutine[object, object, None]], None]
TOKEN = b"a token of sixteen bytes or more"
OTHER = b"another token of sixteen bytes.."


def kind(number: int = 7, **policy: object) -> Kind:
    defaults: dict[str, object] = {"recovery_delay_s": 5, "jitter_s": 0, "backoff": Backoff(1, 2, 100)}
    return Kind(number, f"kind-{number}", nobody, **(defaults | policy))  # type: ignore[arg-type]


def test_g4_lost_owner_is_handed_over_after_the_recovery_delay_never_earlier(jump: Jump, clock: JumpClock) -> None:
    async def main() -> None:
        world = World(kind(), clock=clock)
        node = await world.start()
        owner = node.presence.attach()
        hold = node.new(owner, 7, [b"debit 5"])
        node.append(hold, [b"debited", b"credit 5"])
        await world.durable()
        lost_at_ms = clock.now_ms()
        node.presence.detach(owner)
        await world.pass_time(4.9)
        assert not world.route(7).given
        await world.pass_time(0.2)
        (handover,) = world.route(7).given
        assert handover.records == [b"debit 5", b"debited", b"credit 5"]
        assert (handover.attempt, handover.cause, handover.hold.epoch) == (1, Cause.LOST, 1)
        assert world.route(7).given_at_ms[0] - lost_at_ms >= 5000

    jump(main())


def test_session_lost_without_a_record_is_gone(jump: Jump, clock: JumpClock) -> None:
    async def main() -> None:
        world = World(kind(), clock=clock)
        node = await world.start()
        owner = node.presence.attach()
        hold = node.new(owner, 7, [])
        node.presence.detach(owner)
        await world.durable()
        with pytest.raises(NoSession):
            node.look_up(hold.id)

    jump(main())


def test_g3_write_of_an_owner_whose_session_was_handed_over_is_refused(jump: Jump, clock: JumpClock) -> None:
    async def main() -> None:
        world = World(kind(idle_timeout_s=10), clock=clock)
        node = await world.start()
        owner = node.presence.attach()
        hold = node.new(owner, 7, [b"a"])
        await world.pass_time(16)
        (handover,) = world.route(7).given
        assert handover.cause is Cause.IDLE
        for write in (
            lambda: node.append(hold, [b"late"]),
            lambda: node.replace(hold, b"late"),
            lambda: node.delete(hold),
            lambda: node.store(hold, 0),
            lambda: node.fail(hold),
            lambda: node.touch(hold),
        ):
            with pytest.raises(Fenced):
                write()
        node.append(handover.hold, [b"by the handler"])
        assert node.machine.records(hold.number) == [b"a", b"by the handler"]

    jump(main())


def test_any_operation_renews_the_idle_timeout(jump: Jump, clock: JumpClock) -> None:
    async def main() -> None:
        world = World(kind(idle_timeout_s=10), clock=clock)
        node = await world.start()
        hold = node.new(node.presence.attach(), 7, [b"a"])
        for act in (node.touch, lambda h: node.append(h, [b"b"]), lambda h: node.replace(h, b"c"), node.touch):
            await world.pass_time(9)
            act(hold)
        await world.pass_time(9)
        assert not hold.ended
        await world.pass_time(2)
        assert hold.ended

    jump(main())


def test_closed_is_told_from_fenced_and_from_unknown(jump: Jump, clock: JumpClock) -> None:
    async def main() -> None:
        world = World(kind(), clock=clock)
        node = await world.start()
        owner, stranger = node.presence.attach(), node.presence.attach()
        gone = node.new(owner, 7, [b"a"])
        kept = node.new(owner, 7, [b"a"])
        node.delete(gone)
        node.store(kept, 1000)
        for hold in (gone, kept):
            with pytest.raises(Closed):
                node.find(owner, hold.id_text)
            with pytest.raises(Closed):
                node.append(hold, [b"more"])
        with pytest.raises(NoSession):
            node.find(stranger, gone.id_text)
        with pytest.raises(Fenced):
            node.find(stranger, kept.id_text)
        with pytest.raises(NoSession):
            node.find(owner, b"9-99999")
        with pytest.raises(BadRequest):
            node.find(owner, b"nonsense")

    jump(main())


def test_late_handler_loses_the_session_and_an_id_without_epoch_becomes_ambiguous(jump: Jump, clock: JumpClock) -> None:
    async def main() -> None:
        world = World(kind(handler_timeout_s=30, backoff=Backoff(0, 1, 0)), clock=clock)
        node = await world.start()
        first = node.new(node.presence.attach(), 7, [b"a"])
        node.store(first, 0)
        await world.pass_time(0.1)
        (one,) = world.route(7).given
        await world.pass_time(31)
        assert world.route(7).taken_away == [(one.hold, Cause.LATE)]
        two = world.route(7).given[1]
        assert (two.attempt, two.cause, two.hold.epoch) == (2, Cause.LATE, 2)
        handler = two.hold.owner
        with pytest.raises(Fenced):
            node.find(handler, first.id_text)
        with pytest.raises(Fenced):
            node.find(handler, first.id_text + b"@1")
        assert node.find(handler, first.id_text + b"@2") is two.hold
        with pytest.raises(Fenced):
            node.append(one.hold, [b"by the late task"])

    jump(main())


def test_failures_back_off_count_attempts_and_end_in_the_park(jump: Jump, clock: JumpClock) -> None:
    async def main() -> None:
        world = World(kind(max_attempts=3), clock=clock)
        node = await world.start()
        hold = node.new(node.presence.attach(), 7, [b"a"])
        node.store(hold, 0)
        route = world.route(7)
        for attempt in (1, 2, 3):
            await world.pass_time(20)
            assert [handover.attempt for handover in route.given] == list(range(1, attempt + 1))
            node.fail(route.given[-1].hold, f"error {attempt}")
        await world.pass_time(100_000)
        head = node.look_up(hold.id)
        assert (head.phase, head.attempts, head.deliveries, head.cause) == (Phase.PARKED, 3, 3, Cause.FAILED)
        assert "max_attempts is 3" in head.detail
        assert "error 3" in head.detail
        assert len(route.given) == 3
        node.operators.resume(hold.id)
        await world.pass_time(1)
        assert (route.given[-1].attempt, route.given[-1].cause) == (1, Cause.RESUMED)

    jump(main())


def test_outage_of_the_handler_uses_up_no_attempts(jump: Jump, clock: JumpClock) -> None:
    async def main() -> None:
        world = World(kind(max_attempts=2), clock=clock)
        node = await world.start()
        hold = node.new(node.presence.attach(), 7, [b"a"])
        node.store(hold, 0)
        route = world.route(7)
        route.reachable = False
        await world.pass_time(3600)
        head = node.look_up(hold.id)
        assert head.phase in (Phase.STORED, Phase.REPEATING)
        assert head.attempts == 0
        assert head.deliveries > 10
        route.up = False
        await world.pass_time(3600)
        deliveries = node.look_up(hold.id).deliveries
        await world.pass_time(3600)
        assert node.look_up(hold.id).deliveries == deliveries
        route.up = route.reachable = True
        route.wake()
        await world.pass_time(101)
        assert route.given[0].attempt == 1

    jump(main())


def test_session_over_its_age_is_parked_not_handed_over(jump: Jump, clock: JumpClock) -> None:
    async def main() -> None:
        world = World(kind(max_age_s=100), clock=clock)
        node = await world.start()
        hold = node.new(node.presence.attach(), 7, [b"a"])
        node.store(hold, 200_000)
        await world.pass_time(300)
        assert not world.route(7).given
        assert node.look_up(hold.id).phase is Phase.PARKED
        assert "max_age" in node.look_up(hold.id).detail

    jump(main())


def test_order_is_by_due_time_then_by_the_order_stored(jump: Jump, clock: JumpClock) -> None:
    async def main() -> None:
        world = World(kind(concurrency=1), clock=clock)
        node = await world.start()
        owner = node.presence.attach()
        holds = {name: node.new(owner, 7, [name.encode()]) for name in ("late", "second", "third", "first")}
        node.store(holds["late"], 900)
        node.store(holds["second"], 500)
        node.store(holds["third"], 500)
        node.store(holds["first"], 100)
        for _ in holds:
            await world.pass_time(2)
            node.delete(world.route(7).given[-1].hold)
        assert [handover.records[0] for handover in world.route(7).given] == [b"first", b"second", b"third", b"late"]

    jump(main())


def test_g8_dead_handler_of_one_kind_does_not_delay_another(jump: Jump, clock: JumpClock) -> None:
    async def main() -> None:
        world = World(kind(1), kind(2), clock=clock)
        node = await world.start()
        world.route(1).up = False
        owner = node.presence.attach()
        for _ in range(500):
            node.store(node.new(owner, 1, [b"a"]), 0)
        node.store(node.new(owner, 2, [b"b"]), 0)
        await world.pass_time(0.01)
        assert len(world.route(2).given) == 1
        assert not world.route(1).given
        world.route(1).up = True
        world.route(1).wake()
        await world.pass_time(0.01)
        assert len(world.route(1).given) == 64  # the kind's concurrency

    jump(main())


def test_concurrency_bounds_what_is_out_and_each_end_makes_room(jump: Jump, clock: JumpClock) -> None:
    async def main() -> None:
        world = World(kind(concurrency=3), clock=clock)
        node = await world.start()
        owner = node.presence.attach()
        for _ in range(10):
            node.store(node.new(owner, 7, [b"a"]), 0)
        route = world.route(7)
        await world.pass_time(0.01)
        for out in range(3, 11):
            assert len(route.given) == out
            ends = (node.delete, lambda h: node.store(h, 10**7), lambda h: node.give_back(h, Cause.LOST))
            ends[out % 3](route.given[out - 3].hold)
            await world.pass_time(0.01)

    jump(main())


def test_owner_that_comes_back_within_its_grace_takes_its_sessions_over(jump: Jump, clock: JumpClock) -> None:
    async def main() -> None:
        world = World(kind(), clock=clock)
        node = await world.start()
        before, after = node.presence.attach(), node.presence.attach()
        assert node.presence.name_owner(before, TOKEN, 10_000) == []
        hold = node.new(before, 7, [b"a"], 1)
        node.append(hold, [b"b"])
        node.replace(hold, b"c")
        node.presence.detach(before)
        await world.pass_time(9)
        assert node.presence.name_owner(after, TOKEN, 10_000) == [(hold.id, 7, 1, 2)]
        node.append(node.find(after, hold.id_text), [b"d"])
        await world.pass_time(60)
        assert node.machine.records(hold.number) == [b"c", b"d"]
        assert not world.route(7).given

    jump(main())


def test_owner_that_comes_back_too_late_finds_nothing(jump: Jump, clock: JumpClock) -> None:
    async def main() -> None:
        world = World(kind(), clock=clock)
        node = await world.start()
        before = node.presence.attach()
        node.presence.name_owner(before, TOKEN, 10_000)
        hold = node.new(before, 7, [b"a"])
        node.presence.detach(before)
        await world.pass_time(11)
        after = node.presence.attach()
        assert node.presence.name_owner(after, TOKEN, 10_000) == []
        with pytest.raises(Fenced):
            node.find(after, hold.id_text)
        await world.pass_time(6)
        assert [handover.cause for handover in world.route(7).given] == [Cause.LOST]

    jump(main())


def test_new_connection_with_the_token_fences_the_old_one_that_is_still_open(jump: Jump, clock: JumpClock) -> None:
    async def main() -> None:
        world = World(kind(), clock=clock)
        node = await world.start()
        old, new = node.presence.attach(), node.presence.attach()
        node.presence.name_owner(old, TOKEN, 10_000)
        hold = node.new(old, 7, [b"a"])
        assert [entry[0] for entry in node.presence.name_owner(new, TOKEN, 10_000)] == [hold.id]
        with pytest.raises(Fenced):
            node.find(old, hold.id_text)
        node.presence.detach(old)
        node.append(node.find(new, hold.id_text), [b"b"])
        await world.pass_time(60)
        assert not node.find(new, hold.id_text).ended

    jump(main())


def test_repeated_new_with_the_same_tag_is_one_session_while_it_is_held(jump: Jump, clock: JumpClock) -> None:
    async def main() -> None:
        world = World(kind(), clock=clock)
        node = await world.start()
        one, other = node.presence.attach(), node.presence.attach()
        node.presence.name_owner(one, TOKEN, 1000)
        node.presence.name_owner(other, OTHER, 1000)
        hold = node.new(one, 7, [b"a"], 5)
        seq = node.machine.seq
        assert node.new(one, 7, [b"a"], 5) is hold
        assert node.machine.seq == seq
        assert node.new(other, 7, [b"a"], 5).id != hold.id
        assert node.new(one, 7, [b"a"], 6).id != hold.id
        node.delete(hold)
        assert node.new(one, 7, [b"a"], 5).id != hold.id

    jump(main())


def test_restart_owners_with_grace_may_come_back_others_are_lost(jump: Jump, clock: JumpClock) -> None:
    async def main() -> None:
        world = World(kind(), clock=clock)
        node = await world.start()
        named, nameless = node.presence.attach(), node.presence.attach()
        node.presence.name_owner(named, TOKEN, 10_000)
        kept = node.new(named, 7, [b"kept"], 3)
        node.append(kept, [b"more"])
        lost = node.new(nameless, 7, [b"lost"])
        await world.durable()
        node = await world.crash()
        assert node.machine.term == 2
        await world.pass_time(6)
        assert [(h.records, h.cause) for h in world.route(7).given] == [([b"lost"], Cause.RESTART)]
        assert world.route(7).given[0].hold.id == lost.id
        again = node.presence.attach()
        assert node.presence.name_owner(again, TOKEN, 10_000) == [(kept.id, 7, 3, 1)]
        node.delete(node.find(again, kept.id_text))

    jump(main())


def test_restart_owner_that_does_not_come_back_is_lost_with_cause_restart(jump: Jump, clock: JumpClock) -> None:
    async def main() -> None:
        world = World(kind(), clock=clock)
        node = await world.start()
        owner = node.presence.attach()
        node.presence.name_owner(owner, TOKEN, 10_000)
        node.new(owner, 7, [b"a"])
        await world.durable()
        await world.crash()
        await world.pass_time(14)
        assert not world.route(7).given
        await world.pass_time(2)
        assert [h.cause for h in world.route(7).given] == [Cause.RESTART]

    jump(main())


@pytest.mark.parametrize("how", ["the same connection", "another connection", "after a restart"])
@pytest.mark.parametrize(("first_s", "last_s"), [(0, 60), (10, 60), (60, 10)])
def test_restart_the_grace_asked_for_last_counts(
    jump: Jump, clock: JumpClock, how: str, first_s: int, last_s: int
) -> None:
    """Of a session that was opened under another grace, and for one that a handler with a name holds."""

    async def main() -> None:
        world = World(kind(recovery_delay_s=0, jitter_s=0), clock=clock)
        node = await world.start()
        owner = node.presence.attach()
        node.presence.name_owner(owner, TOKEN, first_s * 1000)
        hold = node.new(owner, 7, [b"a"])
        await world.durable()
        if how == "after a restart":
            if not first_s:
                return  # then nobody can come back for it
            node = await world.crash()
        if how != "the same connection":
            owner = node.presence.attach()
        assert node.presence.name_owner(owner, TOKEN, last_s * 1000) == [(hold.id, 7, -1, 0)]
        seq = node.machine.seq
        assert node.presence.name_owner(owner, TOKEN, last_s * 1000) == [(hold.id, 7, -1, 0)]
        assert node.machine.seq == seq, "what is so already is not logged again"
        await world.durable()
        await world.crash()
        await world.pass_time(last_s - 1)
        assert not world.route(7).given
        await world.pass_time(2)
        assert [h.cause for h in world.route(7).given] == [Cause.RESTART]

    jump(main())


def test_restart_the_grace_that_a_handler_asked_for_last_counts(jump: Jump, clock: JumpClock) -> None:
    async def main() -> None:
        world = World(kind(handler_timeout_s=3600.0), clock=clock)
        node = await world.start()
        handler = world.route(7).owner
        node.presence.name_owner(handler, TOKEN, 1_000)
        node.store(node.new(node.presence.attach(), 7, [b"a"]), 0)
        await world.pass_time(0.1)
        (given,) = world.route(7).given
        node.presence.name_owner(handler, TOKEN, 60_000)
        await world.durable()
        node = await world.crash()
        await world.pass_time(50)
        assert node.presence.name_owner(node.presence.attach(), TOKEN, 60_000) == [(given.hold.id, 7, -1, 0)]

    jump(main())


def test_a_longer_grace_keeps_a_silent_session_longer(jump: Jump, clock: JumpClock) -> None:
    """As long as the owner may stay away, whatever the idle_timeout, and whichever grace it had at New."""

    async def main() -> None:
        world = World(kind(idle_timeout_s=5.0), clock=clock)
        node = await world.start()
        owner = node.presence.attach()
        node.presence.name_owner(owner, TOKEN, 0)
        hold = node.new(owner, 7, [b"a"])
        node.presence.name_owner(owner, TOKEN, 60_000)
        await world.pass_time(59)
        assert not hold.ended
        await world.pass_time(2)
        assert hold.ended == "taken"

    jump(main())


def test_g5_deleted_session_is_never_handed_over_again(jump: Jump, clock: JumpClock) -> None:
    async def main() -> None:
        world = World(kind(), clock=clock)
        node = await world.start()
        owner = node.presence.attach()
        node.delete(node.new(owner, 7, [b"a"]))
        node.store(node.new(owner, 7, [b"b"]), 0)
        await world.pass_time(0.1)
        node.delete(world.route(7).given[0].hold)
        await world.durable()
        for _ in range(3):
            node = await world.crash()
            await world.pass_time(10_000)
            assert not world.route(7).given
            assert not node.machine.counts

    jump(main())


def test_repeat_is_durable_before_the_handler_hears_of_it(jump: Jump, clock: JumpClock) -> None:
    async def main() -> None:
        world = World(kind(), clock=clock)
        node = await world.start()
        node.store(node.new(node.presence.attach(), 7, [b"a"]), 1000)
        await world.durable()
        world.log.held = True
        await world.pass_time(5)
        assert node.machine.counts[7, Phase.REPEATING] == 1
        assert not world.route(7).given
        world.log.held = False
        world.log.release()
        assert len(world.route(7).given) == 1

    jump(main())


def test_operator_may_remove_and_resume_what_nobody_holds(jump: Jump, clock: JumpClock) -> None:
    async def main() -> None:
        world = World(kind(), clock=clock)
        node = await world.start()
        owner = node.presence.attach()
        held, stored = node.new(owner, 7, [b"a"]), node.new(owner, 7, [b"b"])
        node.store(stored, 10**9)
        for act in (node.operators.remove, node.operators.resume):
            with pytest.raises(Busy):
                act(held.id)
        node.operators.resume(stored.id)
        await world.pass_time(0.1)
        assert [h.cause for h in world.route(7).given] == [Cause.RESUMED]
        node.store(world.route(7).given[0].hold, 10**9)
        node.operators.remove(stored.id)
        with pytest.raises(NoSession):
            node.operators.remove(stored.id)

    jump(main())


def test_full_disk_refuses_growth_but_takes_endings(jump: Jump, clock: JumpClock) -> None:
    async def main() -> None:
        world = World(kind(), clock=clock)
        node = await world.start()
        owner = node.presence.attach()
        node.presence.name_owner(owner, TOKEN, 1_000)
        holds = [node.new(owner, 7, [b"a"]) for _ in range(3)]
        world.log.space = "low"
        seq = node.machine.seq
        for grow in (
            lambda: node.new(owner, 7, []),
            lambda: node.append(holds[0], [b"b"]),
            lambda: node.replace(holds[0], b"b"),
            lambda: node.presence.name_owner(node.presence.attach(), TOKEN, 2_000),  # it would log another grace
        ):
            with pytest.raises(Unavailable, match="nothing was stored"):
                grow()
            assert (node.machine.seq, node.machine.records(holds[0].number)) == (seq, [b"a"])
        assert len(node.presence.name_owner(owner, TOKEN, 1_000)) == 3
        node.delete(holds[0])
        node.store(holds[1], 10**6)
        node.fail(holds[2], "no room")
        world.log.space = "plenty"
        node.new(owner, 7, [])

    jump(main())


@pytest.mark.parametrize(("seconds", "delay_ms"), [(0, 0), (1, 1_000), (1.0004, 1_001), (0.0001, 1), (2.5, 2_500)])
def test_g4_a_fraction_of_a_millisecond_is_waited_for_too(
    jump: Jump, clock: JumpClock, seconds: float, delay_ms: int
) -> None:
    async def main() -> None:
        world = World(kind(), clock=clock)
        node = await world.start()
        session = LocalSession(node, node.new(node.presence.attach(), 7, [b"a"]))
        stored_ms = clock.now_ms()
        await session.store(seconds)
        await world.pass_time(3)
        assert [at_ms - stored_ms for at_ms in world.route(7).given_at_ms] == [delay_ms]

    jump(main())


def test_kind_with_sessions_cannot_leave_the_configuration(jump: Jump, clock: JumpClock) -> None:
    async def main() -> None:
        world = World(kind(1), kind(2), clock=clock)
        node = await world.start()
        node.store(node.new(node.presence.attach(), 2, [b"a"]), 10**6)
        await world.durable()
        world.kinds = (kind(1),)
        with pytest.raises(ConfigError, match="kind 2: 1"):
            await world.crash()

    jump(main())


def test_wall_clock_that_jumps_ahead_or_back_brings_nothing_early(jump: Jump, clock: JumpClock) -> None:
    async def main() -> None:
        world = World(kind(), clock=clock)
        node = await world.start()
        owner = node.presence.attach()
        due_ms = clock.now_ms() + 7200_000
        node.store(node.new(owner, 7, [b"a"]), 7200_000)
        clock.wall_ms -= 86_400_000
        await world.pass_time(3 * 3600)
        assert not world.route(7).given
        clock.wall_ms += 2 * 86_400_000
        await world.pass_time(2)
        assert len(world.route(7).given) == 1
        assert world.route(7).given_at_ms[0] >= due_ms

    jump(main())


def test_a_hand_over_that_is_put_off_costs_no_attempt_and_comes_no_earlier(jump: Jump, clock: JumpClock) -> None:
    async def main() -> None:
        world = World(kind(recovery_delay_s=0, max_attempts=1, jitter_s=2), clock=clock)
        node = await world.start()
        node.store(node.new(node.presence.attach(), 7, [b"a"]), 0)
        delays_ms: list[int] = []
        for round_number in range(1, 4):
            await world.pass_time(0.1)
            handover = world.route(7).given[-1]
            assert (len(world.route(7).given), handover.attempt) == (round_number, 1)
            put_off_at_ms = clock.now_ms()
            node.put_off(handover.hold, 30_000, "busy until the half hour")
            with pytest.raises(Closed):
                node.delete(handover.hold)
            head = node.look_up(handover.hold.id)
            assert (head.phase, head.cause, head.attempts) == (Phase.STORED, Cause.UNREACHABLE, 0)
            assert head.detail == "busy until the half hour"
            delays_ms.append(head.due_ms - put_off_at_ms)
            await world.pass_time(29.9)
            assert len(world.route(7).given) == round_number
            await world.pass_time(2.1)
        assert [event for event, _ in world.told] == ["hand-over failed"] * 3
        assert all(30_000 <= delay_ms <= 32_000 for delay_ms in delays_ms)
        assert len(set(delays_ms)) == 3

    jump(main())


def test_what_fails_in_the_turn_in_which_a_start_is_durable_ends_the_start(jump: Jump, clock: JumpClock) -> None:
    """The first checkpoint of a start, say: nobody is let in, and nothing more is given back."""

    class Held(World):
        def make_log(self) -> MemoryLog:
            return MemoryLog(self.shelf, held=True)

    async def main() -> None:
        world = Held(kind(), clock=clock)
        first = asyncio.create_task(world.start())
        await world.pass_time(0.1)
        world.log.release()
        node = await first
        hold = node.new(node.presence.attach(), 7, [b"a"])
        await world.pass_time(0.1)
        world.log.release()
        starting = asyncio.create_task(world.crash())
        await world.pass_time(0.1)
        world.log.release()  # its term is opened
        await world.pass_time(0.1)
        world.log.release()  # whose owner cannot come back is given back
        world.node.give_up(OSError("the store cannot be written"))
        with pytest.raises(UnknownOutcome, match="the log has failed"):
            await starting
        assert not world.node.accepting
        assert world.node.look_up(hold.id).phase is Phase.STORED

    jump(main())


def test_a_handler_that_does_not_stop_cleanly_holds_up_nobody_else(jump: Jump, clock: JumpClock) -> None:
    """A transport may be one of the user's own."""

    class Falling(PlayedRoute):
        async def stop(self) -> None:
            raise ConnectionError("half closed")

    class Place(World):
        def make_route(self) -> PlayedRoute:
            made.append(Falling() if not made else PlayedRoute())
            return made[-1]

    made: list[PlayedRoute] = []

    async def main() -> None:
        world = Place(kind(7), kind(8), clock=clock)
        node = await world.start()
        await node.stop()
        assert world.route(8).stopped
        assert world.store.summary.applied.seq == node.machine.seq
        told = {"state": "up", "error": "ConnectionError('half closed')"}
        assert world.told == [("handler not let go of cleanly", told)]

    jump(main())


def test_an_operation_that_no_batch_could_hold_is_refused(jump: Jump, clock: JumpClock) -> None:
    """Whoever writes from within this process is bounded by no request."""

    async def main() -> None:
        world = World(kind(), limits=Limits(write_bytes_max=100), clock=clock)
        node = await world.start()
        owner = node.presence.attach()
        hold = node.new(owner, 7, [bytes(50), bytes(50)])
        seq = node.machine.seq
        for too_much in (
            lambda: node.new(owner, 7, [bytes(50), bytes(51)]),
            lambda: node.append(hold, [bytes(50), bytes(51)]),
            lambda: node.append(hold, [bytes(101)]),
            lambda: node.replace(hold, bytes(101)),
        ):
            with pytest.raises(TooBig, match="101 bytes of records at once; 100 at most; nothing was stored"):
                too_much()
        assert node.machine.seq == seq
        node.append(hold, [bytes(100)])
        node.replace(hold, bytes(100))
        await node.stop()

    jump(main())
