"""What the node does when something is wrong: with an owner, with the store, or with how much comes at once."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Iterator

import pytest

from tests.node.test_life import TOKEN, kind
from tests.node.world import World
from truba.errors import BadRequest, DataDamaged, DataUnwritable, Fenced
from truba.node.checkpoint import Checkpointer
from truba.node.presence import LOST_AT_ONCE, LOST_AT_START
from truba.node.session import LocalSession
from truba.ports.store import Head
from truba.testing.jump import JumpClock
from truba.types import Cause, Phase

Jump = Callable[[Coroutine[object, object, None]], None]


def test_superseded_owner_opens_no_session_that_nobody_would_give_back(jump: Jump, clock: JumpClock) -> None:
    async def main() -> None:
        world = World(kind(), clock=clock)
        node = await world.start()
        old, new = node.presence.attach(), node.presence.attach()
        node.presence.name_owner(old, TOKEN, 10_000)
        node.presence.name_owner(new, TOKEN, 10_000)
        with pytest.raises(Fenced):
            node.new(old, 7, [b"a"])
        with pytest.raises(BadRequest):
            node.presence.name_owner(old, b"another token, 16 bytes", 0)
        node.presence.name_owner(old, TOKEN, 10_000)  # and the other way round
        hold = node.new(old, 7, [b"a"])
        with pytest.raises(Fenced):
            node.new(new, 7, [b"a"])
        node.presence.detach(new)
        node.presence.detach(old)
        await world.pass_time(20)
        assert [handover.hold.id for handover in world.route(7).given] == [hold.id]

    jump(main())


def test_graces_end_each_at_its_own_time(jump: Jump, clock: JumpClock) -> None:
    async def main() -> None:
        world = World(kind(recovery_delay_s=0), clock=clock)
        node = await world.start()
        for number, grace_s in enumerate((30, 10, 20)):
            owner = node.presence.attach()
            node.presence.name_owner(owner, b"token %d, sixteen bytes" % number, grace_s * 1000)
            node.new(owner, 7, [b"%d" % grace_s])
            node.presence.detach(owner)
        back = node.presence.attach()
        assert len(node.presence.name_owner(back, b"token 2, sixteen bytes", 1000)) == 1
        for seconds, expected in ((9.5, []), (1, [b"10"]), (10, [b"10"]), (10, [b"10", b"30"])):
            await world.pass_time(seconds)
            assert [handover.records[0] for handover in world.route(7).given] == expected

    jump(main())


def test_a_short_grace_ends_in_time_too(jump: Jump, clock: JumpClock) -> None:
    """Not only when somebody looks at the clocks the next time."""

    async def main() -> None:
        world = World(kind(recovery_delay_s=0, jitter_s=0), clock=clock)
        node = await world.start()
        owner = node.presence.attach()
        node.presence.name_owner(owner, b"sixteen bytes or more", 250)
        node.new(owner, 7, [b"a"])
        await world.durable()
        left_ms = clock.now_ms()
        node.presence.detach(owner)
        await world.pass_time(0.9)
        assert [at_ms - left_ms for at_ms in world.route(7).given_at_ms] == [250]

    jump(main())


def test_a_handler_has_its_whole_time_from_when_it_was_told(jump: Jump, clock: JumpClock) -> None:
    """Not from when the disk began to write that it would be."""

    async def main() -> None:
        world = World(kind(handler_timeout_s=10), clock=clock)
        node = await world.start()
        node.store(node.new(node.presence.attach(), 7, [b"a"]), 500)
        await world.durable()
        world.log.held = True  # a disk that takes four seconds
        await world.pass_time(4.5)
        world.log.held = False
        world.log.release()
        [handover] = world.route(7).given
        await world.pass_time(9.5)
        assert handover.hold.ended == ""
        await world.pass_time(1)
        assert handover.hold.ended == "taken"

    jump(main())


def test_a_hung_session_is_noticed_beside_a_busy_one(jump: Jump, clock: JumpClock) -> None:
    async def main() -> None:
        world = World(kind(idle_timeout_s=10), clock=clock)
        node = await world.start()
        owner = node.presence.attach()
        busy, hung = node.new(owner, 7, [b"busy"]), node.new(owner, 7, [b"hung"])
        for _ in range(11):
            node.touch(busy)
            await world.pass_time(1)
        assert (busy.ended, hung.ended) == ("", "taken")

    jump(main())


def test_damage_found_on_the_way_to_a_handler_stops_the_node(jump: Jump, clock: JumpClock) -> None:
    async def main() -> None:
        world = World(kind(), clock=clock)
        node = await world.start()
        owner = node.presence.attach()
        node.store(node.new(owner, 7, [b"a"]), 1000)
        await world.durable()
        await node.checkpoint()
        world.store.chunk = _damaged  # type: ignore[method-assign]
        bystander = LocalSession(node, node.new(owner, 7, []))
        await world.pass_time(3)
        assert isinstance(node.failed.result(), DataDamaged)
        assert not world.route(7).given
        with pytest.raises(Exception, match="the log has failed"):
            await bystander.append(b"b")

    jump(main())


def test_a_log_that_failed_while_nobody_wrote_ends_the_node(jump: Jump, clock: JumpClock) -> None:
    """Else an idle pipe stays up, takes connections, and can hand over nothing for ever."""

    async def main() -> None:
        world = World(kind(), clock=clock)
        node = await world.start()
        world.log.fail(OSError(5, "Input/output error"))
        await world.pass_time(1.5)
        assert "Input/output error" in str(node.failed.result())

    jump(main())


def test_a_connection_lost_after_the_end_changes_nothing(jump: Jump, clock: JumpClock) -> None:
    async def main() -> None:
        world = World(kind(), clock=clock)
        node = await world.start()
        few, many = node.presence.attach(), node.presence.attach()
        node.new(few, 7, [b"a"])
        for _ in range(2 * LOST_AT_ONCE):
            node.new(many, 7, [b"a"])
        await world.durable()
        troubles: list[dict[str, object]] = []
        asyncio.get_running_loop().set_exception_handler(lambda _loop, context: troubles.append(context))
        node.presence.detach(many)  # the second half would follow in a later turn
        node.sequencer.close()
        node.presence.detach(few)
        await world.durable()
        await node.stop()
        assert not troubles
        assert len(few.holds) == 1

    jump(main())


def test_a_store_that_cannot_be_read_is_a_refusal_to_start(jump: Jump, clock: JumpClock) -> None:
    async def main() -> None:
        world = World(kind(), clock=clock)

        def owned() -> Iterator[Head]:
            raise OSError(5, "Input/output error")

        world.store.owned = owned  # type: ignore[method-assign]
        with pytest.raises(DataUnwritable, match=r"cannot be recovered: .*Input/output error"):
            await world.start()

    jump(main())


def _damaged(number: int, first: int) -> list[bytes]:
    raise KeyError(number)


def test_more_than_a_batch_in_one_turn(jump: Jump, clock: JumpClock) -> None:
    async def main() -> None:
        world = World(kind(), clock=clock)
        node = await world.start()
        owner = node.presence.attach()
        sessions = [LocalSession(node, node.new(owner, 7, [])) for _ in range(10_000)]
        await asyncio.gather(*(session.append(b"a") for session in sessions))
        assert node.machine.counts[7, Phase.ACTIVE] == len(sessions)

    jump(main())


def test_a_hundred_thousand_due_at_once_are_handed_over_bit_by_bit(jump: Jump, clock: JumpClock) -> None:
    async def main() -> None:
        world = World(kind(concurrency=500), kind(8), clock=clock)
        node = await world.start()
        owner = node.presence.attach()
        for at in range(20_000):
            node.store(node.new(owner, 7, [b"a"]), 1000)
            if at % 4000 == 0:
                await world.durable()
        node.store(node.new(owner, 8, [b"b"]), 1000)
        await world.pass_time(1.5)
        assert len(world.route(7).given) == 500
        assert len(world.route(8).given) == 1
        done = 0
        while done < 2000:
            node.delete(world.route(7).given[done].hold)
            done += 1
            if done % 250 == 0:
                await world.pass_time(0.01)
                assert len(world.route(7).given) == 500 + done
        orders = [handover.hold.number for handover in world.route(7).given]
        assert orders == sorted(orders)

    jump(main())


def test_unreachable_is_not_an_attempt_but_lost_is(jump: Jump, clock: JumpClock) -> None:
    async def main() -> None:
        world = World(kind(), clock=clock)
        node = await world.start()
        hold = node.new(node.presence.attach(), 7, [b"a"])
        node.store(hold, 0)
        route = world.route(7)
        await world.pass_time(0.1)
        node.give_back(route.given[0].hold, Cause.LOST)
        assert (node.look_up(hold.id).attempts, node.look_up(hold.id).deliveries) == (1, 1)
        route.reachable = False
        await world.pass_time(5)
        route.reachable = True
        await world.pass_time(101)
        assert route.given[1].attempt == 2
        assert node.look_up(hold.id).deliveries > 2

    jump(main())


def test_operators_hear_of_failed_hand_overs_parked_sessions_and_a_full_disk(jump: Jump, clock: JumpClock) -> None:
    async def main() -> None:
        world = World(kind(max_attempts=2, max_age_s=1000), clock=clock)
        node = await world.start()
        owner = node.presence.attach()
        failing, old = node.new(owner, 7, [b"secret"]), node.new(owner, 7, [b"secret"])
        node.store(failing, 0)
        node.store(old, 2_000_000)
        for _ in range(2):
            await world.pass_time(5)
            node.fail(world.route(7).given[-1].hold, "no such account")
        await world.pass_time(3000)
        assert [event for event, _ in world.told] == ["hand-over failed", "session parked", "session parked"]
        told = world.told[0][1]
        assert told == {"session": str(failing.id), "kind": 7, "cause": "failed", "detail": "no such account"}
        assert world.told[2][1]["session"] == str(old.id)
        assert "secret" not in str(world.told)
        world.log.space = "low"
        await world.pass_time(2)
        assert world.told[-1][1]["space"] == "low"

    jump(main())


def test_owner_that_held_very_many_is_lost_bit_by_bit_and_wholly(jump: Jump, clock: JumpClock) -> None:
    async def main() -> None:
        world = World(kind(recovery_delay_s=1000), clock=clock)
        node = await world.start()
        owner = node.presence.attach()
        for _ in range(3000):
            node.new(owner, 7, [b"a"])
        await world.durable()
        node.presence.detach(owner)
        assert 0 < node.machine.counts[7, Phase.STORED] < 3000
        await world.pass_time(1)
        assert node.machine.counts == {(7, Phase.STORED): 3000}
        assert node.presence.losses == 3000

    jump(main())


def test_very_many_holds_that_end_at_once_let_others_have_their_turns(jump: Jump, clock: JumpClock) -> None:
    async def main() -> None:
        world = World(kind(idle_timeout_s=10), clock=clock)
        node = await world.start()
        owner = node.presence.attach()
        count = 3 * LOST_AT_ONCE + 1
        for _ in range(count):
            node.new(owner, 7, [b"a"])
        await world.durable()
        left = await _left_by_turns(clock, 10, lambda: len(owner.holds))
        assert left == [count, count - LOST_AT_ONCE, count - 2 * LOST_AT_ONCE, 1, 0]
        assert node.machine.counts == {(7, Phase.STORED): count}

    jump(main())


def test_very_many_owners_that_do_not_come_back_let_others_have_their_turns(jump: Jump, clock: JumpClock) -> None:
    async def main() -> None:
        world = World(kind(), clock=clock)
        node = await world.start()
        count = 2 * LOST_AT_ONCE + 1
        for number in range(count):
            owner = node.presence.attach()
            node.presence.name_owner(owner, b"a token of owner %016d" % number, 10_000)
            node.new(owner, 7, [b"a"])
            node.presence.detach(owner)
        await world.durable()
        left = await _left_by_turns(clock, 10, lambda: len(node.machine.owned))
        assert left == [count, count - LOST_AT_ONCE, 1, 0]
        assert node.machine.counts == {(7, Phase.STORED): count}

    jump(main())


def test_what_ends_by_itself_waits_for_a_checkpoint_that_is_behind(
    jump: Jump, clock: JumpClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def main() -> None:
        world = World(kind(idle_timeout_s=10), clock=clock)
        node = await world.start()
        idle, gone = node.presence.attach(), node.presence.attach()
        node.presence.name_owner(gone, b"a token of sixteen bytes", 5_000)
        node.new(idle, 7, [b"a"])
        node.new(gone, 7, [b"a"])
        node.presence.detach(gone)
        ticks = 0
        expire = node._expire  # noqa: SLF001 - how often time is looked at

        def counted() -> None:
            nonlocal ticks
            ticks += 1
            expire()

        monkeypatch.setattr(node, "_expire", counted)
        monkeypatch.setattr(Checkpointer, "behind", True)
        await world.pass_time(11)
        assert node.machine.counts == {(7, Phase.ACTIVE): 2}
        assert ticks < 2_000, "the loop does nothing else"
        monkeypatch.setattr(Checkpointer, "behind", False)
        await world.pass_time(0.02)
        assert node.machine.counts == {(7, Phase.STORED): 2}

    jump(main())


def test_many_owners_that_are_lost_in_one_turn_take_theirs(jump: Jump, clock: JumpClock) -> None:
    async def main() -> None:
        world = World(kind(), clock=clock)
        node = await world.start()
        few, *many = (node.presence.attach() for _ in range(5))
        for owner in many:
            for _ in range(LOST_AT_ONCE):
                node.new(owner, 7, [b"a"])
        node.new(few, 7, [b"a"])
        await world.durable()
        left = list[int]()
        for owner in (few, *many):
            node.presence.detach(owner)
        while not left or left[-1]:
            left.append(len(node.machine.owned))
            await asyncio.sleep(0)
            assert len(left) < 100
        assert list(dict.fromkeys(left)) == [3 * LOST_AT_ONCE, 2 * LOST_AT_ONCE, LOST_AT_ONCE, 0]
        assert node.presence.losses == 4 * LOST_AT_ONCE + 1

    jump(main())


def test_what_a_lost_owner_held_goes_no_faster_than_the_disk(jump: Jump, clock: JumpClock) -> None:
    """Else one batch has nearly all, and so has the checkpoint that begins behind it."""

    async def main() -> None:
        world = World(kind(), clock=clock)
        node = await world.start()
        owner = node.presence.attach()
        for _ in range(3 * LOST_AT_ONCE):
            node.new(owner, 7, [b"a"])
        await world.durable()
        world.log.held = True
        node.presence.detach(owner)
        for _ in range(20):
            await asyncio.sleep(0)
        assert len(node.machine.owned) == 2 * LOST_AT_ONCE
        world.log.release(1)
        for _ in range(20):
            await asyncio.sleep(0)
        assert len(node.machine.owned) == LOST_AT_ONCE
        world.log.release(1)
        for _ in range(20):
            await asyncio.sleep(0)
        assert not node.machine.owned

    jump(main())


def test_a_start_does_not_wait_until_very_many_sessions_are_given_back(jump: Jump, clock: JumpClock) -> None:
    async def main() -> None:
        world = World(kind(), clock=clock)
        node = await world.start()
        count = LOST_AT_START + 2 * LOST_AT_ONCE + 1
        owner = node.presence.attach()
        for _ in range(count):
            node.new(owner, 7, [b"a"])
        await world.durable()
        node = await world.crash()
        assert node.machine.counts == {(7, Phase.STORED): LOST_AT_START, (7, Phase.ACTIVE): count - LOST_AT_START}
        client = node.presence.attach()
        hold = node.new(client, 7, [b"served meanwhile"])
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        await world.durable()
        # Killed half-way: the next start goes on with those that are left.
        assert 0 < node.machine.counts[7, Phase.ACTIVE] < count - LOST_AT_START + 1
        node.delete(hold)
        await world.durable()
        node = await world.crash()
        await world.pass_time(4.9)
        assert node.machine.counts == {(7, Phase.STORED): count}
        assert not world.route(7).given
        await world.pass_time(0.2)
        assert world.route(7).given, "the rest comes due without anybody's help"

    jump(main())


async def _left_by_turns(clock: JumpClock, seconds: float, count: Callable[[], int]) -> list[int]:
    """The different counts that another task sees, turn by turn of the loop, around a time from now."""
    seen = [count()]
    until_s = clock.steady_s + seconds + 1
    while count() == seen[0] and clock.steady_s < until_s:  # noqa: ASYNC110 - nobody tells
        await asyncio.sleep(0.001)
    for _ in range(100):  # time stands still from here on
        if count() != seen[-1]:
            seen.append(count())
        await asyncio.sleep(0)
    return seen


def test_a_node_that_has_stopped_looks_at_no_clock_any_more(jump: Jump, clock: JumpClock) -> None:
    """What was lost with its last owners, in slices, was due soon; the alarm was set for that, and then again."""

    async def main() -> None:
        world = World(kind(recovery_delay_s=0.5), clock=clock)
        node = await world.start()
        owner = node.presence.attach()
        for _ in range(LOST_AT_ONCE + 1):
            node.new(owner, 7, [b"a"])
        await world.durable()
        world.log.held = True
        node.presence.detach(owner)
        stopping = asyncio.create_task(node.stop())
        await world.pass_time(0.01)
        world.log.held = False
        world.log.release()
        await stopping
        assert not [timer for timer in asyncio.get_running_loop()._scheduled if not timer.cancelled()]  # type: ignore[attr-defined] # noqa: SLF001
        assert not node.failed.done()

    jump(main())
