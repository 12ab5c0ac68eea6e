"""The dispatcher: hands due sessions to handlers, each kind in a lane of its own.

    due? a free seat at the handler? fewer than `concurrency` out?  ->  Repeated staged  ->  durable  ->  pushed

A lane looks only at its own kind, so a dead or slow handler holds up nobody else. It pushes what the node granted and
decides nothing about a session's fate; that is the node's and the machine's part.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

from truba.kinds import Kind
from truba.machine.why import LaneView
from truba.node.meters import LaneMeter
from truba.node.owners import Handover, Hold
from truba.ports.transport import Route
from truba.types import Cause

if TYPE_CHECKING:
    from truba.node.node import Node

ROUND = 128
"""Hand-overs that one lane stages in one turn of the loop, so that a large backlog does not hold up clients."""


class KindLane:
    """One kind: its route and how many of its sessions are out."""

    __slots__ = ("_dispatcher", "kind", "meter", "out", "route", "to")

    def __init__(self, kind: Kind, route: Route, dispatcher: Dispatcher) -> None:
        self.kind = kind
        self.route = route
        self.to = handler_text(kind)  # what a session's history says
        self.out = 0
        self.meter = LaneMeter()
        self._dispatcher = dispatcher

    @property
    def view(self) -> LaneView:
        """As operators see it now."""
        kind = self.kind
        return LaneView(
            handler=self.to,
            state=self.route.state(),
            out=self.out,
            concurrency=kind.concurrency,
            paused=self.paused,
            reachable=self.out >= kind.concurrency or self.route.seat(kind.number) is not None,
        )

    @property
    def paused(self) -> bool:
        """By an operator."""
        return self.kind.number in self._dispatcher.machine.paused

    def left(self, hold: Hold) -> None:
        """A hold of this lane has ended: there is room for another."""
        self.out -= 1
        meter = self.meter
        meter.outcomes[self._dispatcher.outcome(hold.number)] += 1
        meter.held_ms.add(self._dispatcher.steady_ms() - hold.since_ms)
        self._dispatcher.left()


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
        self.lanes = {number: KindLane(node.kinds[number], route, self) for number, route in routes.items()}
        self._routes: Iterable[Route] = tuple(dict.fromkeys(routes.values()))
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

    def left(self) -> None:
        """A lane has room again."""
        if self._running:
            self.wake()
        elif not self.out:
            self._emptied.set()

    async def stop(self) -> None:
        self.pause()
        if self._started:  # else the node was deposed, or failed, before it had any
            await asyncio.gather(*(route.stop() for route in self._routes))

    def wake(self) -> None:
        if not self._scheduled and self._running:
            self._scheduled = True
            self._loop.call_soon(self._turn)

    def next_due_ms(self) -> int | None:
        """Wall-clock time of the next session that a lane waits for; who waits for a seat is woken by its route."""
        queue = self._node.machine.queue
        dues = [
            key.due_ms
            for number, lane in self.lanes.items()
            if lane.out < lane.kind.concurrency and not lane.paused and (key := queue(number).peek()) is not None
        ]
        now_ms = self._node.clock.now_ms()
        return min((due_ms for due_ms in dues if due_ms > now_ms), default=None)

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
        for _ in range(ROUND):
            lanes = [lane for lane in lanes if self._advance(lane, now_ms)]
            if not lanes:
                return
        self.wake()

    def _advance(self, lane: KindLane, now_ms: int) -> bool:
        """Hand over the next session of a lane; False when there is none, or nobody to take it."""
        node = self._node
        kind = lane.kind
        if lane.out >= kind.concurrency or lane.paused:
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
            lane.out += 1


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
        if not hold.pushed and not hold.ended:
            node.give_back(hold, Cause.UNREACHABLE)
