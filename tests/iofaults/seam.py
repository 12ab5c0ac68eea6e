"""`seam_case(n)`: the real node and log on a simulated disk, one call of which fails; then the power fails, or not.

What strace cannot do is done here: a write that wrote half, a failed sync after which the system calls the lost pages
clean, power lost afterwards, and thousands of cases a minute. The store is in memory, its commits are counted with the
disk's calls. Everything of a case comes from n: clocks jump, and the log works inline.
"""

from __future__ import annotations

import asyncio
import errno
import random
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import lru_cache
from typing import NamedTuple

from tests.iofaults.ledger import Job, Records, Verb, compare, name_of
from tests.iofaults.spread import spread
from tests.log.support import HOME, FaultyDisk, open_log
from tests.node.world import PlayedRoute, nobody
from truba.errors import DataError, LogPoisoned, OperationError, Unavailable, UnknownOutcome
from truba.kinds import Backoff, Kind
from truba.node.node import Limits, Node
from truba.node.owners import Handover, Hold, Owner
from truba.node.recovery import recover
from truba.ports.store import Staged, Summary
from truba.store.memory import MemoryStore
from truba.testing.disk import SimulatedDisk
from truba.testing.jump import JumpClock, run_jumping

KIND = Kind(7, "transfer", handler=nobody, recovery_delay_s=1, jitter_s=0.5, backoff=Backoff(0.1, 2, 1))
CHECKPOINT_BYTES = 12_000
CLIENTS = 3
SESSIONS = 5
LONGER_THAN_ANY_S = 3_600.0
FULL = (errno.ENOSPC, errno.EDQUOT)


class Variant(NamedTuple):
    """How a call fails. `code` 0: it does not fail, and writes a part only."""

    code: int
    half: bool = False  # a failing write has written a part
    lost: bool = False  # after a failing sync, pages not written count as written

    def __str__(self) -> str:
        name = errno.errorcode[self.code] if self.code else "short write"
        return name + ", partly written" * self.half + ", pages lost" * self.lost


VARIANTS = (
    Variant(errno.EIO),
    Variant(errno.EIO, lost=True),
    Variant(errno.EIO, half=True, lost=True),
    Variant(errno.ENOSPC),
    Variant(errno.ENOSPC, half=True),
    Variant(errno.EDQUOT),
    Variant(errno.EROFS),
    Variant(errno.EMFILE),
    Variant(0),
)


PARTS = (0.02, 0.5, 0.95)
"""Of a write: the records may lie in the first half of a frame, and what follows is padding."""


class Disk(FaultyDisk):
    """Counts reads too."""

    CALLS = (*FaultyDisk.CALLS, "pread", "listdir")


class Store(MemoryStore):
    """Its commits are among the calls that fail."""

    fails: Callable[[], None] = staticmethod(lambda: None)

    def commit(self, staged: Staged, summary: Summary) -> None:
        self.fails()
        super().commit(staged, summary)


@dataclass(eq=False)
class Route(PlayedRoute):
    """A handler that adds a record to what it is given, and finishes it, or stores it, or is late."""

    world: World | None = None

    def repeat(self, handover: Handover) -> bool:
        world = self.world
        assert world is not None
        job = world.jobs[name_of(handover.records)]
        assert not job.gone, f"{job.name!r} was handed over after its Delete"
        states = list(job.states())
        assert handover.records in states, f"{job.name!r} was handed over with other records than it has"
        world.epochs[handover.hold.number] = handover.hold.epoch
        world.loop.call_later(world.dice.choice((0, 0.3, 2)), world.finish, job, handover)
        return super().repeat(handover)


class World:
    """One life of a node on the disk, its clients, and what they were told."""

    def __init__(self, seed: int) -> None:
        self.dice = random.Random(seed)
        self.disk = SimulatedDisk(seed)
        self.faulty = Disk(self.disk)
        self.store = Store()
        self.clock = JumpClock(seed=seed)
        self.jobs: dict[bytes, Job] = {}
        self.epochs: dict[int, int] = {}  # the last hand-over that a handler has heard of, by session
        self.lives = 0

    def live(self) -> BaseException | None:
        """Open, work, stop; the error that ended it early."""
        return run_jumping(self._live(), self.clock, threads=False)

    async def _live(self) -> BaseException | None:
        self.loop = asyncio.get_running_loop()
        self.lives += 1
        async with asyncio.timeout(LONGER_THAN_ANY_S):
            try:
                log = open_log(HOME, disk=self.faulty)
            except DataError as error:
                return error
            try:
                route = Route(world=self)
                limits = Limits(checkpoint_bytes=CHECKPOINT_BYTES)
                try:
                    node = Node(log, self.store, (KIND,), {7: route}, limits=limits, clock=self.clock)
                except (DataError, LogPoisoned) as error:
                    return error
                try:
                    await node.start()
                    self.node = node
                    await asyncio.gather(*(self._client(at) for at in range(CLIENTS)))
                    await asyncio.sleep(5)
                except UnknownOutcome:
                    assert node.failed.done()
                finally:
                    await node.stop()
                if node.failed.done():
                    return node.failed.result()
                try:
                    log.position_at(0)  # hears of what failed after the last batch
                except LogPoisoned as error:
                    return error
                return None
            finally:
                log.close()

    # -- clients and handlers ---------------------------------------------------------------------------------

    async def _client(self, number: int) -> None:
        owner = self.node.presence.attach()
        for made in range(SESSIONS):
            await asyncio.sleep(self.dice.choice((0, 0, 0.1)))
            if self.node.failed.done():
                return
            job = Job(b"%d.%d.%d" % (self.lives, number, made))
            self.jobs[job.name] = job
            await self._session(owner, job)
            if self.dice.random() < 0.1:
                self.node.presence.detach(owner)
                owner = self.node.presence.attach()

    async def _session(self, owner: Owner, job: Job) -> None:
        """New, some records, an end or none; and perhaps a wait for the answers."""
        dice, node = self.dice, self.node
        records = self._records(job, dice.randrange(1, 3))
        holds: list[Hold] = []
        self._try(job, "new", records, lambda: holds.append(node.new(owner, 7, records)))
        if not holds:
            return
        (hold,) = holds
        for _ in range(dice.randrange(4)):
            if dice.random() < 0.8:
                self._step(job, hold)
            if dice.random() < 0.3:
                await asyncio.sleep(0)
        if (end := dice.random()) < 0.4:
            self._try(job, "delete", [], lambda: node.delete(hold))
        elif end < 0.7:
            delay_ms = dice.choice((0, 500, 10_000_000))
            self._try(job, "store", [], lambda: node.store(hold, delay_ms))
        if dice.random() < 0.7 and node.sequencer.latest is not None:
            await asyncio.wait([node.sequencer.latest.durable()])

    def _step(self, job: Job, hold: Hold) -> None:
        if self.dice.random() < 0.8:
            records = self._records(job, self.dice.randrange(1, 3))
            self._try(job, "append", records, lambda: self.node.append(hold, records))
        else:
            (record,) = self._records(job, 1)
            self._try(job, "replace", [record], lambda: self.node.replace(hold, record))

    def finish(self, job: Job, handover: Handover) -> None:
        """The handler's part."""
        if self.node.failed.done() or handover.hold.ended:
            return
        self._step(job, handover.hold)
        if handover.hold.ended or self.node.failed.done():
            return
        if self.dice.random() < 0.7:
            self._try(job, "delete", [], lambda: self.node.delete(handover.hold))
        else:
            self._try(job, "store", [], lambda: self.node.store(handover.hold, 1_000))

    def _records(self, job: Job, count: int) -> Records:
        size = self.dice.choice((10, 10, 300, 2_000, 5_000))
        return [b"%b/%d:" % (job.name, self.dice.getrandbits(60)) + b"x" * size for _ in range(count)]

    def _try(self, job: Job, verb: Verb, records: Records, act: Callable[[], object]) -> None:
        """Decide now; hear later."""
        try:
            act()
        except Unavailable:
            return  # nothing was stored
        except UnknownOutcome:
            job.ask(verb, records)
            job.unknown = True
            return
        except OperationError as error:
            raise AssertionError(f"{job.name!r}: {verb} was refused: {error}") from error
        job.ask(verb, records)

        def told(durable: bool) -> None:
            if durable:
                job.acknowledged()
            else:
                job.unknown = True

        self.node.when_durable(told)

    # -- afterwards --------------------------------------------------------------------------------------------

    def end(self, power: bool) -> None:
        """The process is gone; with `power`, the machine too."""
        if power:
            self.disk.crash()
        else:
            self.disk.kill()

    def check(self) -> None:
        """What a start without faults finds, twice, the power lost in between."""
        found = self._found()
        compare(self.jobs, found)
        self.end(power=True)
        assert self._found() == found, "recovered, and lost when the power failed afterwards"

    def _found(self) -> dict[str, Records]:
        log = open_log(HOME, disk=self.disk)
        try:
            machine = recover(log, self.store, {7: KIND})
            for head in machine.scan():
                assert head.epoch >= self.epochs.get(head.number, 0), f"{head.id}: a handler heard of a later epoch"
            return {str(head.id): machine.records(head.number) for head in machine.scan()}
        finally:
            log.close()


@dataclass
class SeamTrial:
    """The `number`-th call of a life fails."""

    number: int
    variant: Variant
    begun: bool  # whether there was a life before
    power: bool
    seed: int
    struck: str = ""
    end: str = "went on"
    calls: list[str] = field(default_factory=list, repr=False)

    def run(self) -> SeamTrial:
        try:
            self._run()
        except Exception as error:
            raise AssertionError(f"{type(error).__name__}: {error}\n{self}") from error
        return self

    def _run(self) -> None:
        world = World(self.seed)
        if self.begun:
            assert world.live() is None
            world.end(power=self.power)
        world.faulty.calls.clear()
        world.faulty.half = self.variant.half
        world.faulty.part = PARTS[self.number % len(PARTS)]
        world.faulty.fails = self._strike(world)
        world.store.fails = self._commit_fails(world)
        told = world.live()
        self.calls = list(world.faulty.calls)
        world.faulty.fails = lambda name, number: None
        world.store.fails = lambda: None
        self._judge(told)
        world.end(power=self.power)
        world.check()

    def _judge(self, told: BaseException | None) -> None:
        """A failure is heard of; only a disk that is full may be lived with, while the reserve lasts."""
        self.end = "went on" if told is None else f"ended by {told}"
        if told is not None:
            assert self.struck, "it failed without a fault"
            assert self.variant.code, "a short write was not survived"
            assert f"Errno {self.variant.code}" in f"{told} {told.__cause__}", "another error is told than happened"
        elif self.struck and self.variant.code:
            assert self.variant.code in FULL, f"nobody was told that {self.struck} failed"

    def _strike(self, world: World) -> Callable[[str, int], int | None]:
        variant, disk = self.variant, world.faulty

        def strike(name: str, call: int) -> int | None:
            disk.short = call == self.number and not variant.code
            if call != self.number:
                return None
            self.struck = name
            if variant.lost and name in ("fdatasync", "fsync"):
                world.disk.forget()
            return variant.code or None

        return strike

    def _commit_fails(self, world: World) -> Callable[[], None]:
        def fails() -> None:
            world.faulty.calls.append("commit")
            if (code := world.faulty.fails("commit", len(world.faulty.calls))) is not None:
                raise OSError(code, "the commit failed")

        return fails


@lru_cache(64)
def calls(begun: bool, seed: int) -> int:
    """Of a life without faults."""
    return len(SeamTrial(0, VARIANTS[0], begun, power=False, seed=seed).run().calls)


def seam_trial(n: int) -> SeamTrial:
    """Every call with every variant, far apart first; then the next workload."""
    turn, odd = divmod(n, 4)
    begun, power = bool(odd & 1), bool(odd & 2)
    seed, place = divmod(turn, calls(begun, 0) * len(VARIANTS))
    number, variant = divmod(spread(place, calls(begun, 0) * len(VARIANTS)), len(VARIANTS))
    return SeamTrial(1 + number % calls(begun, seed), VARIANTS[variant], begun, power, seed)


def seam_case(n: int) -> None:
    """AssertionError with the story when something is wrong."""
    seam_trial(n).run()
