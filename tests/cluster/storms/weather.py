"""What goes wrong in a storm, how often, and when it ends. All of it by the dice of one seed.

Each seed has a climate: about half of all troubles, some often, some seldom. A storm in which everything happens at
once hides what one trouble alone would show.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from tests.cluster.storms.nodes import StormSeat
from tests.cluster.storms.witness import is_open
from truba.errors import TrubaError
from truba.ports.stream import Message
from truba.streams.memory import Way

if TYPE_CHECKING:
    from tests.cluster.storms.world import StormWorld


class Climate:
    """Rates of what befalls messages, by seed."""

    def __init__(self, dice: random.Random) -> None:
        def rate(*choices: float) -> float:
            return dice.choice(choices) if dice.random() < 0.5 else 0.0

        self.lost = rate(0.02, 0.1, 0.3)
        self.doubled = rate(0.05, 0.3)
        self.late = rate(0.02, 0.1)  # after the sender has given up
        self.unanswered = rate(0.02, 0.1, 0.3)
        self.lingering = rate(0.3, 1.0)
        self.unheard_questions = rate(0.05, 0.2)
        self.behind = rate(0.1, 0.5)
        self.hidden = rate(0.005, 0.05)
        self.damaged = rate(0.005, 0.05)
        self.slow = rate(0.3, 0.8)
        self.latency_s = dice.choice((0.0005, 0.002, 0.02, 0.1))
        self.sync_s = dice.choice((0.0002, 0.002, 0.05, 0.2))


class RoughWay(Way):
    """One node's way to the stream. `rough`: as the climate says; else everything comes, in a moment."""

    def __init__(self, climate: Climate, dice: random.Random) -> None:
        self._climate = climate
        self._dice = dice
        self.rough = False

    def _travel_s(self) -> float:
        return self._dice.expovariate(1.0) * self._climate.latency_s

    def there(self) -> Sequence[float]:
        if not self.rough:
            return (self._travel_s(),)
        climate, chance = self._climate, self._dice.random()
        if (chance := chance - climate.lost) < 0:
            return ()
        if (chance := chance - climate.doubled) < 0:
            return (self._travel_s(), self._travel_s() * self._dice.choice((1, 1, 1000)))
        if chance - climate.late < 0:
            return (self._dice.uniform(0.5, 12.0),)
        return (self._travel_s(),)

    def back(self) -> float | None:
        return None if self._falls(self._climate.unanswered) else self._travel_s()

    def lingers(self) -> bool:
        return self._falls(self._climate.lingering)

    def ask_s(self) -> float | None:
        return None if self._falls(self._climate.unheard_questions) else self._travel_s()

    def behind(self) -> int:
        return self._dice.choice((1, 2, 5, 20)) if self._falls(self._climate.behind) else 0

    def show(self, message: Message) -> Message | None:
        if self._falls(self._climate.hidden):
            return None
        if self._falls(self._climate.damaged) and message.data:
            data = bytearray(message.data)
            data[self._dice.randrange(len(data))] ^= 1 << self._dice.randrange(8)
            return Message(message.seq, bytes(data))
        return message

    def portion(self) -> int:
        return self._dice.choice((0, 1, 3)) if self._falls(self._climate.slow) else 1 << 30

    def _falls(self, rate: float) -> bool:
        return self.rough and rate > 0 and self._dice.random() < rate


class Weather:
    """Everything that happens to nodes, stream, clocks, disks and handlers in one storm."""

    def __init__(self, world: StormWorld) -> None:
        self._world = world
        self._dice = dice = random.Random(f"{world.seed} weather")
        self._loop = asyncio.get_running_loop()
        troubles: list[tuple[Callable[[StormSeat], object], int]] = [
            (self.kill, 6),
            (self.leave_dead, 2),
            (self.stop, 2),
            (self.freeze, 4),
            (self.cut, 4),
            (self.cut_off_clients, 3),
            (self.sink, 4),
            (self.roughen, 8),
            (self.publish_by_others, 3),
            (self.purge_by_others, 1),
            (self.set_clock, 3),
            (self.step_down, 3),
            (self.break_disk, 2),
            (self.fill_disk, 2),
            (self.fail_checkpoint, 1),
            (self.change_mood, 6),
            (self.intervene, 3),
            (self.steer, 4),
        ]
        chosen = [trouble for trouble in troubles if dice.random() < 0.5] or troubles[:1]
        self._acts = [act for act, _ in chosen]
        self._weights = [weight for _, weight in chosen]
        self.counts: dict[str, int] = {}

    async def rage(self, seconds: float, pause_s: float) -> None:
        """One trouble after the other."""
        end_s = self._loop.time() + seconds
        seats = list(self._world.seats.values())
        while self._loop.time() < end_s and not self._world.failed:
            await asyncio.sleep(self._dice.expovariate(1 / pause_s))
            await self._tidy()
            act = self._dice.choices(self._acts, self._weights)[0]
            seat = self._dice.choice(seats)
            if self._dice.random() < 0.5:  # whoever leads has the most to lose
                seat = self._world.find_door(self._dice) or seat
            done = act(seat)
            if asyncio.iscoroutine(done):
                await done
            self.counts[act.__name__] = self.counts.get(act.__name__, 0) + 1

    async def _tidy(self) -> None:
        """Who has ended is started again, in a while."""
        for seat in self._world.seats.values():
            if not seat.alive and seat.task is not None:
                if seat.back_at_s == 0.0:
                    seat.ended()
                    seat.back_at_s = self._loop.time() + self._dice.expovariate(1.0)
                elif seat.back_at_s < self._loop.time():
                    seat.back_at_s = 0.0
                    seat.start()

    def _tell(self, what: str) -> None:
        self._world.story.tell("weather", what)

    def _later(self, seconds: float, undo: Callable[[], object]) -> None:
        """Ends by itself, if the storm has not ended before."""
        self._loop.call_later(seconds, lambda: None if self._world.healed else undo())

    # -- processes ---------------------------------------------------------------------------------------------

    async def kill(self, seat: StormSeat) -> None:
        if seat.alive:
            self._tell(f"kills {seat.name}")
            await seat.kill()
            seat.back_at_s = self._loop.time() + self._dice.choice((0.0, 0.0, 0.5, 4.0))

    async def leave_dead(self, seat: StormSeat) -> None:
        if seat.alive:
            self._tell(f"kills {seat.name} for long")
            await seat.kill()
            seat.back_at_s = self._loop.time() + self._dice.uniform(6, 15)

    def stop(self, seat: StormSeat) -> None:
        if seat.reachable:
            self._tell(f"stops {seat.name}")
            seat.spoilt = seat.spoilt or "stopped"
            seat.member.stop()

    def freeze(self, seat: StormSeat) -> None:
        if seat.reachable:
            seconds = self._dice.choice((0.3, 1.5, 4.0, 8.0))
            self._tell(f"freezes {seat.name} for {seconds:g} s")
            seat.freeze()
            self._later(seconds, seat.thaw)

    async def step_down(self, seat: StormSeat) -> None:
        if seat.reachable and seat.member.role == "leader":
            self._tell(f"asks {seat.name} to step down")
            others = [name for name in self._world.seats if name != seat.name]
            successor = self._dice.choice(["", *others])
            asked = self._loop.create_task(seat.member.step_down(successor), context=seat.context.copy())
            await asyncio.wait([asked], timeout=3)
            if not asked.done():
                asked.cancel()
            elif not asked.cancelled() and not isinstance(asked.exception(), TrubaError | None):
                self._world.fail(asked.exception())

    # -- the ways between them -----------------------------------------------------------------------------------

    def cut(self, seat: StormSeat) -> None:
        seconds = self._dice.choice((0.5, 3.0, 8.0))
        self._tell(f"cuts {seat.name} off from the stream for {seconds:g} s")
        self._world.cut(seat.name)
        self._later(seconds, lambda: self._world.join(seat.name))

    def cut_off_clients(self, seat: StormSeat) -> None:
        seconds = self._dice.choice((0.5, 3.0))
        self._tell(f"cuts {seat.name} off from clients and handlers for {seconds:g} s")
        seat.cut_off = True
        for line in list(seat.lines):
            line.cut()
        self._later(seconds, lambda: setattr(seat, "cut_off", False))

    def roughen(self, seat: StormSeat) -> None:
        way = seat.way
        assert isinstance(way, RoughWay)
        way.rough = not way.rough
        self._tell(f"has the way of {seat.name} to the stream {'rough' if way.rough else 'calm'}")

    # -- the stream ----------------------------------------------------------------------------------------------

    def sink(self, seat: StormSeat) -> None:
        if self._world.sea.up:
            seconds = self._dice.choice((0.2, 2.0, 6.0))
            self._tell(f"leaves the stream without a leader for {seconds:g} s")
            self._world.sea.up = False
            self._later(seconds, lambda: setattr(self._world.sea, "up", True))

    def publish_by_others(self, seat: StormSeat) -> None:
        sea = self._world.sea
        data = self._dice.randbytes(20)
        if self._dice.random() < 0.5 and sea.last:
            again = sea.messages.get(self._dice.randint(sea.first, sea.last), data)
            # An OPEN once more, and out of place, would stop all nodes: none but they may publish, and they never do.
            if not is_open(again):
                data = again
        self._tell(f"publishes {data[:4].hex()}")
        sea.store(data, None)

    def purge_by_others(self, seat: StormSeat) -> None:
        """Through a message that a valid entry follows: what else may come of a purge is told below."""
        sea = self._world.sea
        places = [seq for seq in self._world.witness.valid if sea.first < seq <= sea.last]
        if places:
            seq = self._dice.choice(places)
            self._tell(f"purges the stream up to {seq} of {sea.last}")
            sea.drop_before(seq)

    # -- clocks and disks ----------------------------------------------------------------------------------------

    def set_clock(self, seat: StormSeat) -> None:
        by_ms = self._dice.choice((-3_600_000, -2_000, 2_000, 60_000, 3_600_000, 86_400_000))
        self._tell(f"sets the clock of {seat.name} {by_ms / 1000:g} s forth")
        seat.clock.set(seat.clock.skew_ms + by_ms)

    def break_disk(self, seat: StormSeat) -> None:
        if seat.alive:
            self._tell(f"breaks the disk of {seat.name}")
            seat.spoilt = "its disk broke"
            seat.disk.log.broken = True

    def fill_disk(self, seat: StormSeat) -> None:
        seconds = self._dice.choice((1.0, 5.0))
        self._tell(f"fills the disk of {seat.name} for {seconds:g} s")
        log = seat.disk.log
        log.space = "low"
        self._later(seconds, lambda: setattr(log, "space", "plenty"))

    def fail_checkpoint(self, seat: StormSeat) -> None:
        if seat.alive:
            self._tell(f"has no room for the next checkpoint of {seat.name}")
            seat.spoilt = "its checkpoint failed"
            seat.disk.store.full = True

    # -- people --------------------------------------------------------------------------------------------------

    def change_mood(self, seat: StormSeat) -> None:
        service = self._dice.choice(list(self._world.services.values()))
        service.mood = self._dice.choice(("fine", "fine", "dead", "silent", "failing", "clumsy", "shy"))
        self._tell(f"has {service.name} {service.mood}")
        if not service.up:
            for seat_ in self._world.seats.values():
                for line in [line for line in seat_.lines if line.who == service.name]:
                    line.hang_up()

    async def intervene(self, seat: StormSeat) -> None:
        await self._world.operator.intervene(remove=self._dice.random() < 0.3)

    def steer(self, seat: StormSeat) -> None:
        self._world.operator.steer(self._dice.choice(self._world.kinds).number, on=self._dice.random() < 0.6)
