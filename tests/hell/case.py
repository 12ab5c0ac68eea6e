"""Case n: one pipe, one healthy kind, some kinds whose handlers come from hell, and a day on which they are mended.

The pipe's own node, routes and connections in jumping time, on a network in memory. What must hold:

* the healthy kind's sessions come in order, each as soon as it is due, whatever the others do;
* nothing is early, twice at one epoch, changed, or lost; no stale handler writes;
* attempts are those that the configuration allows: parked is who has had them all, and nobody else;
* who fails session after session is tried with one at a time, at the pace of the breaker, and not held back longer;
* one connection to each handler, dialled at the pace of its backoff; what the pipe holds for it is bounded;
* once a handler is well, all that it was owed comes, and what is parked comes when it is resumed.
"""

from __future__ import annotations

import asyncio
import random
from dataclasses import dataclass
from typing import Any

import structlog

from tests.hell.handlers import BAD, Record, Service
from tests.hell.net import End, Net, NetLoop
from tests.node.gate import Gates
from truba.codec.batch import decode_batch
from truba.kinds import Backoff, Kind
from truba.log.memory import MemoryLog, Shelf
from truba.node.breaker import Stage
from truba.node.node import Node
from truba.ports.log import Done, LogBatch
from truba.protocols.resp import Limits
from truba.store.memory import MemoryStore
from truba.testing.jump import JumpClock
from truba.transports.dial import CONNECT_TIMEOUT_S, KINDS_TIMEOUT_S, REDIAL, DialRoute
from truba.types import Index, Phase
from truba.wire.connection import WireSettings

WELL = 1
SETTINGS = WireSettings(parser=Limits(request_bytes_max=64 << 10), output_bytes_max=32 << 10)
RECORD_BYTES_MAX = 4_096

PROMPT_MS = 60
"""From due to handed over for the healthy kind: some turns of the loop, and the way there."""

ILL_S, MEND_S = 120.0, 300.0
"""How long hell lasts; and by when everything is well again after it: some backoffs, graces and redials."""


@dataclass(eq=False)
class Trouble:
    """One kind whose handler is ill. `ill`: None: nobody listens; "lost": nothing comes back from there."""

    kind: Kind
    place: tuple[str, int]
    ill: type[Service] | str | None
    record: Record

    def __str__(self) -> str:
        ill = self.ill if isinstance(self.ill, str) else self.ill.__name__ if self.ill else "nobody"
        return f"kind {self.kind.number} ({ill})"


class GatedLog(MemoryLog):
    """Shows the gates what is written, when it is written."""

    def __init__(self, gates: Gates, clock: JumpClock) -> None:
        super().__init__(Shelf())
        self._gates = gates
        self._clock = clock

    def append(self, batch: LogBatch, done: Done) -> None:
        for event in decode_batch(batch.body):
            self._gates.saw(event, self._clock.steady_ms())
        super().append(batch, done)


class Hell:
    """The pipe, its handlers and its clients, in one case."""

    def __init__(self, seed: int, clock: JumpClock, net: Net) -> None:
        self.dice = random.Random(seed)
        self.clock = clock
        self.net = net
        self.well = self._trouble(WELL, Service)
        ills = self.dice.sample((*BAD, None, "lost"), self.dice.randrange(1, 5))
        self.ill = [self._trouble(number, ill) for number, ill in enumerate(ills, 2)]
        self.all = [self.well, *self.ill]
        self.dues: dict[bytes, tuple[int, int]] = {}  # id -> when it is first due, the order of its Store
        self.routes = {one.kind.number: DialRoute(f"truba://h{one.kind.number}:7", "", SETTINGS) for one in self.all}
        self.gates = Gates(one.kind for one in self.all)
        self.log = GatedLog(self.gates, clock)
        self.out_since_ms: dict[tuple[int, int], int] = {}  # number and epoch -> when it was first seen handed over
        self.errors: list[dict[str, Any]] = []
        # About whom, seconds to the next hand-over, the most it may be.
        self.delays: list[tuple[str, float, float]] = []

    def _trouble(self, number: int, ill: type[Service] | str | None) -> Trouble:
        dice = self.dice
        kind = Kind(
            number, f"k{number}", f"truba://h{number}:7", recovery_delay_s=0.5, jitter_s=0.5,
            backoff=Backoff(dice.choice((0.0, 0.2, 1.0)), 2.0, dice.choice((0.5, 5.0))), handler_timeout_s=3.0,
            concurrency=dice.choice((1, 5, 64)), max_attempts=0 if number == WELL else dice.choice((0, 1, 3, 25)),
        )  # fmt: skip
        if number == WELL:
            kind = Kind(WELL, "well", kind.handler, recovery_delay_s=0.5, jitter_s=0.5, concurrency=64)
        credit = 64 if number == WELL else dice.choice((1, 4, 100))
        record = Record(number, random.Random(dice.random()), self.clock.now_ms, credit)
        return Trouble(kind, (f"h{number}", 7), ill, record)

    # -- the run

    async def run(self) -> None:
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(lambda _, context: self.errors.append(context))
        for one in self.all:
            self._listen(one, one.ill)
        kinds = [one.kind for one in self.all]
        self.node = Node(self.log, MemoryStore(), kinds, dict(self.routes), clock=self.clock, tell=self._told)
        await self.node.start()
        try:
            await self._live()
        finally:
            await self.node.stop()
            self.net.cut()
            await asyncio.sleep(1)
        self._check_errors()
        assert not self.net.ends, "connections are left"

    async def _live(self) -> None:
        began_s = self.clock.steady_s
        clients = asyncio.get_running_loop().create_task(self._clients())
        while self.clock.steady_s < began_s + ILL_S:
            await asyncio.sleep(0.25)
            await self._check_bounds(self.clock.steady_s - began_s)
        await clients
        self._check_ill()
        for one in self.ill:
            self._listen(one, Service)
        self.net.cut()  # whatever they were, they are started anew
        await asyncio.sleep(MEND_S)
        await self._check_bounds(self.clock.steady_s - began_s)
        self._check_parked()
        for head in list(self.node.machine.scan()):
            self.node.operators.resume(head.id)
        await asyncio.sleep(MEND_S)
        self._check_end()

    def _listen(self, one: Trouble, ill: type[Service] | str | None) -> None:
        self.net.places.pop(one.place, None)
        if isinstance(ill, str):
            self.net.places[one.place] = None
        elif ill is not None:
            self.net.places[one.place] = lambda: ill(one.record)

    async def _clients(self) -> None:
        """Sessions of all kinds, due now, together, or later."""
        owner = self.node.presence.attach()
        for _ in range(self.dice.choice((20, 60, 150))):
            one = self.dice.choice((self.well, *self.all))
            crowd = self.dice.choice((1, 1, 1, 30))
            delay_ms = self.dice.choice((0, 0, 1_000, 7_000))
            for _ in range(crowd):
                records = [
                    self.dice.randbytes(self.dice.randrange(RECORD_BYTES_MAX))
                    for _ in range(self.dice.choice((1, 1, 3)))
                ]
                hold = self.node.new(owner, one.kind.number, records)
                id_text = str(hold.id).encode()
                one.record.written[id_text] = records
                self.node.store(hold, delay_ms)
                self.dues[id_text] = (self.clock.now_ms() + delay_ms, len(self.dues))
            await asyncio.sleep(self.dice.random() * 1.2)

    def _told(self, event: str, /, **fields: object) -> None:
        if event == "hand-over failed":
            head = self.node.look_up(Index.parse(str(fields["session"])))
            tries = head.deliveries if fields["cause"] == "unreachable" else head.attempts
            most_s = self.node.kinds[head.kind].backoff.delay_s(tries, 1.0)
            self.delays.append((f"{fields}", (head.due_ms - self.clock.now_ms()) / 1000, most_s))

    # -- what must hold

    def _check_errors(self) -> None:
        assert not self.errors, f"something failed: {self.errors[0]} ({self.errors[0].get('exception')!r})"
        assert not self.node.failed.done(), f"the node has failed: {self.node.failed}"

    async def _check_bounds(self, run_s: float) -> None:
        self._check_errors()
        while self.node.sequencer.latest is not None:  # what the node has decided just now, no gate has seen yet
            await self.node.sequencer.flush()
        machine = self.node.machine
        for one in self.all:
            out = machine.counts[one.kind.number, Phase.REPEATING]
            assert out <= min(one.kind.concurrency, one.record.credit), f"{one}: {out} are out at once"
            dials, connections = self.net.dials[one.place], self.net.peak[one.place]
            assert connections <= 1, f"{one}: {connections} connections at once"
            assert dials <= 2 + run_s / (REDIAL.base_s / 2), f"{one}: dialled {dials} times in {run_s:.0f} s"
            self._check_breaker(one)
            if one.ill is None:
                assert dials <= 20 + run_s / (REDIAL.cap_s / 2), f"{one}: dialled {dials} times in {run_s:.0f} s"
        for end in self.net.ends:
            self._check_held(end)
        self._check_late()

    def _check_breaker(self, one: Trouble) -> None:
        """It is open exactly when it should be, and not for longer than it may. The healthy kind's never is."""
        gate, status = self.gates.of[one.kind.number], self.node.dispatcher.lanes[one.kind.number].breaker
        assert (status.stage is not Stage.CLOSED) == gate.held, f"{one}: {status}, {gate}"
        assert (status.stage is Stage.HALF_OPEN) == (gate.probe is not None), f"{one}: {status}, {gate}"
        assert one is not self.well or not gate.held, f"{one}: {status}"
        if status.until_ms is not None:
            most_ms = gate.free_ms + self.clock.now_ms() - self.clock.steady_ms()
            assert status.until_ms <= most_ms, f"{one}: {status}, {status.until_ms - most_ms} ms longer than it may be"

    def _check_held(self, end: End) -> None:
        largest = 3 * RECORD_BYTES_MAX + 500 + 2_000  # a push of all records, and what handlers add
        bytes_max = SETTINGS.output_bytes_max + 100 * 200 + largest  # and the words about 100 sessions that were lost
        size = end.get_write_buffer_size()
        assert end.side == 2 or size <= bytes_max, f"{end}: {size} bytes wait for a handler that does not read"

    def _check_late(self) -> None:
        """Who says nothing about a session for the kind's handler_timeout has it no more."""
        now_ms = self.clock.now_ms()
        records = {one.kind.number: one.record for one in self.all}
        for number, head in self.node.machine.owned.items():
            since_ms = self.out_since_ms.setdefault((number, head.epoch), now_ms)
            heard_ms = records[head.kind].heard_ms.get(str(head.id).encode(), 0)
            silent_s = (now_ms - max(since_ms, heard_ms)) / 1000
            limit_s = self.node.kinds[head.kind].handler_timeout_s + 1
            assert head.phase is not Phase.REPEATING or silent_s <= limit_s, f"{head.id}: nothing for {silent_s} s"

    def _check_left(self, one: Trouble) -> None:
        """Who never says KINDS is left after a while, and dialled again."""
        rounds = ILL_S / (CONNECT_TIMEOUT_S + KINDS_TIMEOUT_S + REDIAL.cap_s)
        dials = self.net.dials[one.place]
        assert dials >= rounds, f"{one}: dialled {dials} times, and never again"

    def _check_ill(self) -> None:
        """At the end of hell: nothing is gone but what a handler has finished; the healthy kind never noticed."""
        self._check_kept()
        self._check_backoff()
        for one in self.ill:
            if one.ill in NEVER_TAKING or not isinstance(one.ill, type):
                self._check_left(one)
        well = self.well.record
        seen = [id_text for id_text, _, _ in well.handed_over]
        mine = [id_text for id_text in self.dues if id_text in well.written]
        assert sorted(seen) == sorted(mine), "the healthy kind's sessions did not come once each"
        assert set(well.finished) == set(mine)
        expected = sorted(mine, key=self.dues.__getitem__)
        assert seen == expected, "the healthy kind's sessions came out of order"
        for id_text, _, at_ms in well.handed_over:
            late_ms = at_ms - self.dues[id_text][0]
            assert late_ms <= PROMPT_MS, f"{id_text!r} of the healthy kind came {late_ms} ms late"

    def _check_backoff(self) -> None:
        """A random time up to the one that the configuration says, and not always none of it."""
        for about, delay_s, most_s in self.delays:
            assert 0 <= delay_s <= most_s + 0.001, f"{about}: again in {delay_s} s, at most {most_s}"
        shares = [delay_s / most_s for _, delay_s, most_s in self.delays if most_s]
        assert len(shares) < 50 or 0.3 < sum(shares) / len(shares) < 0.7, f"no random backoff: {shares[:50]}"

    def _check_kept(self) -> None:
        there = {str(head.id).encode(): head for head in self.node.machine.scan()}
        for one in self.all:
            for id_text, _, at_ms in one.record.handed_over:
                assert at_ms >= self.dues[id_text][0], f"{one}: {id_text!r} came early"
            for id_text in one.record.written:
                head = there.get(id_text)
                if id_text in one.record.finished:
                    assert head is None, f"{one}: {id_text!r} was deleted, and is there"
                elif head is None:
                    assert self._may_be_gone(one, id_text), f"{one}: {id_text!r} is gone, and nobody has finished it"
                else:
                    self._check_attempts(one, head)

    def _may_be_gone(self, one: Trouble, id_text: bytes) -> bool:
        """It asked for a Delete, and its connection ended before the answer."""
        return id_text in one.record.epochs and one.ill in FINISHING

    def _check_attempts(self, one: Trouble, head: Any) -> None:
        most = one.kind.max_attempts
        assert not most or head.attempts <= most, f"{one}: {head.attempts} attempts, of {most}"
        if head.phase is Phase.PARKED:
            assert most, f"{one}: parked, although there is no limit"
            assert head.attempts == most, f"{one}: parked after {head.attempts} attempts, of {most}"
        reached = one.record.attempts[str(head.id).encode()]
        assert reached <= head.deliveries, f"{one}: attempt {reached} of {head.deliveries} deliveries"
        if one.ill in NEVER_TAKING or not isinstance(one.ill, type):
            assert head.attempts == 0, f"{one}: {head.attempts} attempts, and it has never taken a session"
            assert head.phase is Phase.STORED

    def _check_parked(self) -> None:
        """Well again, all comes but what has used its attempts up."""
        self._check_kept()
        for head in self.node.machine.scan():
            assert head.phase is Phase.PARKED, (
                f"{head.id} of kind {head.kind} is {head.phase} {MEND_S:.0f} s after all is well"
            )

    def _check_end(self) -> None:
        left = [str(head.id) for head in self.node.machine.scan()]
        assert not left, f"resumed, and still there: {left}"
        for one in self.all:
            for id_text in one.record.written:
                assert id_text in one.record.finished or self._may_be_gone(one, id_text)


FINISHING = (*(ill for ill in BAD if ill.__name__ in ("Late", "Dripping")), Service)
NEVER_TAKING = tuple(ill for ill in BAD if ill.__name__ in ("Resets", "Silent", "Dripping"))


def case(n: int) -> None:
    """Raises AssertionError when something does not hold."""
    clock = JumpClock(seed=n)
    net = Net(n)
    with structlog.testing.capture_logs(), asyncio.Runner(loop_factory=lambda: NetLoop(clock, net)) as runner:
        runner.run(Hell(n, clock, net).run())
