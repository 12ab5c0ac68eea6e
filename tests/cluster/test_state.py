"""What a member has on its own disk: checkpoints of exactly one place, a peer's in the place of what is too old."""

from __future__ import annotations

import asyncio

import pytest

from tests.cluster.loop import StormLoop
from tests.cluster.world import Cluster, Disk, Led, Seat, led_by_one
from truba.errors import Unavailable
from truba.machine.layers import Layer
from truba.machine.machine import Machine
from truba.testing.jump import JumpClock


@pytest.mark.parametrize("stops", [True, False])
def test_g6_a_checkpoint_of_a_follower_does_not_claim_what_comes_to_its_disk_meanwhile(
    led: Led, monkeypatch: pytest.MonkeyPatch, stops: bool
) -> None:
    """A log that writes on a thread is longer from one moment to the next; the state is so a turn of the loop later."""
    freeze = Machine.freeze

    async def main(cluster: Cluster, leader: Seat) -> None:
        await cluster.agree()
        seat = cluster.others(leader)[0]
        machine, log = seat.member.machine, seat.disk.log
        assert machine is not None
        log.held = True
        await leader.write(b"on its way to the disk")
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

    led(main)


@pytest.mark.parametrize("leads", [True, False])
def test_a_last_checkpoint_that_fails_is_no_clean_stop(led: Led, monkeypatch: pytest.MonkeyPatch, leads: bool) -> None:
    def fails(*_: object) -> None:
        raise OSError(5, "Input/output error")

    async def main(cluster: Cluster, leader: Seat) -> None:
        await leader.write(b"x")
        await cluster.agree()
        seat = next(seat for seat in cluster.seats.values() if (seat is leader) is leads)
        monkeypatch.setattr(seat.disk.store, "commit", fails)
        with pytest.raises(OSError, match="Input/output"):
            await seat.stop()

    led(main)


def test_a_node_that_was_away_for_too_long_takes_a_checkpoint_from_a_peer(led: Led) -> None:
    async def main(cluster: Cluster, leader: Seat) -> None:
        away = cluster.others(leader)[0]
        await leader.write(b"seen by all")
        await cluster.agree()
        await away.kill()
        for n in range(300):
            await leader.write(b"%d" % n * 200)
            await asyncio.sleep(0.1)
        await asyncio.sleep(10)
        assert cluster.sea.first > 100
        away.start()
        await cluster.agree()
        assert away.disk.replaced == 1
        assert away.member.trouble == ""

    led(main, checkpoint_bytes=20_000, keep_bytes=50_000)


def test_a_stop_does_not_wait_for_a_checkpoint_that_is_on_its_way(led: Led, monkeypatch: pytest.MonkeyPatch) -> None:
    begun: list[float] = []

    async def slow(self: Disk) -> None:
        begun.append(asyncio.get_running_loop().time())
        await asyncio.sleep(3_600)

    async def main(cluster: Cluster, leader: Seat) -> None:
        await cluster.agree()
        seat = cluster.others(leader)[0]
        await seat.stop()
        monkeypatch.setattr(Disk, "replace", slow)
        for n in range(20):
            await leader.write(b"%d" % n)
            await asyncio.sleep(1)
        seat.start()
        async with asyncio.timeout(30):
            while not begun:  # noqa: ASYNC110 the clock jumps
                await asyncio.sleep(0.1)
        await asyncio.wait_for(seat.stop(), 10)

    led(main, keep_bytes=0)


@pytest.mark.parametrize("leads", [True, False])
def test_a_node_that_could_not_write_a_checkpoint_gives_none(led: Led, leads: bool) -> None:
    async def main(cluster: Cluster, leader: Seat) -> None:
        await leader.write(b"a")
        await cluster.agree()
        seat = leader if leads else cluster.others(leader)[0]

        def full(staged: object, summary: object) -> None:
            raise OSError("the disk is full")

        seat.disk.store.commit = full  # type: ignore[method-assign]
        for _ in range(2):  # the second time it need not even try
            with pytest.raises(Unavailable, match="the disk is full"):
                await seat.member.checkpoint()
        assert seat.task is not None
        with pytest.raises(OSError, match="the disk is full"):
            await seat.task

    led(main)


def test_who_asks_a_node_that_ends_for_a_checkpoint_does_not_keep_it_busy(clock: JumpClock) -> None:
    """Its state will never be that of its log any more: a batch came to the disk when nobody was there to apply it."""

    async def main(cluster: Cluster, leader: Seat) -> None:
        await cluster.agree()
        seat = cluster.others(leader)[0]
        seat.disk.log.held = True
        await leader.write(b"on its way to the disk")
        await asyncio.sleep(0.1)
        assert seat.task is not None
        seat.task.cancel()
        seat.disk.log.held = False
        seat.disk.log.release()
        asked = asyncio.create_task(seat.member.checkpoint())
        await asyncio.sleep(1)
        with pytest.raises(Unavailable, match="or has stopped"):
            await asked

    with asyncio.Runner(loop_factory=lambda: StormLoop(clock)) as runner:
        runner.run(led_by_one(main, clock))


def test_every_node_keeps_its_own_log_short(led: Led) -> None:
    async def main(cluster: Cluster, leader: Seat) -> None:
        for n in range(60):
            await leader.write(b"%d" % n * 50)
            await asyncio.sleep(0.1)
        await cluster.agree()
        for seat in cluster.seats.values():
            applied = seat.disk.store.summary.applied
            assert 0 < applied.seq == seat.disk.shelf.begin.seq, seat.name
            assert seat.disk.log.size_bytes < 5_000 + 1_000, seat.name

    led(main, checkpoint_bytes=5_000)


def test_a_node_that_missed_nothing_but_beats_needs_no_checkpoint(led: Led) -> None:
    async def main(cluster: Cluster, leader: Seat) -> None:
        await leader.write(b"x")
        await cluster.agree()
        away, other = cluster.others(leader)
        away.stream.connected = False
        await other.kill()
        before = cluster.sea.first
        await asyncio.sleep(60)
        other.start()
        await asyncio.sleep(20)
        assert cluster.sea.first > before + 10
        away.stream.connected = True
        await asyncio.sleep(5)
        await leader.write(b"y")
        await cluster.agree()
        assert (away.disk.replaced, other.disk.replaced) == (0, 0)

    led(main, keep_bytes=100)
