"""A whole pipe and all who use it, in one thread and in jumping time, driven by one seed.

    clients --- network ---> pipe (real node, wire, dial routes, file log) --- network ---> handler services
                               |  simulated disk, memory store: they outlive the process

First comes the storm, with the faults of the plan; then everything heals, and whatever is unfinished must be finished:
at first with one handler service still dead, which must hold up nobody else (G8), then with all of them.
"""

from __future__ import annotations

import asyncio
import errno
from collections.abc import Callable, Coroutine
from math import inf
from random import Random
from typing import Any

import hiredis

from tests.simulation.checker import Call, Checker, Steering, Violation, WallClock
from tests.simulation.clients import PIPE, Client
from tests.simulation.handlers import Service
from tests.simulation.loop import SimulatedLoop
from tests.simulation.network import Network
from tests.simulation.peers import Peer
from tests.simulation.pipe import Life
from tests.simulation.plan import Plan
from tests.simulation.story import Story
from tests.simulation.truth import Truth
from truba.store.memory import MemoryStore
from truba.testing.disk import ProcessGone, SimulatedDisk
from truba.testing.jump import JumpClock

DRAINED_S = 150.0
"""After the storm: longer than any grace, timeout, backoff, breaker and Store of a plan, one after the other."""

HOUR_MS = 3_600_000

DISK_SLOWEST = 8
"""Times the mean: the longest that a batch takes."""


class World:
    """One run. `run` returns when all is over, or raises what went wrong."""

    def __init__(self, plan: Plan, clock: JumpClock, loop: SimulatedLoop) -> None:
        seed = plan.seed
        self.plan = plan
        self.clock = clock
        self.loop = loop
        self.kinds = {kind.number: kind for kind in plan.kinds}
        self.dice = Random(f"world {seed}")
        self.disk = SimulatedDisk(seed)
        self.disk.mkdir("/log", 0o700)
        self.store = MemoryStore()
        self.network = Network(loop, Random(f"network {seed}"), plan.latency_s)
        self.story = Story(lambda: clock.steady_s)
        self.wall = WallClock(clock.wall_ms - clock.steady_s * 1000)
        self.checker = Checker(plan.kinds, self.wall, self.network.delay_max_s + DISK_SLOWEST * plan.disk_s)
        self.truth = Truth(plan.kinds)
        self.calm = False
        self.storm_ends_s = clock.steady_s + plan.storm_s
        self.deaths = 0
        self.lives = 0
        self.troubled = False  # the disk has failed the process that died last
        self.life: Life | None = None
        self._wall_most_ms = 0
        self._records = 0
        self._outsiders = False  # a task that is being made belongs to no process of the pipe
        self._over: asyncio.Future[None] = loop.create_future()
        self._tasks: set[asyncio.Task[Any]] = set()
        self.services = [
            Service(self, name, 1, list(numbers), Random(f"{name} {seed}"), mischief, grace_s)
            for name, numbers, mischief, grace_s in plan.services
        ]
        self.clients = [
            Client(self, f"client-{number}", habits, Random(f"client {number} {seed}"))
            for number, habits in enumerate(plan.clients, 1)
        ]
        self._operators = 0
        loop.outside = self
        loop.set_task_factory(self._make_task)
        loop.set_exception_handler(self._trouble)

    # -- the run ----------------------------------------------------------------------------------------------

    async def run(self) -> None:
        main = self.spawn(self._run(), "world")
        try:
            await asyncio.wait([main, self._over], return_when=asyncio.FIRST_COMPLETED)
            if self._over.done():
                self._over.result()
            main.result()
        finally:
            await self._close(main)

    async def _run(self) -> None:
        for service in self.services:
            service.start()
        self._boot()
        alive = [self.spawn(client.live(), client.name) for client in self.clients]
        steering = self.spawn(self._steer(), "steering")
        await self._storm()
        await self._heal(alive, steering)

    async def _close(self, main: asyncio.Task[Any]) -> None:
        """Leave nothing on the loop."""
        self.story.told = True
        life, self.life = self.life, None
        if life is not None:
            life.die(power=False, why="the end")
            self._tasks.update(life.tasks)
        left = [task for task in [main, *self._tasks] if not task.done()]
        for task in left:
            task.cancel()
        if left:
            await asyncio.wait(left)

    def fail(self, error: BaseException) -> None:
        """The run is over; the first error counts."""
        if not self._over.done():
            self._over.set_exception(error)

    def spawn(self, work: Coroutine[Any, Any, Any], name: str) -> asyncio.Task[Any]:
        """A task of the world outside of the pipe."""
        self._outsiders = True
        task = self.loop.create_task(work, name=name)
        self._outsiders = False
        self._tasks.add(task)
        task.add_done_callback(self._ended)
        return task

    def _make_task(self, loop: asyncio.AbstractEventLoop, work: Any, **options: Any) -> asyncio.Task[Any]:
        task: asyncio.Task[Any] = asyncio.Task(work, loop=loop, **options)
        if not self._outsiders and self.life is not None:
            self.life.tasks.append(task)
        return task

    def _ended(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            self.fail(error)

    def _trouble(self, loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        error = context.get("exception")
        if not isinstance(error, ProcessGone):
            self.fail(error or AssertionError(context["message"]))

    async def during_storm(self, seconds: float) -> None:
        """Sleep, but not beyond the storm."""
        await asyncio.sleep(max(0.0, min(seconds, self.storm_ends_s - self.clock.steady_s)))

    # -- what the loop asks for -----------------------------------------------------------------------------

    async def dial(self, make: Callable[[], asyncio.Protocol], host: str, port: int) -> asyncio.Transport:
        """A process of the pipe dials a handler service."""
        life = self.life
        link = await self.network.dial(make, host, port)
        assert life is not None
        life.joined(link, near=True)
        if not life.alive:
            link.died(link.near)
        return link.near

    def work(self, call: Callable[[], Any]) -> asyncio.Future[Any]:
        assert self.life is not None
        return self.life.work(call)

    async def connect(self, who: str, name: str) -> Peer:
        """A client dials the pipe. OSError."""
        peer = Peer(self, who, name)
        link = await self.network.dial(lambda: peer, *PIPE, name)
        if self.life is not None:
            self.life.joined(link, near=False)
        return peer

    def record(self, dice: Random, large: float) -> bytes:
        """A record that no other call has."""
        self._records += 1
        size = dice.randrange(600, 3_000) if dice.random() < large else dice.randrange(0, 40)
        return b"%x." % self._records + (bytes(size) if size & 1 else b"x" * size)

    def disk_s(self) -> float:
        mean_s = self.plan.disk_s
        return min(self.dice.expovariate(1 / mean_s), DISK_SLOWEST * mean_s) if mean_s else 0.0

    @property
    def disk_is_short(self) -> bool:
        return self.disk.capacity_bytes < 1 << 40

    # -- processes of the pipe --------------------------------------------------------------------------------

    def _boot(self) -> None:
        self.lives += 1
        self.life = life = Life(self, self.lives)
        if self.troubled and not self.calm:
            # After a failed sync the system may show what is not on the disk: that is found out when the power fails.
            life.die_in_call(self.dice.randint(1, 30), power=True)
            self.troubled = False
        elif not self.calm and "die in call" in self.plan.faults and self.dice.random() < 0.3:
            life.die_in_call(self.dice.randint(1, 25), power=self.dice.random() < 0.5)
        life.tasks.append(self.spawn(life.run(), life.name))

    def life_ended(self, life: Life) -> None:
        if life is not self.life:
            return
        self.deaths += 1
        self.troubled = life.troubled and self.dice.random() < 0.5
        if self.dice.random() < 0.1 and "power" in self.plan.faults:
            self.disk.crash()
        pause_s = self.dice.choice((0.0, 0.05, 0.3, 0.3, 3.0))
        self.loop.call_later(pause_s, self._boot)

    # -- the storm ------------------------------------------------------------------------------------------------

    async def _storm(self) -> None:
        dice, faults = self.dice, self.plan.faults
        while self.clock.steady_s < self.storm_ends_s - 1e-6:
            await self.during_storm(dice.expovariate(1 / self.plan.pause_s))
            if faults:
                self._fault(dice.choice(faults))

    def _fault(self, fault: str) -> None:
        dice, life = self.dice, self.life
        alive = life is not None and life.alive
        match fault:
            case "cut":
                links = [link for link in self.network.links if not link.broken]
                if links:
                    link = dice.choice(links)
                    self.story.tell("network", "cut", link.name)
                    link.cut()
            case "kill" | "power" if alive and life is not None:
                life.die(power=fault == "power")
            case "die in call" if alive and life is not None:
                life.die_in_call(dice.randint(1, 12), power=dice.random() < 0.5)
            case "restart" if alive and life is not None:
                life.tasks.append(self.spawn(self._restart(life), "restart"))
            case "disk error" if life is not None:
                name = dice.choice(
                    ("pwritev", "pwritev", "fdatasync", "fdatasync", "fsync", "rename", "unlink", "open")
                )
                code = dice.choice((errno.EIO, errno.ENOSPC)) if name in ("pwritev", "open", "rename") else errno.EIO
                life.fail_call(name, dice.randint(1, 4), code)
            case "clock":
                self._set_clock(
                    round(
                        dice.choice((-1, 1)) * dice.choice((50, 2_000, 20_000, HOUR_MS, 24 * HOUR_MS)) * dice.random()
                    )
                )
            case "freeze":
                seconds = dice.choice((0.1, 1.0, 10.0)) * dice.random()
                self.story.tell("world", "stands still for s:", seconds)
                self.clock.advance(seconds)
                self.checker.frozen(seconds)
            case "handler":
                service = dice.choice(self.services)
                if service.up:
                    self.story.tell(service.name, "goes")
                    service.stop(farewell=dice.random() < 0.3)
                else:
                    self.story.tell(service.name, "comes")
                    service.start()
            case "mute":
                service = dice.choice(self.services)
                service.mute = not service.mute
            case "full":
                if self.disk_is_short:
                    self._free_disk()
                else:
                    used = self.disk.capacity_bytes - self.disk.free_bytes("")
                    left = dice.randrange(0, 3 * self.plan.segment_bytes)
                    self.disk.capacity_bytes = used + left
                    self.story.tell("disk", "has left:", left)
            case "operator":
                self.spawn(self._operate(), "operator")

    async def _restart(self, life: Life) -> None:
        await life.stop()

    def _set_clock(self, by_ms: int) -> None:
        self._wall_most_ms = max(self._wall_most_ms, self.clock.wall_ms)
        self.clock.wall_ms += by_ms
        self.story.tell("clock", "jumps by ms:", by_ms)
        self.wall.jumped(self.clock.steady_s, by_ms)

    def _free_disk(self) -> None:
        self.disk.capacity_bytes = 1 << 40
        self.story.tell("disk", "has space again")
        if self.life is not None and self.life.log is not None and self.life.log.failure is not None:
            self.life.troubled = True  # by the disk as it was: the node says so a turn later

    # -- operators ------------------------------------------------------------------------------------------------

    async def _operator(self) -> Peer | None:
        self._operators += 1
        try:
            return await self.connect("operator", f"operator/{self._operators}")
        except OSError:
            return None

    async def _operate(self) -> None:
        """Looks at what is there, and resumes or removes some of it."""
        peer = await self._operator()
        if peer is None:
            return
        asked_s = self.clock.steady_s
        page = await peer.ask(b"LS", b"LIMIT", b"100")
        if page is None or isinstance(page, hiredis.ReplyError):
            return
        for fields in page[1]:
            await self._look(peer, dict(zip(fields[::2], fields[1::2], strict=True)), asked_s)
        if not peer.lost:
            peer.hang_up(farewell=True)

    async def _look(self, peer: Peer, fields: dict[bytes, Any], asked_s: float) -> None:
        name = fields[b"id"].decode()
        known = self.checker.sessions.get(name)
        if known is None:
            return
        self.checker.seen(known, asked_s)
        if self.dice.random() < 0.2:
            await self._resume(peer, name)
        elif self.dice.random() < 0.2:
            call = Call("operator", peer.link, name, -1, "remove", self.clock.steady_s)
            known.removed.append(call)
            self.story.tell("operator", "remove", name)
            reply = await peer.ask(b"REMOVE", name.encode())
            call.outcome = "unknown" if reply is None else "ok" if reply == b"OK" else str(reply).split(" ", 1)[0]
            call.answered_s = self.clock.steady_s
            self.story.tell("operator", f"remove {name}:", call.outcome)

    async def _resume(self, peer: Peer, name: str) -> None:
        self.checker.resumed(name, self.clock.steady_s)
        reply = await peer.ask(b"RESUME", name.encode())
        self.story.tell("operator", f"resume {name}:", "" if reply is None else str(reply).split(" ", 1)[0])

    async def _steer(self) -> None:
        """Pauses kinds, and continues them."""
        if not self.plan.steer_s:
            return
        dice = Random(f"steering of {self.plan.seed}")
        while True:
            await self.during_storm(dice.expovariate(1 / self.plan.steer_s))
            if self.clock.steady_s >= self.storm_ends_s - 1e-6:
                return
            await self._say(dice.choice(("pause", "continue")), dice.choice(list(self.kinds)))

    async def _say(self, verb: str, kind: int) -> bool:
        """Whether it was acknowledged."""
        peer = await self._operator()
        if peer is None:
            return False
        steering = Steering(kind, verb, self.clock.steady_s)
        self.checker.steered(steering)
        reply = await peer.ask(verb.upper().encode(), b"%d" % kind)
        steering.outcome = "unknown" if reply is None else "ok" if reply == b"OK" else str(reply).split(" ", 1)[0]
        steering.answered_s = inf if reply is None else self.clock.steady_s
        self.story.tell("operator", f"{verb} kind {kind}:", steering.outcome)
        if not peer.lost:
            peer.hang_up(farewell=True)
        return steering.outcome == "ok"

    async def _continue(self) -> None:
        """All kinds that somebody may have paused: in the calm somebody answers."""
        for kind in self.kinds if self.plan.steer_s else ():
            acknowledged = await self._say("continue", kind)
            while not acknowledged:
                await asyncio.sleep(0.25)
                acknowledged = await self._say("continue", kind)

    async def _resume_parked(self) -> None:
        peer = await self._operator()
        if peer is None:
            return
        page = await peer.ask(b"LS", b"PHASE", b"parked")
        if page is not None and not isinstance(page, hiredis.ReplyError):
            for fields in page[1]:
                await self._resume(peer, fields[1].decode())
        if not peer.lost:
            peer.hang_up(farewell=True)

    # -- after the storm --------------------------------------------------------------------------------------

    async def _heal(self, alive: list[asyncio.Task[Any]], steering: asyncio.Task[None]) -> None:
        self.calm = True
        self.story.tell("world", "the storm is over")
        self._free_disk()
        self._set_clock(max(0, self._wall_most_ms - self.clock.wall_ms))
        if self.life is not None:
            self.life.spare()
        dead = self.dice.choice(self.services) if len(self.services) > 1 else None
        for service in self.services:
            service.mute = False
            if service is dead:
                self.story.tell(service.name, "stays dead a little longer")
                service.stop(farewell=False)
            else:
                service.start()
                service.kick()
        async with asyncio.timeout(DRAINED_S):
            await steering  # its last Pause may still be on its way
            await self._continue()
        await asyncio.wait(alive)
        if dead is not None:
            await self._drained([kind for kind in self.kinds if kind not in dead.kinds], "G8")
            self.story.tell(dead.name, "comes")
            dead.start()
        await self._drained(list(self.kinds), "G4")
        life = self.life
        assert life is not None
        assert life.node is not None
        self.truth.agrees(life.node.machine, "at the end")
        self.checker.finish()

    async def _drained(self, kinds: list[int], guarantee: str) -> None:
        """Until no session of these kinds is left."""
        until_s = self.clock.steady_s + DRAINED_S
        while True:
            life = self.life
            if life is not None and life.ready and life.node is not None:
                counts = life.node.machine.counts
                if not any(kind in kinds for kind, _ in counts) and life.node.sequencer.latest is None:
                    return
                if any(kind in kinds and phase == "parked" for kind, phase in counts):
                    await self._resume_parked()
            if self.clock.steady_s > until_s:
                left = "" if life is None or life.node is None else dict(life.node.machine.counts)
                raise Violation(f"{guarantee}: {DRAINED_S:g} s after the storm there is still {left}")
            await asyncio.sleep(0.25)
