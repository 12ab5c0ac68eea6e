"""An event loop in jumping time without sockets and threads: dialling and blocking work are asked of the world."""

from __future__ import annotations

import asyncio
import selectors
from collections.abc import Callable, Coroutine
from typing import Any, Protocol, TypeVar

from truba.testing.jump import JumpClock

T = TypeVar("T")

TURNS_MAX = 50_000
"""Of the loop, in one run: more means that it never comes to rest."""


class Outside(Protocol):
    """What the loop asks for instead of the operating system."""

    async def dial(self, make: Callable[[], asyncio.Protocol], host: str, port: int) -> asyncio.Transport:
        """A connection of `make()` to whoever listens there. OSError when there is none."""

    def work(self, call: Callable[[], Any]) -> asyncio.Future[Any]:
        """Run what would block, as on a thread of its own."""


class _NoSelector(selectors.SelectSelector):
    """Nothing is ever ready; instead of waiting, the clock goes on."""

    def __init__(self, clock: JumpClock) -> None:
        super().__init__()
        self._clock = clock
        self.turns = 0
        self.turn_s = 0.0  # what a turn takes when there is something to do at once

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        self.turns += 1
        if self.turns == TURNS_MAX:  # once: what follows is the end
            raise RuntimeError(f"{TURNS_MAX} turns of the loop, and no end")
        if timeout is None:
            raise RuntimeError("nothing is left to do and no timer is set: this would wait for ever")
        self._clock.advance(timeout or self.turn_s)
        return []


class SimulatedLoop(asyncio.SelectorEventLoop):
    """Runs one world. `outside` must be set before anything dials or blocks."""

    def __init__(self, clock: JumpClock) -> None:
        self._nothing = _NoSelector(clock)
        super().__init__(self._nothing)
        self._clock = clock
        self.outside: Outside

    @property
    def turns(self) -> int:
        return self._nothing.turns

    def slow_down(self, turn_s: float) -> None:
        """Each turn takes so long from now on: what is done in several of them can be interrupted by others."""
        self._nothing.turn_s = turn_s

    def time(self) -> float:
        return self._clock.steady_s

    def run_in_executor(  # type: ignore[override]
        self, executor: object, func: Callable[..., T], *args: Any
    ) -> asyncio.Future[T]:
        return self.outside.work(lambda: func(*args))

    async def create_connection(  # type: ignore[override]
        self, protocol_factory: Callable[[], asyncio.Protocol], host: str, port: int
    ) -> tuple[asyncio.Transport, asyncio.Protocol]:
        made: list[asyncio.Protocol] = []

        def make() -> asyncio.Protocol:
            made.append(protocol_factory())
            return made[0]

        return await self.outside.dial(make, host, port), made[0]


def run_simulated(main: Callable[[SimulatedLoop], Coroutine[Any, Any, T]], clock: JumpClock) -> T:
    """Run `main(loop)` to its end. The loop and all that is left on it are gone afterwards."""
    loops: list[SimulatedLoop] = []

    def make() -> SimulatedLoop:
        loops.append(SimulatedLoop(clock))
        return loops[0]

    with asyncio.Runner(loop_factory=make, debug=False) as runner:
        runner.get_loop()
        return runner.run(main(loops[0]))
