"""A node in memory and in jumping time, with handlers that the test plays itself."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from truba.kinds import Kind
from truba.log.memory import MemoryLog, Shelf
from truba.node.node import Limits, Node
from truba.node.owners import Handover, Hold, Owner
from truba.store.memory import MemoryStore
from truba.testing.jump import JumpClock
from truba.types import Cause


@dataclass(eq=False)
class PlayedRoute:
    """A handler service played by the test: takes what it is given while it is `up`, and does nothing by itself."""

    up: bool = True
    stopped: bool = False
    reachable: bool = True
    seats: int = 1_000_000
    given: list[Handover] = field(default_factory=list)
    given_at_ms: list[int] = field(default_factory=list)
    taken_away: list[tuple[Hold, Cause]] = field(default_factory=list)

    def start(self, node: Node, wake: Callable[[], None]) -> None:
        self.node = node
        self.wake = wake
        self.owner: Owner = node.presence.attach(self)
        wake()

    def seat(self, kind: int) -> Owner | None:
        return self.owner if self.up and self.owner.out < self.seats else None

    def state(self) -> str:
        return "up" if self.up else "down"

    async def stop(self) -> None:
        self.stopped = True
        self.node.presence.detach(self.owner)

    def repeat(self, handover: Handover) -> bool:
        if not self.reachable:
            return False
        self.given.append(handover)
        self.given_at_ms.append(self.node.clock.now_ms())
        return True

    def lost(self, hold: Hold, cause: Cause) -> None:
        self.taken_away.append((hold, cause))

    def released(self, hold: Hold) -> None:
        pass


class World:
    """What survives a crash (shelf, store), and the node that stands on it now."""

    def __init__(self, *kinds: Kind, limits: Limits | None = None, clock: JumpClock | None = None) -> None:
        self.kinds = kinds
        self.limits = limits
        self.clock = clock or JumpClock()
        self.shelf = Shelf()
        self.store = MemoryStore()
        self.routes: dict[int, PlayedRoute] = {}
        self.told: list[tuple[str, dict[str, object]]] = []

    async def start(self, kinds: Iterable[Kind] | None = None) -> Node:
        self.log = self.make_log()
        self.routes = {kind.number: self.make_route() for kind in kinds or self.kinds}
        self.node = Node(
            self.log,
            self.store,
            tuple(kinds or self.kinds),
            dict(self.routes),
            limits=self.limits,
            clock=self.clock,
            tell=self._heard,
        )
        await self.node.start()
        return self.node

    def make_log(self) -> MemoryLog:
        return MemoryLog(self.shelf)

    def make_route(self) -> PlayedRoute:
        return PlayedRoute()

    async def crash(self) -> Node:
        """kill -9 and start again: what was not durable is gone, nobody was told anything."""
        self.node.give_up(RuntimeError("killed"))  # it must not act any more
        await self.node.checkpointer.close()
        return await self.start()

    def _heard(self, event: str, /, **fields: object) -> None:
        self.told.append((event, fields))

    async def durable(self) -> None:
        await self.node.sequencer.flush()

    async def pass_time(self, seconds: float) -> None:
        await asyncio.sleep(seconds)  # the clock jumps

    def route(self, kind: int) -> PlayedRoute:
        return self.routes[kind]


async def nobody(repeat: object) -> None:
    """A handler that is never called: the route is played."""
