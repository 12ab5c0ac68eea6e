"""Storms: everything that may go wrong in a cluster goes wrong at random, by a seed; nothing acknowledged is lost."""

from __future__ import annotations

import asyncio
import random
from dataclasses import dataclass, field

import pytest

from tests.cluster.world import Cluster, Seat
from truba.errors import OperationError
from truba.kinds import Kind
from truba.testing.jump import JumpClock, run_jumping
from truba.types import Index

KIND = Kind(7, "transfer", handler="played:", recovery_delay_s=1.0, jitter_s=0.5)


@dataclass
class Job:
    """What a client knows of its session."""

    id: Index
    records: list[bytes]
    maybe: list[bytes] | None = None  # records as they are if the one operation of unknown outcome happened
    deleted: bool = False
    maybe_deleted: bool = False


@dataclass
class Storm:
    seed: int
    clock: JumpClock
    jobs: list[Job] = field(default_factory=list)
    unknown_news: int = 0
    kills: int = 0

    def __post_init__(self) -> None:
        self.dice = random.Random(self.seed)
        self.lossy = False
        self.cluster = Cluster(
            self.clock, KIND, delays=self.delays, checkpoint_bytes=self.dice.choice([4_000, 1 << 20]), keep_bytes=20_000
        )
        self.over = False

    def delays(self) -> tuple[float | None, float | None]:
        dice = self.dice
        if not self.lossy:
            return 0.001, 0.001
        there = None if dice.random() < 0.1 else dice.expovariate(100) + (3.0 if dice.random() < 0.02 else 0.0)
        return there, None if dice.random() < 0.1 else dice.expovariate(100)

    async def run(self) -> None:
        try:
            await self.rage()
        except BaseException:
            for seat in self.cluster.seats.values():  # else who waits for them could not be cancelled
                if seat.alive:
                    await seat.kill()
            raise

    async def rage(self) -> None:
        self.cluster.start()
        await self.cluster.leader()
        clients = [asyncio.create_task(self.client(n)) for n in range(6)]
        await self.weather()
        self.over = True
        await asyncio.wait(clients, timeout=120)
        assert all(client.done() for client in clients)
        for client in clients:
            client.result()
        for seat in self.cluster.seats.values():
            if not seat.alive:
                await self.ended(seat)
                seat.start()
        await self.cluster.leader()
        await self.cluster.agree()
        self.check()
        await self.cluster.close()

    async def ended(self, seat: Seat) -> None:
        """A node may have been killed; it may not have given up by itself."""
        assert seat.task is not None
        if not seat.task.cancelled() and (error := seat.task.exception()) is not None:
            raise AssertionError(f"seed {self.seed}: {seat.name} gave up") from error

    async def weather(self) -> None:
        dice, cluster = self.dice, self.cluster
        seats = list(cluster.seats.values())
        for _ in range(25):
            await asyncio.sleep(dice.expovariate(0.5))
            seat = dice.choice(seats)
            match dice.choice(["kill", "kill", "cut", "lossy", "sea", "foreign", "clock", "step down"]):
                case "kill" if seat.alive:
                    self.kills += 1
                    await seat.kill()
                    if dice.random() < 0.7:
                        seat.start()
                case "cut":
                    seat.stream.connected = not seat.stream.connected
                case "lossy":
                    self.lossy = not self.lossy
                case "sea":
                    cluster.sea.up = not cluster.sea.up
                case "foreign":
                    cluster.sea.store(dice.randbytes(20), None)
                case "clock":
                    self.clock.wall_ms += dice.choice([-3_600_000, 3_600_000])
                case "step down" if seat.alive and seat.member.role == "leader":
                    resigning = asyncio.create_task(seat.member.step_down())
                    await asyncio.wait([resigning], timeout=5)
                    if resigning.done():
                        resigning.exception()
                    else:
                        resigning.cancel()
            for other in seats:
                if not other.alive:
                    if other.stream.connected:
                        await self.ended(other)
                    if dice.random() < 0.3:
                        other.start()
        self.lossy = False
        cluster.sea.up = True
        for seat in seats:
            seat.stream.connected = True

    async def client(self, n: int) -> None:
        dice = random.Random(self.seed * 100 + n)
        while not self.over:
            await asyncio.sleep(dice.expovariate(20))
            leading = [seat for seat in self.cluster.seats.values() if seat.alive and seat.doors.node is not None]
            if leading:
                await self.job(dice, dice.choice(leading), n)

    async def job(self, dice: random.Random, seat: Seat, n: int) -> None:
        node = seat.doors.node
        assert node is not None
        owner = node.attach()
        record = dice.randbytes(dice.randrange(1, 60))
        try:
            hold = node.new(owner, 7, [record])
        except OperationError:
            return
        job = Job(hold.id, [record])
        try:
            await node.sequencer.flush()
        except OperationError:
            self.unknown_news += 1
            return
        self.jobs.append(job)
        for _ in range(dice.randrange(4)):
            record = dice.randbytes(dice.randrange(1, 60))
            after = [record] if dice.random() < 0.2 else [*job.records, record]
            try:
                if len(after) == 1:
                    node.replace(hold, record)
                else:
                    node.append(hold, [record])
            except OperationError:
                return
            try:
                await node.sequencer.flush()
            except OperationError:
                job.maybe = after
                return
            job.records = after
        if dice.random() < 0.6:
            try:
                node.delete(hold)
            except OperationError:
                return
            job.maybe_deleted = True
            try:
                await node.sequencer.flush()
            except OperationError:
                return
            job.deleted = True

    def check(self) -> None:
        machine = next(iter(self.cluster.seats.values())).member.machine
        assert machine is not None
        for job in self.jobs:
            head = machine.get(job.id.seq)
            if head is None or head.id != job.id:
                assert job.maybe_deleted, f"seed {self.seed}: {job} is gone"
                continue
            assert not job.deleted, f"seed {self.seed}: {job} is back"
            assert machine.records(job.id.seq) in (job.records, job.maybe), f"seed {self.seed}: {job}"


@pytest.mark.parametrize("seed", range(30))
def test_g1_g2_g6_storms(seed: int) -> None:
    clock = JumpClock(seed=seed)
    storm = Storm(seed, clock)

    async def main() -> None:
        await storm.run()

    run_jumping(main(), clock)
    assert storm.jobs


def test_a_storm_is_one() -> None:
    """Else the seeds above would prove nothing."""
    storms = []
    for seed in range(8):
        clock = JumpClock(seed=seed)
        storms.append(Storm(seed, clock))
        run_jumping(storms[-1].run(), clock)
    assert sum(storm.kills for storm in storms) > 20
    assert sum(len(storm.jobs) for storm in storms) > 1_000
    assert sum(job.maybe is not None for storm in storms for job in storm.jobs) > 5
