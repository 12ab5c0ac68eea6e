"""One connection that asks without end gets a little done in each turn of the loop, and the others their answers."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine

import hiredis
import pytest

from tests.node.test_life import TOKEN
from tests.node.world import World, nobody
from tests.wire.played import Played
from truba.client.requests import encode
from truba.kinds import Kind
from truba.node.presence import MOVED_AT_ONCE
from truba.testing.jump import JumpClock
from truba.wire.connection import REQUEST_BYTES, TURN_BYTES_MAX, Connection, WireSettings
from truba.wire.verbs import VERBS

Jump = Callable[[Coroutine[object, object, None]], None]


def connect(world: World, output_bytes_max: int = 1 << 20) -> tuple[Connection, Played]:
    connection = Connection(world.node, VERBS, WireSettings(output_bytes_max=output_bytes_max), lambda _: None)
    transport = Played()
    connection.connection_made(transport)
    return connection, transport


PINGS = 5_000
EACH = len(b"+PONG\r\n") + REQUEST_BYTES


def test_a_flood_is_served_bit_by_bit_and_others_between(jump: Jump, clock: JumpClock) -> None:
    async def main() -> None:
        world = World(Kind(7, "transfer", nobody), clock=clock)
        await world.start()
        (loud, loud_out), (other, other_out) = connect(world), connect(world)
        loud.data_received(encode(b"PING") * PINGS)
        turns = 0
        while len(loud_out.written) < PINGS * 7:
            assert not loud_out.reads, "more is read before this is answered"
            assert len(loud_out.written) // 7 <= (turns + 1) * (TURN_BYTES_MAX // EACH + 1)
            other.data_received(encode(b"PING"))
            turns += 1
            assert turns < PINGS, "the rest is never answered"
            assert len(other_out.written) == turns * 7
            await asyncio.sleep(0)
        assert turns >= PINGS * EACH // TURN_BYTES_MAX - 1
        assert loud_out.written == b"+PONG\r\n" * PINGS
        assert loud_out.reads

    jump(main())


@pytest.mark.parametrize("output_bytes_max", [1_000, 70_000, 1 << 20])
def test_all_of_a_flood_is_answered_in_order_and_durable_also_when_nothing_more_comes(
    jump: Jump, clock: JumpClock, output_bytes_max: int
) -> None:
    async def main() -> None:
        world = World(Kind(7, "transfer", nobody), clock=clock)
        node = await world.start()
        connection, out = connect(world, output_bytes_max)
        flood = b"".join(encode(b"NEW", b"7", b"%d" % at) + encode(b"ECHO", b"%d" % at) for at in range(2_000))
        connection.data_received(flood)
        assert connection.eof_received()
        await world.pass_time(1)
        assert out.over
        ids = sorted(hold.id for hold in connection.owner.holds.values())
        assert len(ids) == 2_000
        wanted = []
        for at, index in enumerate(ids):
            assert node.machine.records(index.seq) == [b"%d" % at]
            wanted += [str(index).encode(), b"%d" % at]
        assert out.written == b"".join(b"$%d\r\n%b\r\n" % (len(word), word) for word in wanted)

    jump(main())


def test_answers_that_are_large_wait_until_those_before_have_left(jump: Jump, clock: JumpClock) -> None:
    async def main() -> None:
        world = World(Kind(7, "transfer", nobody), clock=clock)
        await world.start()
        connection, out = connect(world, 100_000)
        connection.data_received(encode(b"NEW", b"7", bytes(50_000)))
        await world.durable()
        (hold,) = connection.owner.holds.values()
        before = len(out.written)
        connection.pause_writing()  # the peer reads nothing
        connection.data_received(encode(b"SHOW", hold.id_text) * 100)
        await world.pass_time(1)
        assert len(out.written) - before <= 200_000
        connection.resume_writing()
        await world.pass_time(1)
        assert len(out.written) - before > 5_000_000

    jump(main())


def test_a_take_over_of_very_many_sessions_holds_nobody_up_and_is_told_whole(jump: Jump, clock: JumpClock) -> None:
    """Others are served between its slices; what was asked behind OWNER waits; the old connection writes no more."""

    async def main() -> None:
        world = World(Kind(7, "transfer", nobody), clock=clock)
        node = await world.start()
        (old, old_out), (new, new_out), (other, other_out) = connect(world), connect(world), connect(world)
        name = encode(b"OWNER", TOKEN, b"GRACE", b"10")
        old.data_received(name)
        for _ in range(4 * MOVED_AT_ONCE):
            node.new(old.owner, 7, [b"a"])
        ids = list(old.owner.holds)
        await world.durable()
        old_out.written.clear()
        new.data_received(name)
        new.data_received(encode(b"APPEND", ids[-1], b"b"))
        old.data_received(encode(b"APPEND", ids[-1], b"c"))
        turns, came = 0, set[int]()
        while new_out.written.count(b"*4\r\n") < len(ids):
            turns += 1
            other.data_received(encode(b"PING"))
            assert len(other_out.written) == turns * 7
            await asyncio.sleep(0)
            came.add(len(new_out.written))
        assert turns >= 3, "four slices, two of them in the first turn"
        assert len(came - {0}) >= 3, "whoever waits for so many sees them come"
        await world.durable()
        assert new_out.written.startswith(b"*%d\r\n" % len(ids))
        assert new_out.written.count(b"*4\r\n") == len(ids)
        assert new_out.written.endswith(b"+OK\r\n")
        assert new_out.reads
        assert bytes(old_out.written).startswith(b"-FENCED ")
        assert node.machine.records(int(ids[-1].partition(b"-")[2])) == [b"a", b"b"]
        old_out.written.clear()
        new_out.written.clear()
        old.data_received(name)  # and back again
        new.data_received(name)
        while new_out.written.count(b"*4\r\n") < len(ids):  # noqa: ASYNC110 - a turn, not a time
            await asyncio.sleep(0)
        assert b"\r\n-FENCED " in old_out.written
        assert new_out.written.startswith(b"*%d\r\n" % len(ids))
        assert new_out.written.count(b"*4\r\n") == len(ids)
        assert new_out.written.count(b"\r\n:1\r\n") == 1, "the one that was written to"

    jump(main())


def test_what_ends_while_it_is_told_is_null_in_the_list(jump: Jump, clock: JumpClock) -> None:
    async def main() -> None:
        world = World(Kind(7, "transfer", nobody), clock=clock)
        node = await world.start()
        (old, _), (new, new_out) = connect(world), connect(world)
        old.data_received(encode(b"OWNER", TOKEN, b"GRACE", b"10"))
        holds = [node.new(old.owner, 7, [b"a"]) for _ in range(3 * MOVED_AT_ONCE)]
        await world.durable()
        new.data_received(encode(b"OWNER", TOKEN, b"GRACE", b"10"))
        node.delete(holds[-1])
        while new_out.written.count(b"*4\r\n") < len(holds) - 1:  # noqa: ASYNC110 - a turn, not a time
            await asyncio.sleep(0)
        assert new_out.written.startswith(b"*%d\r\n" % len(holds))
        assert new_out.written.endswith(b"\r\n$-1\r\n")

    jump(main())


def test_a_list_that_cannot_be_finished_tells_why(jump: Jump, clock: JumpClock) -> None:
    """In the place of an entry: whoever has lost its name must hear of it, and not come back to take it again."""

    async def main() -> None:
        world = World(Kind(7, "transfer", nobody), clock=clock)
        node = await world.start()
        (old, _), (new, new_out), (newest, newest_out) = connect(world), connect(world), connect(world)
        name = encode(b"OWNER", TOKEN, b"GRACE", b"10")
        old.data_received(name)
        for _ in range(4 * MOVED_AT_ONCE):
            node.new(old.owner, 7, [b"a"])
        await world.durable()
        new.data_received(name)
        while not new_out.written:  # noqa: ASYNC110 - a turn, not a time
            await asyncio.sleep(0)
        newest.data_received(name)
        while newest_out.written.count(b"*4\r\n") < 4 * MOVED_AT_ONCE:  # noqa: ASYNC110 - a turn, not a time
            await asyncio.sleep(0)
        new_out.written += encode(b"next")
        reader = hiredis.Reader()
        reader.feed(bytes(new_out.written))
        listed = reader.gets()
        assert len(listed) == 4 * MOVED_AT_ONCE
        (error,) = [entry for entry in listed if isinstance(entry, hiredis.ReplyError)]
        assert str(error).startswith("FENCED ")
        assert listed[-1] is None
        assert reader.gets() == [b"next"]
        assert newest_out.written.startswith(b"*%d\r\n" % (4 * MOVED_AT_ONCE))

    jump(main())


def test_a_handler_that_comes_back_is_told_in_one_piece(jump: Jump, clock: JumpClock) -> None:
    """It is pushed sessions meanwhile, which cannot come within a list."""

    async def main() -> None:
        world = World(Kind(7, "transfer", nobody), clock=clock)
        node = await world.start()
        old, _ = connect(world)
        old.data_received(encode(b"OWNER", TOKEN, b"GRACE", b"10"))
        for _ in range(4 * MOVED_AT_ONCE):
            node.new(old.owner, 7, [b"a"])
        await world.durable()
        dialled, out = Connection(node, VERBS, WireSettings(), lambda _: None, dialled=True), Played()
        dialled.connection_made(out)
        dialled.data_received(encode(b"OWNER", TOKEN, b"GRACE", b"10"))
        while not out.written:  # noqa: ASYNC110 - a turn, not a time
            await asyncio.sleep(0)
        assert out.written.count(b"*4\r\n") == 4 * MOVED_AT_ONCE

    jump(main())


def test_a_take_over_that_changes_very_many_graces_waits_for_a_checkpoint_that_is_behind(
    jump: Jump, clock: JumpClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def main() -> None:
        world = World(Kind(7, "transfer", nobody), clock=clock)
        node = await world.start()
        (old, _), (new, new_out) = connect(world), connect(world)
        old.data_received(encode(b"OWNER", TOKEN, b"GRACE", b"10"))
        for _ in range(3 * MOVED_AT_ONCE):
            node.new(old.owner, 7, [b"a"])
        await world.durable()
        steps: list[Callable[[], object]] = []
        monkeypatch.setattr(node.checkpointer, "when_room", steps.append)
        new.data_received(encode(b"OWNER", TOKEN, b"GRACE", b"20"))
        await world.pass_time(1)
        assert not new_out.written
        assert len(old.owner.holds) == MOVED_AT_ONCE
        while steps:
            steps.pop()()
            await world.durable()
        assert new_out.written.startswith(b"*%d\r\n" % (3 * MOVED_AT_ONCE))

    jump(main())
