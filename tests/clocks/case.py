"""`case(n)`: clients and handlers at work on a node whose clocks jump, stand still, and freeze with it.

Every event is checked by a watch on the log; at the end all faults heal, and each session that was not deleted is
handed over or parked. Everything from seed n, in jumping time.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from dataclasses import dataclass, field

from tests.clocks.watch import SLACK_MS, Watch
from tests.node.world import PlayedRoute, World, nobody
from truba.codec.batch import decode_batch
from truba.errors import Closed, Fenced, NoSession
from truba.kinds import Backoff, Breaker, Kind
from truba.log.memory import MemoryLog
from truba.node.node import Limits
from truba.node.owners import Handover, Hold, Owner
from truba.ports.log import Done, LogBatch
from truba.testing.jump import JumpClock, run_jumping

STEPS = 60
HOUR_S, DAY_S = 3_600.0, 86_400.0
GRACES_MS = (0, 5_000, 60_000, 300_000)
DELAYS_MS = (0, 900, 30_000, 3_600_000, 100_000_000)
FREEZES_S = (0.5, 7.0, 90.0, 400.0)
PASSES_S = (0.0, 0.01, 0.4, 1.0, 7.0, 7.0, 70.0, 70.0, 500.0)

KINDS = (
    {"recovery_delay_s": 5, "jitter_s": 2, "idle_timeout_s": 100},
    {"recovery_delay_s": 0, "jitter_s": 0, "idle_timeout_s": 10, "max_age_s": 2 * HOUR_S},
    {"recovery_delay_s": 50, "jitter_s": 0, "idle_timeout_s": 5_000, "handler_timeout_s": 5, "max_attempts": 4},
    {"recovery_delay_s": 1, "jitter_s": 30, "idle_timeout_s": 3, "handler_timeout_s": 600, "max_age_s": 30 * DAY_S},
)


class WatchedLog(MemoryLog):
    """Tells the watch what is written, when it is written."""

    watch: Watch

    def append(self, batch: LogBatch, done: Done) -> None:
        self.watch.saw(decode_batch(batch.body))
        super().append(batch, done)


@dataclass(eq=False)
class Route(PlayedRoute):
    """Takes what it is given, and leaves the rest to the weather."""

    weather: Weather | None = None

    def repeat(self, handover: Handover) -> bool:
        if not super().repeat(handover):
            return False
        assert self.weather is not None
        self.weather.handed_over(handover)
        return True


class WatchedWorld(World):
    watch: Watch
    weather: Weather

    def make_log(self) -> MemoryLog:
        log = WatchedLog(self.shelf)
        log.watch = self.watch
        return log

    def make_route(self) -> PlayedRoute:
        return Route(weather=self.weather)


@dataclass
class Client:
    """An owner that comes and goes. Nameless when it has no grace."""

    token: bytes
    grace_ms: int
    owner: Owner | None = None
    holds: list[Hold] = field(default_factory=list)


class Weather:
    """One case."""

    def __init__(self, seed: int) -> None:
        self.dice = random.Random(seed)
        self.clock = JumpClock(seed=seed)
        policy: dict[str, object] = dict(self.dice.choice(KINDS))
        breaker = Breaker(random.Random(f"breaker {seed}").choice((2, 4, 10)))
        self.kind = Kind(7, "transfer", nobody, backoff=Backoff(1, 2, 100), breaker=breaker, **policy)  # type: ignore[arg-type]
        self.watch = Watch(self.clock, self.kind)
        limits = Limits(checkpoint_bytes=self.dice.choice((3_000, 1 << 20)))
        self.world = WatchedWorld(self.kind, limits=limits, clock=self.clock)
        self.world.watch, self.world.weather = self.watch, self
        self.clients = [Client(b"client %d, sixteen bytes" % at, self.dice.choice(GRACES_MS)) for at in range(3)]
        self.held: list[Hold] = []  # by anybody, since the node started
        self.story: list[str] = []
        self.healed = False

    async def run(self) -> None:
        try:
            await self._run()
        except Exception as error:
            story = "\n  ".join(self.story[-25:])
            raise AssertionError(f"{type(error).__name__}: {error}\n{self.kind}\n  {story}") from error

    async def _run(self) -> None:
        await self._start()
        for _ in range(STEPS):
            self._sound()
            await self._step()
            await self._flush()
            if self.dice.random() < 0.2:
                await self._quiet()
        await self._heal()
        await self.node.stop()
        assert not self.node.failed.done(), self.node.failed.result()

    async def _start(self) -> None:
        self.watch.starting = True
        self.node = await self.world.start()
        self.watch.starting = False
        self.route = self.world.route(7)

    # -- what happens ---------------------------------------------------------------------------------------------

    async def _step(self) -> None:
        dice = self.dice
        acts = (
            (30, self._client_acts),
            (10, self._comes_or_goes),
            (6, self._stale_writes),
            (12, self._clock_jumps),
            (6, self._freezes),
            (4, self._restarts),
            (3, self._unreachable),
            (29, self._passes),
        )
        (act,) = dice.choices([act for _, act in acts], [weight for weight, _ in acts])
        await act()

    async def _client_acts(self) -> None:
        dice, client = self.dice, self.dice.choice(self.clients)
        owner = self._owner(client)
        client.holds = [hold for hold in client.holds if not hold.ended]
        if not client.holds or dice.random() < 0.3:
            client.holds.append(self.node.new(owner, 7, [b"record"]))
            self.held.append(client.holds[-1])
            self._tell(f"{client.token!r} opens {client.holds[-1].number}, grace {client.grace_ms}")
            return
        await self._acts(dice.choice(client.holds))

    async def _acts(self, hold: Hold) -> None:
        """An operation of whoever holds it."""
        await self._flush()  # the watch is to know of it
        dice, node, session = self.dice, self.node, self.watch.sessions[hold.number]
        what = dice.choice(("append", "replace", "touch", "store", "store", "delete"))
        self._tell(f"{what} {hold.number}@{hold.epoch}")
        match what:
            case "append":
                node.append(hold, [b"more", b"and more"])
            case "replace":
                node.replace(hold, b"instead")
            case "touch":
                node.touch(hold)
                self.watch.sign(hold.number)
            case "store":
                session.asked_delay_ms = dice.choice(DELAYS_MS)
                node.store(hold, session.asked_delay_ms)
            case "delete":
                session.deleting = True
                node.delete(hold)

    async def _comes_or_goes(self) -> None:
        client = self.dice.choice(self.clients)
        if client.owner is None:
            self._owner(client)
            return
        self._tell(f"{client.token!r} goes")
        for hold in client.holds:
            if not hold.ended:
                self.watch.left(hold.number)
        self.node.presence.detach(client.owner)
        client.owner, client.holds = None, []

    def _owner(self, client: Client) -> Owner:
        """It connects, if it is not there: what it still holds is its own again."""
        if client.owner is None:
            client.owner = self.node.presence.attach()
            if client.grace_ms:
                held = self.node.presence.name_owner(client.owner, client.token, client.grace_ms)
                client.holds = [client.owner.find(b"%d-%d" % index) for index, *_ in held]
                self.held += client.holds
                for hold in client.holds:
                    self.watch.sign(hold.number)
                    self.watch.sessions[hold.number].grace_ms = client.grace_ms
                self._tell(f"{client.token!r} comes, and holds {[hold.number for hold in client.holds]}")
        return client.owner

    async def _stale_writes(self) -> None:
        """Whoever held a session once tries again: never with success, and nothing reaches the log."""
        stale = [hold for hold in self.held if hold.ended]
        if not stale:
            return
        hold = self.dice.choice(stale)
        node, seq = self.node, self.node.machine.seq
        writes: list[Callable[[], object]] = [
            lambda: node.append(hold, [b"late"]),
            lambda: node.replace(hold, b"late"),
            lambda: node.delete(hold),
            lambda: node.store(hold, 0),
            lambda: node.touch(hold),
            lambda: node.append(node.find(hold.owner, b"%b@%d" % (hold.id_text, hold.epoch)), [b"late"]),
        ]
        if hold.ended == "taken":  # whoever ended it himself means the present hand-over when he names none
            writes.append(lambda: node.append(node.find(hold.owner, hold.id_text), [b"late"]))
        for write in writes:
            try:
                write()
            except (Fenced, Closed, NoSession):
                continue
            raise AssertionError(f"a write to {hold.id}@{hold.epoch} by an owner of the past is accepted")
        assert node.machine.seq == seq

    async def _clock_jumps(self) -> None:
        """A wall clock that is set; or, ahead, a machine that slept, whose steady clock stood still meanwhile."""
        seconds = self.dice.choice((HOUR_S, DAY_S, 1.0)) * self.dice.choice((1, -1))
        self._tell(f"the wall clock jumps by {seconds} s")
        self.clock.wall_ms += round(seconds * 1000)

    async def _freezes(self) -> None:
        """The process is stopped: time passes, and it does nothing."""
        seconds = self.dice.choice(FREEZES_S)
        self._tell(f"frozen for {seconds} s")
        self.clock.advance(seconds)

    async def _restarts(self) -> None:
        self._tell("killed")
        await self._flush()
        self.node.give_up(RuntimeError("killed"))
        await self.node.checkpointer.close()
        self.watch.restarts()
        for client in self.clients:
            client.owner, client.holds = None, []
        self.held = []  # of a node that is gone: it takes nothing any more
        if self.dice.random() < 0.6:
            await self._clock_jumps()
        if self.dice.random() < 0.6:
            await self._freezes()
        self.watch.restarts()  # a grace begins anew when the node is there
        await self._start()

    async def _unreachable(self) -> None:
        self.route.reachable = not self.route.reachable
        self._tell(f"the handler is {'there' if self.route.reachable else 'gone'}")

    async def _passes(self) -> None:
        seconds = self.dice.choice(PASSES_S)
        self._tell(f"{seconds} s pass")
        await asyncio.sleep(seconds)

    # -- the handler ----------------------------------------------------------------------------------------------

    def handed_over(self, handover: Handover) -> None:
        number = handover.hold.number
        assert number not in self.watch.gone, f"session {number} is handed over after its Delete"
        session = self.watch.sessions[number]
        assert session.phase == "repeating", f"session {number} is pushed before that is in the log"
        assert handover.hold.epoch == session.epoch
        assert handover.records == session.records
        self._tell(f"session {number}@{session.epoch} is handed over, {handover.cause}")
        self.held.append(handover.hold)
        loop = asyncio.get_running_loop()
        loop.call_later(self.dice.choice((0, 0.2, 4, 30, 2_000)), self._handler_acts, handover.hold)

    def _handler_acts(self, hold: Hold) -> None:
        node = self.node
        if hold.ended or node.failed.done() or hold.owner is not self.route.owner:
            return
        session = self.watch.sessions[hold.number]
        what = "delete" if self.healed else self.dice.choice(("delete", "store", "fail", "append", "nothing"))
        self._tell(f"the handler: {what} {hold.number}@{hold.epoch}")
        match what:
            case "delete":
                session.deleting = True
                node.delete(hold)
            case "store":
                session.asked_delay_ms = self.dice.choice(DELAYS_MS)
                node.store(hold, session.asked_delay_ms)
            case "fail":
                node.fail(hold, "no")
            case "append":
                node.append(hold, [b"by the handler"])

    # -- checks -----------------------------------------------------------------------------------------------------

    async def _flush(self) -> None:
        while self.node.sequencer.latest is not None:
            await self.node.sequencer.flush()

    async def _quiet(self) -> None:
        """Both clocks run evenly for a moment: now nothing may be overdue."""
        await asyncio.sleep((SLACK_MS + 200) / 1000)
        await self._flush()
        self._sound()
        self.watch.check()

    def _sound(self) -> None:
        """The node and the watch agree on what there is."""
        node = self.node
        if node.failed.done():
            raise AssertionError(f"the node ended: {node.failed.result()!r}")
        if node.sequencer.latest is None:
            held = {head.number: (str(head.phase), head.epoch) for head in node.machine.scan()}
            assert held == {number: (each.phase, each.epoch) for number, each in self.watch.sessions.items()}

    async def _heal(self) -> None:
        """Clocks run evenly, the handler is there and finishes all it is given: nothing is left but what is parked."""
        self.healed, self.route.reachable = True, True
        for client in self.clients:
            if client.owner is not None:
                client.grace_ms = 0
                await self._flush()
                for hold in client.holds:
                    if not hold.ended:
                        self.watch.left(hold.number)
                self.node.presence.detach(client.owner)
                client.owner = None
        for _ in range(60):
            await self._quiet()
            sessions = self.watch.sessions.values()
            if all(session.phase == "parked" for session in sessions):
                return
            dues = [session.due_ms for session in sessions if session.phase == "stored"]
            self.clock.wall_ms = max([self.clock.wall_ms, *dues])
            await asyncio.sleep(self.dice.choice((1, 40, 700)))
        raise AssertionError(f"never handed over: {list(self.watch.sessions.values())}")

    def _tell(self, what: str) -> None:
        self.story.append(f"{self.clock.steady_s:12.3f} s, wall {self.clock.wall_ms}: {what}")


def case(n: int) -> None:
    """AssertionError with the last steps when something is wrong."""
    weather = Weather(n)
    run_jumping(weather.run(), weather.clock, threads=False)
