"""Members of a cluster in jumping time: who leads, what survives, what ends a node."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Mapping

import pytest

from tests.cluster.loop import StormLoop
from tests.cluster.world import Cluster, Disk
from tests.node.world import PlayedRoute
from truba.cluster import doubt
from truba.cluster.audit import Audit
from truba.cluster.log import ReplicatedLog
from truba.cluster.trimmer import Trimmer
from truba.errors import Busy, Deposed, LogRegression, Unavailable, UnknownKind, UnknownOutcome
from truba.kinds import Kind
from truba.machine.layers import Layer
from truba.machine.machine import Machine
from truba.node.checkpoint import Checkpointer
from truba.node.node import Node
from truba.streams.memory import Way
from truba.testing.jump import JumpClock
from truba.types import Index

KIND = Kind(7, "transfer", handler="played:", recovery_delay_s=1.0, jitter_s=0.0)
Jump = Callable[[Coroutine[object, object, None]], None]


async def write(node: Node, *records: bytes) -> Index:
    """A session of its own, acknowledged."""
    owner = node.presence.attach()
    hold = node.new(owner, 7, list(records))
    await node.sequencer.flush()
    return hold.id


def test_one_leads_and_the_others_have_all_of_it(jump: Jump, clock: JumpClock) -> None:
    async def main() -> None:
        cluster = Cluster(clock, KIND)
        cluster.start()
        leader = await cluster.leader()
        node = leader.doors.node
        assert node is not None
        for n in range(50):
            await write(node, b"%d" % n)
        digest = await cluster.agree()
        assert digest
        for seat in cluster.seats.values():
            assert seat.disk.log.tail.seq == 51
            assert seat.member.leader == leader.name
        assert [seat.member.role for seat in cluster.seats.values()].count("leader") == 1
        await cluster.close()

    jump(main())


def test_who_begins_a_stream_waits_for_nobody(jump: Jump, clock: JumpClock) -> None:
    async def main() -> None:
        cluster = Cluster(clock, KIND)
        cluster.start()
        started_s = asyncio.get_running_loop().time()
        await cluster.leader()
        assert asyncio.get_running_loop().time() - started_s < 1
        await cluster.agree()
        assert cluster.sea.first == 1
        await cluster.close()

    jump(main())


def test_g1_the_leader_dies_and_another_goes_on_with_all_that_was_acknowledged(jump: Jump, clock: JumpClock) -> None:
    async def main() -> None:
        cluster = Cluster(clock, KIND)
        cluster.start()
        known: set[Index] = set()
        for round_ in range(6):
            leader = await cluster.leader()
            assert leader.doors.node is not None
            for n in range(10):
                known.add(await write(leader.doors.node, b"%d %d" % (round_, n)))
            started_s = asyncio.get_running_loop().time()
            await leader.kill()
            successor = await cluster.leader()
            assert asyncio.get_running_loop().time() - started_s < 6
            assert successor is not leader
            leader.start()
            await cluster.agree()
            machine = successor.member.machine
            assert machine is not None
            assert {head.id for head in machine.scan()} == known
        await cluster.close()

    jump(main())


def test_who_joins_while_there_is_no_pause_in_the_traffic_knows_who_leads(jump: Jump, clock: JumpClock) -> None:
    """Its clients are relayed to the leader: not only once the stream is quiet for a moment."""

    async def main() -> None:
        cluster = Cluster(clock, KIND)
        cluster.start()
        leader = await cluster.leader()
        assert leader.doors.node is not None
        await write(leader.doors.node, b"before")
        joining = next(seat for seat in cluster.seats.values() if seat is not leader)
        await joining.kill()
        joining.start()
        for n in range(100):  # 10 s without a pause that a reader of the stream would notice
            await write(leader.doors.node, b"%d" % n)
            await asyncio.sleep(0.1)
        assert joining.doors.leaders[-1] == leader.name
        assert joining.member.leader == leader.name
        await cluster.close()

    jump(main())


def test_g3_a_leader_that_is_cut_off_acknowledges_nothing_more(jump: Jump, clock: JumpClock) -> None:
    async def main() -> None:
        cluster = Cluster(clock, KIND)
        cluster.start()
        old = await cluster.leader()
        node = old.doors.node
        assert node is not None
        await write(node, b"before")
        old.stream.connected = False
        late = asyncio.create_task(write(node, b"late"))
        new = await cluster.leader()
        assert new is not old
        assert new.doors.node is not None
        during = await write(new.doors.node, b"during")
        old.stream.connected = True
        with pytest.raises(UnknownOutcome):
            await late
        digest = await cluster.agree()
        assert digest
        assert old.member.role == "follower"
        assert old.member.machine is not None
        assert old.member.machine.get(during.seq) is not None
        assert old.member.machine.records(during.seq) == [b"during"]
        await cluster.close()

    jump(main())


def test_a_deposed_leader_goes_though_a_chore_of_its_did_not_hear_that_it_should_end(
    jump: Jump, clock: JumpClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As it may happen where asyncio.wait_for of Python 3.11 stands between."""
    heard: list[str] = []

    async def deaf(self: Audit) -> None:
        while True:
            try:
                await asyncio.sleep(1e6)
            except asyncio.CancelledError:
                heard.append("end")
                if len(heard) >= 3:
                    raise

    async def main() -> None:
        monkeypatch.setattr(Audit, "run", deaf)
        cluster = Cluster(clock, KIND)
        cluster.start()
        old = await cluster.leader()
        old.stream.connected = False
        async with asyncio.timeout(20):
            while old.doors.node is not None:  # noqa: ASYNC110 the clock jumps
                await asyncio.sleep(0.1)
        assert len(heard) >= 3
        await cluster.close()

    jump(main())


@pytest.mark.parametrize("chore", [Trimmer, Audit])
def test_a_leader_whose_chore_has_died_ends_loudly(
    jump: Jump, clock: JumpClock, monkeypatch: pytest.MonkeyPatch, chore: type[Trimmer | Audit]
) -> None:
    """Nobody else would do it: the stream would grow for ever."""
    retire = Node.retire
    retired: list[Node] = []

    async def dies(self: object) -> None:
        await asyncio.sleep(1)
        raise KeyError("message")

    async def watched(node: Node) -> None:
        await retire(node)
        retired.append(node)

    async def main() -> None:
        cluster = Cluster(clock, KIND)
        cluster.start()
        monkeypatch.setattr(chore, "run", dies)
        monkeypatch.setattr(Node, "retire", watched)
        leader = await cluster.leader()
        node = leader.doors.node
        assert leader.task is not None
        with pytest.raises(KeyError):
            await asyncio.wait_for(leader.task, 10)
        assert leader.doors.node is None
        assert retired == [node]
        monkeypatch.undo()
        await cluster.leader()
        await cluster.close()

    jump(main())


@pytest.mark.parametrize("others_answer", [True, False])
def test_a_leader_cut_off_with_the_server_at_hand_lets_its_clients_go_soon(
    jump: Jump, clock: JumpClock, others_answer: bool
) -> None:
    """A server that answers and stores nothing is in an election, or cut off. The other nodes tell which."""

    async def main() -> None:
        cluster = Cluster(clock, KIND)
        cluster.start()
        leader = await cluster.leader()
        assert leader.doors.node is not None
        await write(leader.doors.node, b"before")
        await cluster.agree()
        if not others_answer:
            for seat in cluster.seats.values():
                if seat is not leader:
                    await seat.kill()
        cluster.sea.up = False
        loop = asyncio.get_running_loop()
        began_s = loop.time()
        while leader.doors.node is not None:  # noqa: ASYNC110 the clock jumps
            await asyncio.sleep(0.1)
        took_s = loop.time() - began_s
        assert (14 < took_s < 19) if others_answer else (5 < took_s < 9)
        cluster.sea.up = True
        await cluster.close()

    jump(main())


def test_g6_an_open_that_came_to_nothing_is_part_of_the_log_all_the_same(jump: Jump, clock: JumpClock) -> None:
    async def main() -> None:
        cluster = Cluster(clock, KIND, names="ab")
        first, other = cluster.seats.values()

        def stored() -> None:
            first.disk.log.held = True
            first.stream.connected = cluster.sea.last == 1  # its OPEN is stored, and it does not know

        unwatch = cluster.sea.watch(stored)
        first.start()
        await asyncio.sleep(5)
        assert cluster.sea.last == 2
        unwatch()
        other.start()
        assert await cluster.leader() is other
        assert other.doors.node is not None
        first.stream.connected = True
        await asyncio.sleep(1)
        assert [event for event, _ in first.told] == ["another node leads"]
        first.disk.log.held = False
        first.disk.log.release()
        await write(other.doors.node, b"x")
        await cluster.agree()
        assert first.alive
        await cluster.close()

    jump(main())


def test_g6_who_finds_its_open_with_another_behind_it_has_it_in_its_state_too(
    jump: Jump, clock: JumpClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("CUT_OFF_S", "STUCK_S"):
        monkeypatch.setattr(doubt, name, 60.0)  # as for a process that stood still

    async def main() -> None:
        cluster = Cluster(clock, KIND, names="ab")
        first, other = cluster.seats.values()

        def stored() -> None:
            first.stream.connected = cluster.sea.last == 1  # its OPEN is stored, and it does not know

        unwatch = cluster.sea.watch(stored)
        first.start()
        await asyncio.sleep(0.5)
        unwatch()
        other.start()
        assert await cluster.leader() is other
        assert other.doors.node is not None
        first.disk.log.held = True  # the OPEN is on its way to the own log when the other one is found behind it
        first.stream.connected = True
        await asyncio.sleep(1)
        first.disk.log.held = False
        assert first.disk.log.release() == 1
        await asyncio.sleep(1)
        assert [event for event, _ in first.told] == ["another node leads"]
        await write(other.doors.node, b"x")
        await cluster.agree()
        assert first.alive
        await cluster.close()

    jump(main())


def test_a_planned_step_down_takes_less_than_a_second(jump: Jump, clock: JumpClock) -> None:
    async def main() -> None:
        cluster = Cluster(clock, KIND)
        cluster.start()
        loop = asyncio.get_running_loop()
        for _ in range(4):
            old = await cluster.leader()
            assert old.doors.node is not None
            await write(old.doors.node, b"x")
            successor = next(name for name in cluster.seats if name != old.name)
            started_s = loop.time()
            await old.member.step_down(successor)
            new = await cluster.leader()
            assert new.name == successor
            assert loop.time() - started_s < 1
            await cluster.agree()
        await cluster.close()

    jump(main())


def test_a_leader_that_was_deposed_follows_at_once(
    jump: Jump, clock: JumpClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who should be next is not its to say any more, and nodes that do not answer take seconds to ask."""

    async def main() -> None:
        cluster = Cluster(clock, KIND)
        tails, takes_s = cluster.tails, 0.0

        async def slow() -> Mapping[str, int]:
            await asyncio.sleep(takes_s)
            return await tails()

        monkeypatch.setattr(cluster, "tails", slow)
        cluster.start()
        leader = await cluster.leader()
        node = leader.doors.node
        assert node is not None
        takes_s = 6.0  # the others do not answer any more
        node.give_up(Deposed("another node leads"))
        await asyncio.sleep(0.5)
        assert leader.member.role == "follower"
        await cluster.close()

    jump(main())


@pytest.mark.parametrize("stops", [True, False])
def test_g6_a_checkpoint_of_a_follower_does_not_claim_what_comes_to_its_disk_meanwhile(
    jump: Jump, clock: JumpClock, monkeypatch: pytest.MonkeyPatch, stops: bool
) -> None:
    """A log that writes on a thread is longer from one moment to the next; the state is so a turn of the loop later."""
    freeze = Machine.freeze

    async def main() -> None:
        cluster = Cluster(clock, KIND)
        cluster.start()
        leader = await cluster.leader()
        assert leader.doors.node is not None
        await cluster.agree()
        seat = next(seat for seat in cluster.seats.values() if seat is not leader)
        machine, log = seat.member.machine, seat.disk.log
        assert machine is not None
        log.held = True
        await write(leader.doors.node, b"on its way to the disk")
        await asyncio.sleep(0.1)
        at = log.tail

        def frozen(self: Machine) -> Layer:
            layer = freeze(self)
            if self is machine:
                log.held = False
                log.release()
                assert log.tail.seq == at.seq + 1
            return layer

        monkeypatch.setattr(Machine, "freeze", frozen)
        if stops:
            await seat.stop()
        else:
            await seat.member.checkpoint()
        assert seat.disk.store.summary.applied == at
        monkeypatch.undo()
        if not stops:
            await seat.stop()
        seat.start()
        await cluster.agree()
        await cluster.close()

    jump(main())


def test_a_leader_decides_by_the_kinds_that_it_took_as_a_follower(jump: Jump, clock: JumpClock) -> None:
    """Its state is older than that: it was taken along from when this node led before, and was given kinds then."""

    async def main() -> None:
        cluster = Cluster(clock, KIND)
        cluster.start()

        def reload(*kinds: Kind) -> None:
            cluster.kinds = kinds
            for seat in cluster.seats.values():
                if seat.member.machine is not None:
                    seat.member.machine.refuse_to_lose(kinds)
                if seat.member.node is not None:
                    seat.member.node.reconfigure(kinds, {kind.number: PlayedRoute() for kind in kinds})
                seat.member.take_kinds(kinds)

        first = await cluster.leader()
        second = next(seat for seat in cluster.seats.values() if seat is not first)
        reload(KIND, Kind(8, "payment", handler="played:"))
        await first.member.step_down(second.name)
        assert await cluster.leader() is second
        await cluster.agree()
        reload(KIND, Kind(9, "refund", handler="played:"))
        await second.member.step_down(first.name)
        assert await cluster.leader() is first
        node = first.doors.node
        assert node is not None
        node.new(node.presence.attach(), 9, [b"x"])
        with pytest.raises(UnknownKind):
            node.new(node.presence.attach(), 8, [b"x"])
        await node.sequencer.flush()
        with pytest.raises(Busy, match="refund has 1 session"):
            reload(KIND)
        await cluster.close()

    jump(main())


@pytest.mark.parametrize("ends", ["it stops", "it is deposed"])
def test_a_step_down_asked_of_a_node_that_is_about_to_lead_no_more_is_refused(
    jump: Jump, clock: JumpClock, monkeypatch: pytest.MonkeyPatch, ends: str
) -> None:
    """Nobody would answer it any more, and the process would wait for the end of its line in the audit log."""
    wait = Checkpointer.wait

    async def long(checkpointer: Checkpointer) -> None:
        await asyncio.sleep(5)
        await wait(checkpointer)

    async def main() -> None:
        cluster = Cluster(clock, KIND)
        cluster.start()
        leader = await cluster.leader()
        node = leader.doors.node
        assert node is not None
        monkeypatch.setattr(Checkpointer, "wait", long)
        if ends == "it stops":
            leader.member.stop()
        else:
            node.give_up(Deposed("another node leads"))
        await asyncio.sleep(2)
        assert leader.doors.node is None
        with pytest.raises(Unavailable, match="does not lead"):
            await asyncio.wait_for(leader.member.step_down("b"), 60)
        await cluster.close()

    jump(main())


def test_a_step_down_that_ends_the_node_is_answered(
    jump: Jump, clock: JumpClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def resign(log: ReplicatedLog, successor: str = "") -> None:
        raise LogRegression("the stream went back just now")

    async def main() -> None:
        cluster = Cluster(clock, KIND)
        cluster.start()
        leader = await cluster.leader()
        monkeypatch.setattr(ReplicatedLog, "resign", resign)
        with pytest.raises(UnknownOutcome):
            await asyncio.wait_for(leader.member.step_down("b"), 60)
        monkeypatch.undo()
        assert leader.task is not None
        with pytest.raises(LogRegression):
            await leader.task
        await cluster.close()

    jump(main())


@pytest.mark.parametrize("leads", [True, False])
def test_a_last_checkpoint_that_fails_is_no_clean_stop(
    jump: Jump, clock: JumpClock, monkeypatch: pytest.MonkeyPatch, leads: bool
) -> None:
    def fails(*_: object) -> None:
        raise OSError(5, "Input/output error")

    async def main() -> None:
        cluster = Cluster(clock, KIND)
        cluster.start()
        leader = await cluster.leader()
        assert leader.doors.node is not None
        await write(leader.doors.node, b"x")
        await cluster.agree()
        seat = next(seat for seat in cluster.seats.values() if (seat is leader) is leads)
        monkeypatch.setattr(seat.disk.store, "commit", fails)
        with pytest.raises(OSError, match="Input/output"):
            await seat.stop()
        await cluster.close()

    jump(main())


def test_a_checkpoint_that_fails_while_a_leader_resigns_ends_the_node(
    jump: Jump, clock: JumpClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """There will be no other one: its log would grow for ever."""
    resign = ReplicatedLog.resign

    def fails(*_: object) -> None:
        raise OSError(5, "Input/output error")

    async def main() -> None:
        cluster = Cluster(clock, KIND)
        cluster.start()
        leader = await cluster.leader()
        assert leader.doors.node is not None
        await write(leader.doors.node, b"x")
        checkpointer = leader.doors.node.checkpointer
        monkeypatch.setattr(leader.disk.store, "commit", fails)

        async def late(log: ReplicatedLog, successor: str = "") -> None:
            await checkpointer.now()
            await resign(log, successor)

        monkeypatch.setattr(ReplicatedLog, "resign", late)
        await leader.member.step_down()
        monkeypatch.setattr(ReplicatedLog, "resign", resign)
        assert leader.task is not None
        with pytest.raises(OSError, match="Input/output"):
            await asyncio.wait_for(leader.task, 60)
        assert "a checkpoint failed" in [event for event, _ in leader.told]
        await cluster.close()

    jump(main())


def test_the_stream_is_down_for_a_while_and_nobody_is_deposed_for_it(jump: Jump, clock: JumpClock) -> None:
    async def main() -> None:
        cluster = Cluster(clock, KIND)
        cluster.start()
        leader = await cluster.leader()
        node = leader.doors.node
        assert node is not None
        cluster.sea.up = False
        waiting = asyncio.create_task(write(node, b"through the outage"))
        await asyncio.sleep(10)
        assert not waiting.done()
        cluster.sea.up = True
        await asyncio.wait_for(waiting, 2)
        await asyncio.sleep(5)
        assert leader.doors.node is node
        await cluster.agree()
        await cluster.close()

    jump(main())


def test_a_node_that_was_away_catches_up_from_the_stream(jump: Jump, clock: JumpClock) -> None:
    async def main() -> None:
        cluster = Cluster(clock, KIND)
        cluster.start()
        leader = await cluster.leader()
        assert leader.doors.node is not None
        away = next(seat for seat in cluster.seats.values() if seat is not leader)
        await away.kill()
        for n in range(100):
            await write(leader.doors.node, b"%d" % n)
        away.start()
        await cluster.agree()
        assert away.disk.replaced == 0
        await cluster.close()

    jump(main())


def test_a_node_that_was_away_for_too_long_takes_a_checkpoint_from_a_peer(jump: Jump, clock: JumpClock) -> None:
    async def main() -> None:
        cluster = Cluster(clock, KIND, checkpoint_bytes=20_000, keep_bytes=50_000)
        cluster.start()
        leader = await cluster.leader()
        assert leader.doors.node is not None
        away = next(seat for seat in cluster.seats.values() if seat is not leader)
        await write(leader.doors.node, b"seen by all")
        await cluster.agree()
        await away.kill()
        for n in range(300):
            await write(leader.doors.node, b"%d" % n * 200)
            await asyncio.sleep(0.1)
        await asyncio.sleep(10)
        assert cluster.sea.first > 100
        away.start()
        await cluster.agree()
        assert away.disk.replaced == 1
        assert away.member.trouble == ""
        await cluster.close()

    jump(main())


def test_a_stop_does_not_wait_for_a_checkpoint_that_is_on_its_way(
    jump: Jump, clock: JumpClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun: list[float] = []

    async def slow(self: Disk) -> None:
        begun.append(clock.steady_s)
        await asyncio.sleep(3_600)

    async def main() -> None:
        cluster = Cluster(clock, KIND, keep_bytes=0)
        cluster.start()
        leader = await cluster.leader()
        assert leader.doors.node is not None
        await cluster.agree()
        seat = next(seat for seat in cluster.seats.values() if seat is not leader)
        await seat.stop()
        monkeypatch.setattr(Disk, "replace", slow)
        for n in range(20):
            await write(leader.doors.node, b"%d" % n)
            await asyncio.sleep(1)
        seat.start()
        async with asyncio.timeout(30):
            while not begun:  # noqa: ASYNC110 the clock jumps
                await asyncio.sleep(0.1)
        await asyncio.wait_for(seat.stop(), 10)
        await cluster.close()

    jump(main())


def test_what_others_publish_is_void_and_counted(jump: Jump, clock: JumpClock) -> None:
    async def main() -> None:
        cluster = Cluster(clock, KIND)
        cluster.start()
        leader = await cluster.leader()
        assert leader.doors.node is not None
        for n in range(20):
            cluster.sea.store(b"what is this? %d" % n, None)
            await write(leader.doors.node, b"%d" % n)
        await cluster.agree()
        assert all(seat.member.voids >= 20 for seat in cluster.seats.values())
        assert leader.doors.node is not None
        await cluster.close()

    jump(main())


@pytest.mark.parametrize("leads", [True, False])
def test_a_node_that_could_not_write_a_checkpoint_gives_none(jump: Jump, clock: JumpClock, leads: bool) -> None:
    async def main() -> None:
        cluster = Cluster(clock, KIND)
        cluster.start()
        leader = await cluster.leader()
        assert leader.doors.node is not None
        await write(leader.doors.node, b"a")
        await cluster.agree()
        seat = leader if leads else next(seat for seat in cluster.seats.values() if seat is not leader)

        def full(staged: object, summary: object) -> None:
            raise OSError("the disk is full")

        seat.disk.store.commit = full  # type: ignore[method-assign]
        for _ in range(2):  # the second time it need not even try
            with pytest.raises(Unavailable, match="the disk is full"):
                await seat.member.checkpoint()
        assert seat.task is not None
        with pytest.raises(OSError, match="the disk is full"):
            await seat.task
        await cluster.close()

    jump(main())


def test_who_asks_a_node_that_ends_for_a_checkpoint_does_not_keep_it_busy(clock: JumpClock) -> None:
    """Its state will never be that of its log any more: a batch came to the disk when nobody was there to apply it."""

    async def main() -> None:
        cluster = Cluster(clock, KIND)
        cluster.start()
        leader = await cluster.leader()
        await cluster.agree()
        seat = next(seat for seat in cluster.seats.values() if seat is not leader)
        seat.disk.log.held = True
        assert leader.doors.node is not None
        await write(leader.doors.node, b"on its way to the disk")
        await asyncio.sleep(0.1)
        assert seat.task is not None
        seat.task.cancel()
        seat.disk.log.held = False
        seat.disk.log.release()
        asked = asyncio.create_task(seat.member.checkpoint())
        await asyncio.sleep(1)
        with pytest.raises(Unavailable, match="or has stopped"):
            await asked
        await cluster.close()

    with asyncio.Runner(loop_factory=lambda: StormLoop(clock)) as runner:
        runner.run(main())


def test_g7_a_stream_that_went_back_stops_a_node_loudly(jump: Jump, clock: JumpClock) -> None:
    async def main() -> None:
        cluster = Cluster(clock, KIND)
        cluster.start()
        leader = await cluster.leader()
        assert leader.doors.node is not None
        for n in range(20):
            await write(leader.doors.node, b"%d" % n)
        await cluster.agree()
        for seat in cluster.seats.values():
            await seat.kill()
        sea = cluster.sea
        for seq in range(sea.last - 5, sea.last + 1):
            del sea.messages[seq]
        sea.last -= 6
        cluster.start()
        tasks = [seat.task for seat in cluster.seats.values() if seat.task]
        _, going_on = await asyncio.wait(tasks, timeout=120)
        assert not going_on, "nobody has noticed"
        results = await asyncio.gather(*tasks, return_exceptions=True)
        assert all(isinstance(result, LogRegression) for result in results), results

    jump(main())


@pytest.mark.parametrize("leads", [True, False])
def test_g7_a_stream_that_went_back_and_grew_again_stops_every_node(jump: Jump, clock: JumpClock, leads: bool) -> None:
    """As long as before, with something else in the place of what was lost: only who looks there can tell."""

    async def main() -> None:
        cluster = Cluster(clock, KIND)
        cluster.start()
        leader = await cluster.leader()
        assert leader.doors.node is not None
        await write(leader.doors.node, b"acknowledged")
        await cluster.agree()
        if not leads:
            await leader.kill()
        sea = cluster.sea
        lost = max(seq for seq, data in sea.messages.items() if b"acknowledged" in data)
        for seq in range(lost, sea.last + 1):
            sea.messages[seq] = b"something else"
        tasks = [seat.task for seat in cluster.seats.values() if seat.alive and seat.task is not None]
        results = await asyncio.wait_for(asyncio.gather(*tasks, return_exceptions=True), 40)
        assert all(isinstance(result, LogRegression) for result in results), results

    jump(main())


@pytest.mark.parametrize("which", ["hole", "flipped"])
def test_g7_a_message_that_is_missing_or_changed_stops_a_node_that_needs_it(
    jump: Jump, clock: JumpClock, which: str
) -> None:
    async def main() -> None:
        cluster = Cluster(clock, KIND)
        cluster.start()
        leader = await cluster.leader()
        assert leader.doors.node is not None
        away = next(seat for seat in cluster.seats.values() if seat is not leader)
        await away.kill()
        for n in range(20):
            await write(leader.doors.node, b"%d" % n)
        seq = cluster.sea.last - 5
        if which == "hole":
            del cluster.sea.messages[seq]
        else:
            data = bytearray(cluster.sea.messages[seq])
            data[len(data) // 2] ^= 1
            cluster.sea.messages[seq] = bytes(data)
        away.start()
        assert away.task is not None
        with pytest.raises(LogRegression, match=f"message {seq} of the stream"):
            await away.task
        await write(leader.doors.node, b"the others go on")
        await cluster.close()

    jump(main())


def test_every_node_keeps_its_own_log_short(jump: Jump, clock: JumpClock) -> None:
    async def main() -> None:
        cluster = Cluster(clock, KIND, checkpoint_bytes=5_000)
        cluster.start()
        leader = await cluster.leader()
        for n in range(60):
            assert leader.doors.node is not None
            await write(leader.doors.node, b"%d" % n * 50)
            await asyncio.sleep(0.1)
        await cluster.agree()
        for seat in cluster.seats.values():
            applied = seat.disk.store.summary.applied
            assert 0 < applied.seq == seat.disk.shelf.begin.seq, seat.name
            assert seat.disk.log.size_bytes < 5_000 + 1_000, seat.name
        await cluster.close()

    jump(main())


def test_a_node_that_missed_nothing_but_beats_needs_no_checkpoint(jump: Jump, clock: JumpClock) -> None:
    async def main() -> None:
        cluster = Cluster(clock, KIND, keep_bytes=100)
        cluster.start()
        leader = await cluster.leader()
        assert leader.doors.node is not None
        await write(leader.doors.node, b"x")
        await cluster.agree()
        away, other = (seat for seat in cluster.seats.values() if seat is not leader)
        away.stream.connected = False
        await other.kill()
        before = cluster.sea.first
        await asyncio.sleep(60)
        other.start()
        await asyncio.sleep(20)
        assert cluster.sea.first > before + 10
        away.stream.connected = True
        await asyncio.sleep(5)
        await write(leader.doors.node, b"y")
        await cluster.agree()
        assert (away.disk.replaced, other.disk.replaced) == (0, 0)
        await cluster.close()

    jump(main())


def test_g7_a_stream_with_another_history_stops_a_node(jump: Jump, clock: JumpClock) -> None:
    async def main() -> None:
        cluster = Cluster(clock, KIND)
        cluster.start()
        leader = await cluster.leader()
        assert leader.doors.node is not None
        await write(leader.doors.node, b"x")
        await cluster.agree()
        for seat in cluster.seats.values():
            await seat.kill()
        elsewhere = Cluster(clock, KIND)
        elsewhere.start()
        other = await elsewhere.leader()
        assert other.doors.node is not None
        await write(other.doors.node, b"z")
        await write(other.doors.node, b"z")
        await elsewhere.close()
        cluster.sea = elsewhere.sea
        seat = next(iter(cluster.seats.values()))
        seat.start()
        assert seat.task is not None
        with pytest.raises(LogRegression, match="they are not one log"):
            await seat.task

    jump(main())


@pytest.mark.parametrize("when", ["while it leads", "while nobody leads"])
def test_g7_a_purge_by_somebody_else_is_told(jump: Jump, clock: JumpClock, when: str) -> None:
    async def main() -> None:
        cluster = Cluster(clock, KIND, keep_bytes=20_000)
        cluster.start()
        leader = await cluster.leader()
        for n in range(200):
            assert leader.doors.node is not None
            await write(leader.doors.node, b"%d" % n * 50)
            await asyncio.sleep(0.1)
        await cluster.agree()
        assert cluster.sea.first > 10  # trimmed, as it should be, and nothing to be told
        assert {seat.member.trouble for seat in cluster.seats.values()} == {""}
        if when == "while nobody leads":
            await leader.kill()
        cluster.sea.drop_before(cluster.sea.last)
        leader = await cluster.leader()
        await asyncio.sleep(10)
        assert "somebody purged it" in leader.member.trouble
        assert leader.doors.node is not None
        await write(leader.doors.node, b"it goes on")
        await cluster.close()

    jump(main())


def test_a_stream_that_was_trimmed_is_not_called_purged_by_the_next_leader(jump: Jump, clock: JumpClock) -> None:
    async def main() -> None:
        cluster = Cluster(clock, KIND, keep_bytes=20_000)
        cluster.start()
        for _ in range(4):
            leader = await cluster.leader()
            for n in range(60):
                assert leader.doors.node is not None
                await write(leader.doors.node, b"%d" % n * 50)
                await asyncio.sleep(0.1)
            await asyncio.sleep(6)
            await leader.kill()
            leader.start()
        await cluster.leader()
        await asyncio.sleep(10)
        assert cluster.sea.first > 100
        assert {seat.member.trouble for seat in cluster.seats.values()} == {""}
        await cluster.close()

    jump(main())


def test_who_stops_while_an_answer_is_on_its_way_does_not_stumble_over_it(jump: Jump, clock: JumpClock) -> None:
    async def main() -> None:
        stumbled: list[dict[str, object]] = []
        asyncio.get_running_loop().set_exception_handler(lambda _, context: stumbled.append(context))

        class Slow(Way):
            def back(self) -> float:
                return 0.5

        cluster = Cluster(clock, KIND)
        seat = next(iter(cluster.seats.values()))
        seat.way = Slow()
        seat.start()
        await asyncio.sleep(0.1)  # the first message of a new stream is stored, and not answered
        assert cluster.sea.last == 1
        await seat.stop()
        await asyncio.sleep(2)
        assert stumbled == []

    jump(main())


def test_g7_a_message_that_the_engine_has_lost_is_told_and_untold_when_it_is_back(jump: Jump, clock: JumpClock) -> None:
    async def main() -> None:
        cluster = Cluster(clock, KIND, keep_bytes=20_000)
        cluster.start()
        leader = await cluster.leader()
        for n in range(200):  # trimmed under the audit's feet
            assert leader.doors.node is not None
            await write(leader.doors.node, b"%d" % n * 50)
            await asyncio.sleep(0.1)
        await asyncio.sleep(6)
        assert leader.member.trouble == ""
        seq = cluster.sea.last - 1  # it will not be trimmed so soon: beats are small
        lost = cluster.sea.messages.pop(seq)
        await asyncio.sleep(12)
        assert f"1 of the stream's messages, from {seq} on, cannot be read" in leader.member.trouble
        cluster.sea.messages[seq] = lost
        await asyncio.sleep(12)
        assert leader.member.trouble == ""
        assert [event for event, _ in leader.told if "read" in event] == [
            "the stream cannot be read",
            "the stream can be read again",
        ]
        await cluster.close()

    jump(main())


def test_g6_a_leader_that_is_deposed_while_its_disk_writes_waits_for_the_disk(jump: Jump, clock: JumpClock) -> None:
    async def main() -> None:
        cluster = Cluster(clock, KIND)
        cluster.start()
        leader = await cluster.leader()
        assert leader.doors.node is not None
        await write(leader.doors.node, b"a")
        await cluster.agree()
        leader.disk.log.held = True
        leader.doors.node.new(leader.doors.node.presence.attach(), 7, [b"in the stream, not on the disk yet"])
        await asyncio.sleep(1)
        leader.stream.connected = False
        await cluster.leader()
        await asyncio.sleep(30)
        assert leader.member.log is not None  # it has given up, and yet must not look at its disk
        leader.disk.log.held = False
        leader.disk.log.release()
        leader.stream.connected = True
        await cluster.agree()
        assert all(seat.alive for seat in cluster.seats.values())
        await cluster.close()

    jump(main())
