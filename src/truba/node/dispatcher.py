"""The dispatcher: hands due sessions to handlers, each kind in a lane of its own.

    due? a free seat at the handler? fewer than `concurrency` out? within `rate`? the breaker closed?
    ->  Repeated staged  ->  durable  ->  pushed

A lane looks only at its own kind, so a dead or slow handler holds up nobody else. It pushes what the node granted and
decides nothing about a session's fate; that is the node's and the machine's part.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

from truba.kinds import Kind
from truba.machine.machine import DETAIL_CHARS_MAX
from truba.machine.why import LaneView
from truba.node.breaker import BreakerStatus, CircuitBreaker, Stage
from truba.node.meters import LaneMeter
from truba.node.owners import Handover, Hold
from truba.node.rate import TokenBucket
from truba.ports.transport import Route
from truba.types import Cause

if TYPE_CHECKING:
    from truba.node.node import Node

ROUND = 128
"""Hand-overs that one lane stages in one turn of the loop, so that a large backlog does not hold up clients."""


class KindLane:
    """One kind: its route, which of its sessions are out, and what holds back the next one."""

    __slots__ = ("_breaker", "_bucket", "_dispatcher", "_node", "holds", "kind", "meter", "route", "to")

    def __init__(self, kind: Kind, route: Route, dispatcher: Dispatcher, node: Node) -> None:
        self.kind = kind
        self.route = route
        self.to = handler_text(kind)  # what a session's history says
        self.holds: dict[Hold, Route] = {}  # what is out, and which way it went
        self.meter = LaneMeter()
        self._dispatcher = dispatcher
        self._node = node
        self._breaker = CircuitBreaker(kind.breaker, kind.concurrency, node.clock.steady_ms())
        self._bucket = None if kind.rate_per_s is None else TokenBucket(kind.rate_per_s)

    @property
    def out(self) -> int:
        """Sessions that handlers hold now."""
        return len(self.holds)

    def change(self, kind: Kind, route: Route) -> None:
        """Another policy, perhaps another handler, whose past does not count. What is out stays where it is."""
        before, self.kind = self.kind, kind
        if route is not self.route or (kind.breaker, kind.concurrency) != (before.breaker, before.concurrency):
            self._breaker = CircuitBreaker(kind.breaker, kind.concurrency, self._node.clock.steady_ms())
        if kind.rate_per_s != before.rate_per_s:
            self._bucket = None if kind.rate_per_s is None else TokenBucket(kind.rate_per_s)
        self.route = route
        self.to = handler_text(kind)

    @property
    def view(self) -> LaneView:
        """As operators see it now."""
        kind, breaker = self.kind, self.breaker
        return LaneView(
            handler=self.to,
            state=self.route.state(),
            out=self.out,
            concurrency=kind.concurrency,
            paused=self.paused,
            reachable=self.out >= kind.concurrency or self.route.seat(kind.number) is not None,
            room=breaker.room if breaker.stage is Stage.CLOSED else kind.concurrency,
            rate_per_s=kind.rate_per_s,
            probing=breaker.stage is Stage.HALF_OPEN,
            open_until_ms=breaker.until_ms,
            trouble=f"{breaker.cause}: {breaker.detail}" if breaker.cause and breaker.detail else breaker.cause or "",
        )

    @property
    def paused(self) -> bool:
        """By an operator: nothing of this kind is handed over until that is taken back (`Operators.pause`)."""
        return self.kind.number in self._dispatcher.machine.paused

    @property
    def breaker(self) -> BreakerStatus:
        """How the handler does, as it is now."""
        return self._breaker.status(self._node.clock.steady_ms(), self._node.clock.now_ms())

    def wait_ms(self, steady_ms: int) -> int | None:
        """How long nothing is handed over, whatever is due; None: until something happens that wakes the dispatcher."""
        if self.paused:
            return None
        wait_ms = self._breaker.wait_ms(steady_ms, self.out)
        if wait_ms is not None and self._bucket is not None:
            return max(wait_ms, self._bucket.wait_ms(steady_ms))
        return wait_ms

    def handed_over(self, hold: Hold, steady_ms: int) -> None:
        """One more is on its way."""
        self._breaker.handed_over(hold.number, steady_ms)
        if self._bucket is not None:
            self._bucket.take(steady_ms)

    def left(self, hold: Hold, cause: Cause | None, detail: str) -> None:
        """A hold of this lane has ended: there is room for another."""
        here = self.holds[hold] is self.route  # else it was another handler's, and says nothing of this one
        del self.holds[hold]
        self.meter.outcomes[self._dispatcher.outcome(hold.number)] += 1
        clock = self._node.clock
        steady_ms = clock.steady_ms()
        self.meter.held_ms.add(steady_ms - hold.since_ms)
        if here:
            stage = self._breaker.ended(hold.number, cause, detail[:DETAIL_CHARS_MAX], steady_ms, clock.chance)
            if stage is not None:
                self._tell(stage)
        self._dispatcher.left()

    def moved(self, hold: Hold, to: Hold) -> None:
        """The same hand-over, on another connection."""
        self.holds[to] = self.holds.pop(hold)

    def _tell(self, stage: Stage) -> None:
        status = self.breaker
        if stage is Stage.CLOSED:
            self._node.tell("handler works again", kind=self.kind.number, name=self.kind.name)
            return
        assert status.until_ms is not None  # it is open
        self._node.tell(
            "handler in trouble, left alone",
            kind=self.kind.number,
            name=self.kind.name,
            failures=status.failures,
            cause=status.cause and status.cause.value,
            detail=status.detail,
            for_ms=status.until_ms - status.since_ms,
        )


def handler_text(kind: Kind) -> str:
    """The handler as configured, for people."""
    handler = kind.handler
    if isinstance(handler, str):
        return handler
    return f"local:{handler.__module__}:{getattr(handler, '__qualname__', type(handler).__qualname__)}"


class Dispatcher:
    """Owned by the node; `wake` may be called from anywhere on the loop, as often as one likes."""

    def __init__(self, node: Node, routes: Mapping[int, Route]) -> None:
        self._node = node
        self.machine = node.machine
        self.steady_ms = node.clock.steady_ms
        self._loop = asyncio.get_running_loop()
        self.lanes = {number: KindLane(node.kinds[number], route, self, node) for number, route in routes.items()}
        self._routes: Iterable[Route] = tuple(dict.fromkeys(routes.values()))
        self._leaving: dict[Route, asyncio.Task[None]] = {}  # no longer configured, and still in use
        self._back = asyncio.Event()  # something of what went a way that is no longer configured, perhaps
        self._scheduled = False
        self._running = False
        self._started = False
        self._first = 0  # the lane that begins the next turn
        self._emptied = asyncio.Event()
        self.deliveries = 0

    def start(self) -> None:
        self._running = self._started = True
        for route in self._routes:
            route.start(self._node, self.wake)
        self.wake()

    def pause(self) -> None:
        """Hand over nothing more."""
        self._running = False

    async def finish(self, timeout_s: float) -> None:
        """Hand over nothing more, and give handlers so long to end what they hold."""
        self.pause()
        if self.out:
            self._emptied.clear()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._emptied.wait(), timeout_s)

    @property
    def out(self) -> int:
        """Sessions that handlers hold now."""
        return sum(lane.out for lane in self.lanes.values())

    def reconfigure(self, kinds: Mapping[int, Kind], routes: Mapping[int, Route]) -> None:
        """Go on with these. A route that is no longer used is let go of when all that went that way is back, or has
        been away for the longest handler_timeout there was."""
        timeout_s = max((lane.kind.handler_timeout_s for lane in self.lanes.values()), default=0.0)
        for number in self.lanes.keys() - kinds.keys():
            del self.lanes[number]
        for number, kind in kinds.items():
            if (lane := self.lanes.get(number)) is not None:
                lane.change(kind, routes[number])
            else:
                self.lanes[number] = KindLane(kind, routes[number], self, self._node)
        before, self._routes = self._routes, tuple(dict.fromkeys(routes.values()))
        for route in before:
            if route not in self._routes and self._started:
                self._leaving[route] = self._loop.create_task(self._let_go(route, timeout_s))
        for route in self._routes:
            if route not in before and self._started:
                route.start(self._node, self.wake)
        self.wake()

    async def _let_go(self, route: Route, timeout_s: float) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout_s):
                while any(way is route for lane in self.lanes.values() for way in lane.holds.values()):
                    self._back.clear()
                    await self._back.wait()
        await self._end(route)
        del self._leaving[route]

    async def _end(self, route: Route) -> None:
        """What a transport meets on its way out, perhaps one of the user's own, holds up nobody else."""
        try:
            await route.stop()
        except Exception as error:
            self._node.tell("handler not let go of cleanly", state=route.state(), error=repr(error))

    def left(self) -> None:
        """A lane has room again."""
        self._back.set()
        if self._running:
            self.wake()
        elif not self.out:
            self._emptied.set()

    async def stop(self) -> None:
        self.pause()
        if self._started:  # else the node was deposed, or failed, before it had any
            self._started = False  # nor has it any that it is configured with from here on
            for task in self._leaving.values():
                task.cancel()
            await asyncio.gather(*map(self._end, (*self._routes, *self._leaving)))

    def wake(self) -> None:
        if not self._scheduled and self._running:
            self._scheduled = True
            self._loop.call_soon(self._turn)

    def wait_ms(self, now_ms: int, steady_ms: int) -> int | None:
        """Until time alone lets a lane hand over its next session; who waits for a seat is woken by its route."""
        queue = self._node.machine.queue
        waits_ms = [
            max(wait_ms, key.due_ms - now_ms)
            for number, lane in self.lanes.items()
            if (wait_ms := lane.wait_ms(steady_ms)) is not None and (key := queue(number).peek()) is not None
        ]
        return min((wait_ms for wait_ms in waits_ms if wait_ms > 0), default=None)

    def _turn(self) -> None:
        self._scheduled = False
        if not self._running:
            return
        try:
            self._hand_over()
            self._node.rearm()
        except Exception as error:  # damage found in the store, or a defect: nothing may be held back in silence
            self._node.give_up(error)

    def _hand_over(self) -> None:
        """One session of each lane in turn, so that kinds which share a handler share its seats too."""
        lanes = list(self.lanes.values())
        self._first = (self._first + 1) % len(lanes) if lanes else 0
        lanes = lanes[self._first :] + lanes[: self._first]
        now_ms = self._node.clock.now_ms()
        steady_ms = self._node.clock.steady_ms()
        for _ in range(ROUND):
            lanes = [lane for lane in lanes if self._advance(lane, now_ms, steady_ms)]
            if not lanes:
                return
        self.wake()

    def _advance(self, lane: KindLane, now_ms: int, steady_ms: int) -> bool:
        """Hand over the next session of a lane; False when there is none, or nobody to take it."""
        node = self._node
        kind = lane.kind
        if lane.wait_ms(steady_ms) != 0:
            return False
        key = node.machine.queue(kind.number).peek()
        if key is None or key.due_ms > now_ms:
            return False
        owner = lane.route.seat(kind.number)
        if owner is None:
            return False
        hold = node.grant(key.number, owner, now_ms, lane.to)
        if hold is not None:
            self.count(hold)
            lane.handed_over(hold, steady_ms)
            lane.meter.deliveries += 1
            lane.meter.late_ms.add(now_ms - key.due_ms)
            self.deliveries += 1
            node.when_durable(_Push(node, hold, node.machine.owned[hold.number].bytes))
        return True

    def outcome(self, number: int) -> str:
        """What a hold that has just ended came to: its session is in the young layer, or is gone."""
        head = self.machine.layers.young.heads.get(number)
        return "deleted" if head is None else head.cause.value

    def count(self, hold: Hold) -> None:
        """A hold of a handler takes up room in its lane until it ends."""
        lane = self.lanes.get(hold.kind)
        if lane is not None:
            hold.lane = lane
            hold.since_ms = self.steady_ms()
            lane.holds[hold] = lane.route


class _Push:
    """The second half of a hand-over, once its Repeated is durable."""

    __slots__ = ("hold", "node", "size")

    def __init__(self, node: Node, hold: Hold, size: int) -> None:
        self.node = node
        self.hold = hold
        self.size = size

    def __call__(self, durable: bool) -> None:
        self.hold.owner.unpushed_bytes -= self.size
        if not durable or self.hold.ended:
            return  # the owner went away meanwhile, and the session was given back
        try:
            self._push()
        except Exception as error:  # its records cannot be read, or a route is broken
            self.node.give_up(error)

    def _push(self) -> None:
        hold, node = self.hold, self.node
        head = node.machine.get(hold.number)
        assert head is not None  # an open hold's session exists
        kind = node.kinds[head.kind]
        handover = Handover(
            hold,
            head.attempts,
            round(kind.handler_timeout_s * 1000),
            head.cause,
            node.machine.records(hold.number),
            head.trace,
        )
        receiver = hold.owner.receiver
        hold.pushed = receiver is not None and receiver.repeat(handover)
        if hold.ended:
            return
        if hold.pushed:
            node.touch(hold)  # it has its whole time from here on, however long the disk took
        else:
            node.give_back(hold, Cause.UNREACHABLE)
