"""A stream that is not what it was: it went back, was purged, lost a message, holds another history."""

from __future__ import annotations

import asyncio

import pytest

from tests.cluster.world import KIND, Cluster, Led, Seat
from truba.errors import LogRegression


def test_g7_a_stream_that_went_back_stops_a_node_loudly(led: Led) -> None:
    async def main(cluster: Cluster, leader: Seat) -> None:
        for n in range(20):
            await leader.write(b"%d" % n)
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

    led(main)


@pytest.mark.parametrize("leads", [True, False])
def test_g7_a_stream_that_went_back_and_grew_again_stops_every_node(led: Led, leads: bool) -> None:
    """As long as before, with something else in the place of what was lost: only who looks there can tell."""

    async def main(cluster: Cluster, leader: Seat) -> None:
        await leader.write(b"acknowledged")
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

    led(main)


@pytest.mark.parametrize("which", ["hole", "flipped"])
def test_g7_a_message_that_is_missing_or_changed_stops_a_node_that_needs_it(led: Led, which: str) -> None:
    async def main(cluster: Cluster, leader: Seat) -> None:
        away = cluster.others(leader)[0]
        await away.kill()
        for n in range(20):
            await leader.write(b"%d" % n)
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
        await leader.write(b"the others go on")

    led(main)


def test_g7_a_stream_with_another_history_stops_a_node(led: Led) -> None:
    async def main(cluster: Cluster, leader: Seat) -> None:
        await leader.write(b"x")
        await cluster.agree()
        for seat in cluster.seats.values():
            await seat.kill()
        elsewhere = Cluster(cluster.clock, KIND)
        elsewhere.start()
        other = await elsewhere.leader()
        await other.write(b"z")
        await other.write(b"z")
        await elsewhere.close()
        cluster.sea = elsewhere.sea
        seat = next(iter(cluster.seats.values()))
        seat.start()
        assert seat.task is not None
        with pytest.raises(LogRegression, match="they are not one log"):
            await seat.task

    led(main)


@pytest.mark.parametrize("when", ["while it leads", "while nobody leads"])
def test_g7_a_purge_by_somebody_else_is_told(led: Led, when: str) -> None:
    async def main(cluster: Cluster, leader: Seat) -> None:
        for n in range(200):
            await leader.write(b"%d" % n * 50)
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
        await leader.write(b"it goes on")

    led(main, keep_bytes=20_000)


def test_a_stream_that_was_trimmed_is_not_called_purged_by_the_next_leader(led: Led) -> None:
    async def main(cluster: Cluster, leader: Seat) -> None:
        for _ in range(4):
            for n in range(60):
                await leader.write(b"%d" % n * 50)
                await asyncio.sleep(0.1)
            await asyncio.sleep(6)
            await leader.kill()
            leader.start()
            leader = await cluster.leader()
        await asyncio.sleep(10)
        assert cluster.sea.first > 100
        assert {seat.member.trouble for seat in cluster.seats.values()} == {""}

    led(main, keep_bytes=20_000)


def test_g7_a_message_that_the_engine_has_lost_is_told_and_untold_when_it_is_back(led: Led) -> None:
    async def main(cluster: Cluster, leader: Seat) -> None:
        for n in range(200):  # trimmed under the audit's feet
            await leader.write(b"%d" % n * 50)
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

    led(main, keep_bytes=20_000)
