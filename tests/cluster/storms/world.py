"""A cluster in a storm: nodes, people, weather, and who watches them. Everything from one seed."""

from __future__ import annotations

import asyncio
import random
import traceback
from collections.abc import Callable

from tests.cluster.loop import StormLoop
from tests.cluster.storms.disaster import disaster
from tests.cluster.storms.history import History
from tests.cluster.storms.nodes import StormSeat
from tests.cluster.storms.people import Client, Operator, Service
from tests.cluster.storms.weather import Climate, RoughWay, Weather
from tests.cluster.storms.witness import Story, WatchedSea, Witness
from tests.cluster.world import Cluster
from truba.kinds import Backoff, Kind
from truba.machine.digest import state_digest
from truba.machine.machine import Machine
from truba.testing.jump import JumpClock
from truba.types import Phase

TRANSFER = Kind(
    7, "transfer", handler="played:", recovery_delay_s=0.3, jitter_s=0.3, backoff=Backoff(0.2, 2, 1.0), max_attempts=0,
    max_age_s=0, handler_timeout_s=2.0, idle_timeout_s=4.0, concurrency=4,
)  # fmt: skip
MAIL = Kind(
    8, "mail", handler="played:", recovery_delay_s=0.1, jitter_s=0.0, backoff=Backoff(0.1, 2, 0.5), max_attempts=2,
    handler_timeout_s=1.0, idle_timeout_s=2.0, concurrency=2,
)  # fmt: skip
ORDER = Kind(
    9, "order", handler="played:", recovery_delay_s=1.0, jitter_s=1.0, max_age_s=8.0, handler_timeout_s=3.0,
    concurrency=1, session_records_max=4,
)  # fmt: skip
"""Policies that differ: one never gives up, one soon does; the last one's handler has a name and comes back."""

DISASTERS = 0.25
"""Of all storms, how many end in one."""

AGREED_S = 60.0
DRAINED_S = 90.0


class StormWorld(Cluster):
    """`run` it once, on a `StormLoop`. `witness.wrong` and `failed` say what went wrong."""

    seats: dict[str, StormSeat]  # type: ignore[assignment]
    sea: WatchedSea

    def __init__(self, seed: int, clock: JumpClock, show: Callable[[str], object] | None = None) -> None:
        self.seed = seed
        self.dice = dice = random.Random(f"{seed} world")
        self.climate = Climate(dice)
        self.story = Story(clock, show)
        loop = asyncio.get_running_loop()
        assert isinstance(loop, StormLoop)
        self.loop = loop
        loop.set_exception_handler(self._defect)
        self.over = False  # clients begin nothing more
        self.healed = False
        self.failed = ""
        self.disaster = ""
        self.tags = 0
        self._cut: dict[str, int] = {}
        names = dice.choice(("abc", "abc", "abc", "ab", "abcde"))
        super().__init__(
            clock, TRANSFER, MAIL, ORDER, names=names, checkpoint_bytes=dice.choice((3_000, 20_000, 1 << 20)),
            keep_bytes=dice.choice((4_000, 20_000, 1 << 20)),
        )  # fmt: skip
        self.witness = Witness(self.story, self.sea)
        self.history = History(self.witness)
        self.services = {
            7: Service(self, TRANSFER),
            8: Service(self, MAIL),
            9: Service(self, ORDER, b"the name of the order service"),
        }
        self.clients = [Client(self, f"client-{n}") for n in range(dice.choice((2, 3, 5)))]
        self.operator = Operator(self, "operator")
        self.weather = Weather(self)

    def make_sea(self) -> WatchedSea:
        return WatchedSea()

    def make_seat(self, name: str) -> StormSeat:
        seat = StormSeat(self, name)
        seat.way = RoughWay(self.climate, random.Random(f"{self.seed} way of {name}"))
        return seat

    # -- what its parts ask ------------------------------------------------------------------------------------

    def latency_s(self) -> float:
        return self.dice.expovariate(1.0) * self.climate.latency_s

    def sync_s(self) -> float:
        return self.dice.expovariate(1.0) * self.climate.sync_s

    def notice_s(self) -> float:
        """How long it takes to notice that a connection was cut."""
        return self.dice.uniform(0.1, 3.0)

    def cut(self, name: str) -> None:
        self._cut[name] = self._cut.get(name, 0) + 1
        self.seats[name].stream.connected = False

    def join(self, name: str) -> None:
        self._cut[name] -= 1
        seat = self.seats[name]
        if seat.alive:
            seat.stream.connected = not self.is_cut(name)

    def is_cut(self, name: str) -> bool:
        return self._cut.get(name, 0) > 0

    def find_door(self, dice: random.Random) -> StormSeat | None:
        """Where clients are let in: by a leader, or by one that does not know yet that it is none."""
        doors = [seat for seat in self.seats.values() if seat.node is not None and not seat.cut_off]
        return dice.choice(doors) if doors else None

    def fail(self, error: BaseException | None) -> None:
        """The storm itself is broken, or a node does what no code of it should."""
        text = "".join(traceback.format_exception(error)) if error is not None else "nobody knows"
        self.failed = self.failed or text
        self.story.tell("DEFECT", repr(error))

    def _defect(self, _: asyncio.AbstractEventLoop, context: dict[str, object]) -> None:
        error = context.get("exception")
        self.fail(error if isinstance(error, BaseException) else RuntimeError(str(context.get("message"))))

    @property
    def ruined(self) -> bool:
        return bool(self.failed or self.witness.wrong)

    # -- the course of a storm -----------------------------------------------------------------------------------

    async def run(self, seconds: float, pause_s: float) -> None:
        try:
            await self._run(seconds, pause_s)
        finally:
            self.over = self.healed = True
            for person in (*self.clients, *self.services.values(), self.operator):
                await person.leave()
            for seat in self.seats.values():
                if seat.alive:
                    await seat.kill()

    async def _run(self, seconds: float, pause_s: float) -> None:
        self.start()
        await self.leader()
        for client in self.clients:
            client.start()
        await self.weather.rage(seconds, pause_s)
        self.over = True
        await self._until("clients have ended", 30.0, lambda: not any(client.busy for client in self.clients))
        await self._heal()
        await self.agreed()
        await self._drain({7, 9}, dead=8)
        await self._drain({7, 8, 9}, dead=None)
        await self.agreed()
        if self.dice.random() < DISASTERS and not self.ruined:
            await disaster(self)
        for seat in self.seats.values():
            if not self.ruined:
                seat.spoilt = "stopped"
                await seat.stop()
                seat.ended()

    async def _until(self, what: str, seconds: float, holds: Callable[[], bool]) -> None:
        end_s = self.loop.time() + seconds
        while not holds() and not self.ruined:
            if self.healed:
                for seat in self.seats.values():
                    if not seat.alive:  # all that was broken is mended: nobody has a reason now
                        seat.ended()
            if self.loop.time() > end_s:
                self.witness.complain(f"not within {seconds:g} s: {what}; {'; '.join(self.stands())}")
            await asyncio.sleep(0.1)

    async def _heal(self) -> None:
        """All that was broken is mended. The clocks agree on the latest time that any of them has shown."""
        if self.ruined:
            return
        self.story.tell("weather", "is fine again")
        self.healed = True
        self.sea.up = True
        self._cut.clear()
        latest_ms = max(seat.clock.ahead_ms for seat in self.seats.values())
        for service in self.services.values():
            service.mood = "fine"
        for seat in self.seats.values():
            seat.thaw()
            seat.cut_off = False
            assert isinstance(seat.way, RoughWay)
            seat.way.rough = False
            seat.clock.set(latest_ms)
            if seat.alive:
                seat.stream.connected = True
                seat.disk.log.space = "plenty"
        await asyncio.sleep(0)
        for seat in self.seats.values():
            if seat.alive and seat.spoilt:  # stopping, or about to stumble over its disk: have it over with
                await seat.kill()
            if not seat.alive:
                if seat.back_at_s == 0.0:
                    seat.ended()
                seat.back_at_s = 0.0
                seat.start()

    async def agreed(self) -> None:
        """All nodes are at one place with one state, and it is what its owners were told."""
        found: list[Machine] = []

        def agreed() -> bool:
            machines = [seat.member.machine for seat in self.seats.values()]
            found[:] = [machine for machine in machines if machine is not None]
            tails = {seat.disk.log.tail for seat in self.seats.values()}
            return (
                all(seat.alive for seat in self.seats.values())
                and any(seat.node is not None for seat in self.seats.values())
                and len(found) == len(machines)
                and {machine.seq for machine in found} == {tail.seq for tail in tails}
                and len(tails) == 1
            )

        await self._until("all nodes agree", AGREED_S, agreed)
        if self.ruined:
            return
        if len(digests := {state_digest(machine) for machine in found}) > 1:
            self.witness.complain(f"all nodes are at event {found[0].seq}, in different states: {digests}")
        self.history.compare(found[0])

    async def _drain(self, kinds: set[int], dead: int | None) -> None:
        """Everything unfinished of these kinds gets delivered and finished, though another kind's handler is dead."""
        for number, service in self.services.items():
            service.mood = "dead" if number == dead else "fine"
        if self.ruined:
            return
        self.story.tell("world", f"waits until kinds {sorted(kinds)} are finished, {dead or 'nobody'} is dead")
        end_s = self.loop.time() + DRAINED_S
        while not self.ruined:
            seat = self.find_door(self.dice)
            machine = seat.node.machine if seat is not None and seat.node is not None else None
            if machine is not None and not any(count for (kind, _), count in machine.counts.items() if kind in kinds):
                return
            if self.loop.time() > end_s:
                left = (
                    {f"{kind} {phase}": count for (kind, phase), count in machine.counts.items()} if machine else None
                )
                self.witness.complain(f"not finished within {DRAINED_S:g} s: {left}; {'; '.join(self.stands())}")
                return
            if seat is not None and machine is not None and (paused := kinds & machine.paused):
                await self.operator.continue_all(seat, paused)
            if seat is not None and machine is not None and any(machine.counts[kind, Phase.PARKED] for kind in kinds):
                await self.operator.resume_all(seat, kinds)
            await asyncio.sleep(0.5)

    def stands(self) -> list[str]:
        """Where everybody stands."""
        return [f"the stream holds {self.sea.first} to {self.sea.last}"] + [
            f"{seat.name}: {seat.member.role if seat.alive else 'dead'}, log at {seat.disk.log.tail[:2]}, stream read"
            f" through {seat.member.stream_seq}, {seat.member.trouble or 'no trouble'}"
            for seat in self.seats.values()
        ]

    async def tails(self) -> dict[str, int]:
        return {name: seat.disk.log.tail.seq if seat.reachable else 0 for name, seat in self.seats.items()}
