"""A leader that is asked to step down, or that must: who leads next, and what whoever asked is told."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

import pytest

from tests.cluster.world import KIND, Cluster, Led, Seat
from tests.node.world import PlayedRoute
from truba.cluster.log import ReplicatedLog
from truba.errors import Busy, Deposed, LogRegression, Unavailable, UnknownKind, UnknownOutcome
from truba.kinds import Kind
from truba.node.checkpoint import Checkpointer


def test_a_planned_step_down_takes_less_than_a_second(led: Led) -> None:
    async def main(cluster: Cluster, leader: Seat) -> None:
        loop = asyncio.get_running_loop()
        for _ in range(4):
            await leader.write(b"x")
            successor = cluster.others(leader)[0]
            started_s = loop.time()
            await leader.member.step_down(successor.name)
            leader = await cluster.leader()
            assert leader is successor
            assert loop.time() - started_s < 1
            await cluster.agree()

    led(main)


def test_who_asks_a_leader_that_is_stepping_down_already_is_told_so(led: Led) -> None:
    async def main(cluster: Cluster, leader: Seat) -> None:
        successor = cluster.others(leader)[0]
        first, second = await asyncio.gather(
            *(leader.member.step_down(successor.name) for _ in range(2)), return_exceptions=True
        )
        assert first is None
        assert isinstance(second, Unavailable)
        assert "stepping down already" in str(second)
        assert await cluster.leader() is successor
        with pytest.raises(Unavailable, match="does not lead; nothing was changed"):
            await leader.member.step_down(successor.name)

    led(main)


def test_a_leader_that_was_deposed_follows_at_once(led: Led, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who should be next is not its to say any more, and nodes that do not answer take seconds to ask."""
    tails, takes_s = Cluster.tails, 0.0

    async def slow(cluster: Cluster) -> Mapping[str, int]:
        await asyncio.sleep(takes_s)
        return await tails(cluster)

    async def main(cluster: Cluster, leader: Seat) -> None:
        nonlocal takes_s
        takes_s = 6.0  # the others do not answer any more
        leader.serving.give_up(Deposed("another node leads"))
        await asyncio.sleep(0.5)
        assert leader.member.role == "follower"

    monkeypatch.setattr(Cluster, "tails", slow)
    led(main)


def test_a_leader_decides_by_the_kinds_that_it_took_as_a_follower(led: Led) -> None:
    """Its state is older than that: it was taken along from when this node led before, and was given kinds then."""

    async def main(cluster: Cluster, first: Seat) -> None:
        def reload(*kinds: Kind) -> None:
            cluster.kinds = kinds
            for seat in cluster.seats.values():
                if seat.member.machine is not None:
                    seat.member.machine.refuse_to_lose(kinds)
                if seat.member.node is not None:
                    seat.member.node.reconfigure(kinds, {kind.number: PlayedRoute() for kind in kinds})
                seat.member.take_kinds(kinds)

        second = cluster.others(first)[0]
        reload(KIND, Kind(8, "payment", handler="played:"))
        await first.member.step_down(second.name)
        assert await cluster.leader() is second
        await cluster.agree()
        reload(KIND, Kind(9, "refund", handler="played:"))
        await second.member.step_down(first.name)
        assert await cluster.leader() is first
        node = first.serving
        node.new(node.presence.attach(), 9, [b"x"])
        with pytest.raises(UnknownKind):
            node.new(node.presence.attach(), 8, [b"x"])
        await node.sequencer.flush()
        with pytest.raises(Busy, match="refund has 1 session"):
            reload(KIND)

    led(main)


@pytest.mark.parametrize("ends", ["it stops", "it is deposed"])
def test_a_step_down_asked_of_a_node_that_is_about_to_lead_no_more_is_refused(
    led: Led, monkeypatch: pytest.MonkeyPatch, ends: str
) -> None:
    """Nobody would answer it any more, and the process would wait for the end of its line in the audit log."""
    wait = Checkpointer.wait

    async def long(checkpointer: Checkpointer) -> None:
        await asyncio.sleep(5)
        await wait(checkpointer)

    async def main(cluster: Cluster, leader: Seat) -> None:
        node = leader.serving
        monkeypatch.setattr(Checkpointer, "wait", long)
        if ends == "it stops":
            leader.member.stop()
        else:
            node.give_up(Deposed("another node leads"))
        await asyncio.sleep(2)
        assert leader.doors.node is None
        with pytest.raises(Unavailable, match="does not lead"):
            await asyncio.wait_for(leader.member.step_down("b"), 60)

    led(main)


def test_a_step_down_that_ends_the_node_is_answered(led: Led, monkeypatch: pytest.MonkeyPatch) -> None:
    async def resign(log: ReplicatedLog, successor: str = "") -> None:
        raise LogRegression("the stream went back just now")

    async def main(cluster: Cluster, leader: Seat) -> None:
        monkeypatch.setattr(ReplicatedLog, "resign", resign)
        with pytest.raises(UnknownOutcome):
            await asyncio.wait_for(leader.member.step_down("b"), 60)
        monkeypatch.undo()
        assert leader.task is not None
        with pytest.raises(LogRegression):
            await leader.task

    led(main)


def test_a_checkpoint_that_fails_while_a_leader_resigns_ends_the_node(
    led: Led, monkeypatch: pytest.MonkeyPatch
) -> None:
    """There will be no other one: its log would grow for ever."""
    resign = ReplicatedLog.resign

    def fails(*_: object) -> None:
        raise OSError(5, "Input/output error")

    async def main(cluster: Cluster, leader: Seat) -> None:
        await leader.write(b"x")
        checkpointer = leader.serving.checkpointer
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

    led(main)
