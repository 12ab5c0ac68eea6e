"""Members of a cluster in jumping time: who leads, what survives, what ends a node."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine

import pytest

from tests.cluster.world import KIND, Cluster, Led, Seat
from truba.cluster import doubt
from truba.cluster.audit import Audit
from truba.cluster.trimmer import Trimmer
from truba.errors import UnknownOutcome
from truba.node.node import Node
from truba.streams.memory import Way
from truba.testing.jump import JumpClock
from truba.types import Index

Jump = Callable[[Coroutine[object, object, None]], None]


def test_one_leads_and_the_others_have_all_of_it(led: Led) -> None:
    async def main(cluster: Cluster, leader: Seat) -> None:
        for n in range(50):
            await leader.write(b"%d" % n)
        digest = await cluster.agree()
        assert digest
        for seat in cluster.seats.values():
            assert seat.disk.log.tail.seq == 51
            assert seat.member.leader == leader.name
        assert [seat.member.role for seat in cluster.seats.values()].count("leader") == 1

    led(main)


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


def test_g1_the_leader_dies_and_another_goes_on_with_all_that_was_acknowledged(led: Led) -> None:
    async def main(cluster: Cluster, leader: Seat) -> None:
        known: set[Index] = set()
        for round_ in range(6):
            for n in range(10):
                known.add(await leader.write(b"%d %d" % (round_, n)))
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
            leader = successor

    led(main)


def test_who_joins_while_there_is_no_pause_in_the_traffic_knows_who_leads(led: Led) -> None:
    """Its clients are relayed to the leader: not only once the stream is quiet for a moment."""

    async def main(cluster: Cluster, leader: Seat) -> None:
        await leader.write(b"before")
        joining = cluster.others(leader)[0]
        await joining.kill()
        joining.start()
        for n in range(100):  # 10 s without a pause that a reader of the stream would notice
            await leader.write(b"%d" % n)
            await asyncio.sleep(0.1)
        assert joining.doors.leaders[-1] == leader.name
        assert joining.member.leader == leader.name

    led(main)


def test_g3_a_leader_that_is_cut_off_acknowledges_nothing_more(led: Led) -> None:
    async def main(cluster: Cluster, old: Seat) -> None:
        await old.write(b"before")
        old.stream.connected = False
        late = asyncio.create_task(old.write(b"late"))
        new = await cluster.leader()
        assert new is not old
        during = await new.write(b"during")
        old.stream.connected = True
        with pytest.raises(UnknownOutcome):
            await late
        digest = await cluster.agree()
        assert digest
        assert old.member.role == "follower"
        assert old.member.machine is not None
        assert old.member.machine.get(during.seq) is not None
        assert old.member.machine.records(during.seq) == [b"during"]

    led(main)


def test_a_deposed_leader_goes_though_a_chore_of_its_did_not_hear_that_it_should_end(
    led: Led, monkeypatch: pytest.MonkeyPatch
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

    async def main(cluster: Cluster, old: Seat) -> None:
        old.stream.connected = False
        async with asyncio.timeout(20):
            while old.doors.node is not None:  # noqa: ASYNC110 the clock jumps
                await asyncio.sleep(0.1)
        assert len(heard) >= 3

    monkeypatch.setattr(Audit, "run", deaf)
    led(main)


@pytest.mark.parametrize("chore", [Trimmer, Audit])
def test_a_leader_whose_chore_has_died_ends_loudly(
    led: Led, monkeypatch: pytest.MonkeyPatch, chore: type[Trimmer | Audit]
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

    async def main(cluster: Cluster, leader: Seat) -> None:
        node = leader.serving
        assert leader.task is not None
        with pytest.raises(KeyError):
            await asyncio.wait_for(leader.task, 10)
        assert leader.doors.node is None
        assert retired == [node]
        monkeypatch.undo()
        await cluster.leader()

    monkeypatch.setattr(chore, "run", dies)
    monkeypatch.setattr(Node, "retire", watched)
    led(main)


@pytest.mark.parametrize("others_answer", [True, False])
def test_a_leader_cut_off_with_the_server_at_hand_lets_its_clients_go_soon(led: Led, others_answer: bool) -> None:
    """A server that answers and stores nothing is in an election, or cut off. The other nodes tell which."""

    async def main(cluster: Cluster, leader: Seat) -> None:
        await leader.write(b"before")
        await cluster.agree()
        if not others_answer:
            for seat in cluster.others(leader):
                await seat.kill()
        cluster.sea.up = False
        loop = asyncio.get_running_loop()
        began_s = loop.time()
        while leader.doors.node is not None:  # noqa: ASYNC110 the clock jumps
            await asyncio.sleep(0.1)
        took_s = loop.time() - began_s
        assert (14 < took_s < 19) if others_answer else (5 < took_s < 9)
        cluster.sea.up = True

    led(main)


async def opened_unheard(clock: JumpClock, after_s: float, *, held: bool = False) -> tuple[Cluster, Seat, Seat]:
    """A cluster of two: the first one's OPEN is stored, and it does not know; the second one, started then, leads.

    `held`: the first one's disk takes its time.
    """
    cluster = Cluster(clock, KIND, names="ab")
    first, other = cluster.seats.values()

    def stored() -> None:
        first.disk.log.held = held
        first.stream.connected = cluster.sea.last == 1

    unwatch = cluster.sea.watch(stored)
    first.start()
    await asyncio.sleep(after_s)
    assert cluster.sea.last == 2
    unwatch()
    other.start()
    assert await cluster.leader() is other
    return cluster, first, other


def test_g6_an_open_that_came_to_nothing_is_part_of_the_log_all_the_same(jump: Jump, clock: JumpClock) -> None:
    async def main() -> None:
        cluster, first, other = await opened_unheard(clock, 5.0, held=True)
        first.stream.connected = True
        await asyncio.sleep(1)
        assert [event for event, _ in first.told] == ["another node leads"]
        first.disk.log.held = False
        first.disk.log.release()
        await other.write(b"x")
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
        cluster, first, other = await opened_unheard(clock, 0.5)
        first.disk.log.held = True  # the OPEN is on its way to the own log when the other one is found behind it
        first.stream.connected = True
        await asyncio.sleep(1)
        first.disk.log.held = False
        assert first.disk.log.release() == 1
        await asyncio.sleep(1)
        assert [event for event, _ in first.told] == ["another node leads"]
        await other.write(b"x")
        await cluster.agree()
        assert first.alive
        await cluster.close()

    jump(main())


def test_the_stream_is_down_for_a_while_and_nobody_is_deposed_for_it(led: Led) -> None:
    async def main(cluster: Cluster, leader: Seat) -> None:
        node = leader.serving
        cluster.sea.up = False
        waiting = asyncio.create_task(leader.write(b"through the outage"))
        await asyncio.sleep(10)
        assert not waiting.done()
        cluster.sea.up = True
        await asyncio.wait_for(waiting, 2)
        await asyncio.sleep(5)
        assert leader.doors.node is node
        await cluster.agree()

    led(main)


def test_a_node_that_was_away_catches_up_from_the_stream(led: Led) -> None:
    async def main(cluster: Cluster, leader: Seat) -> None:
        away = cluster.others(leader)[0]
        await away.kill()
        for n in range(100):
            await leader.write(b"%d" % n)
        away.start()
        await cluster.agree()
        assert away.disk.replaced == 0

    led(main)


def test_what_others_publish_is_void_and_counted(led: Led) -> None:
    async def main(cluster: Cluster, leader: Seat) -> None:
        for n in range(20):
            cluster.sea.store(b"what is this? %d" % n, None)
            await leader.write(b"%d" % n)
        await cluster.agree()
        assert all(seat.member.voids >= 20 for seat in cluster.seats.values())
        assert leader.doors.node is not None

    led(main)


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


def test_g6_a_leader_that_is_deposed_while_its_disk_writes_waits_for_the_disk(led: Led) -> None:
    async def main(cluster: Cluster, leader: Seat) -> None:
        await leader.write(b"a")
        await cluster.agree()
        leader.disk.log.held = True
        node = leader.serving
        node.new(node.presence.attach(), 7, [b"in the stream, not on the disk yet"])
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

    led(main)
