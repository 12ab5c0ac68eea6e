"""Time that jumps: an event loop whose clock runs ahead to the next timer instead of waiting for it.

For tests of everything that stands on a `Clock` and on asyncio's timers. A day passes in microseconds, and always the
same way: the dice are seeded. Only for code without real I/O; a loop with nothing left to do and no timer is an error.
"""

from __future__ import annotations

import asyncio
import random
import selectors
from collections.abc import Callable, Coroutine
from concurrent.futures import Executor
from typing import TypeVar, TypeVarTuple, Unpack

T = TypeVar("T")
Ts = TypeVarTuple("Ts")


class JumpClock:
    """A `truba.clock.Clock` that moves only when told to. `wall_ms` may be set, as a clock set by hand would be."""

    def __init__(self, wall_ms: int = 1_800_000_000_000, seed: int = 0) -> None:
        self.steady_s = 1000.0
        self.wall_ms = wall_ms
        self._wall_left_ms = 0.0
        self._random = random.Random(seed)

    def now_ms(self) -> int:
        return self.wall_ms

    def steady_ms(self) -> int:
        return int(self.steady_s * 1000)

    def chance(self) -> float:
        return self._random.random()

    def advance(self, seconds: float) -> None:
        """Both clocks go on."""
        self.steady_s += seconds
        self._wall_left_ms += seconds * 1000
        whole = int(self._wall_left_ms)
        self._wall_left_ms -= whole
        self.wall_ms += whole


class _JumpSelector(selectors.SelectSelector):
    """Instead of waiting, moves the clock. For a thread it waits: what threads do takes no time here."""

    def __init__(self, clock: JumpClock) -> None:
        super().__init__()
        self._clock = clock
        self.threads = 0  # at work

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        if self.threads and (timeout is None or timeout > 0):
            return super().select(None)
        if timeout is None:
            raise RuntimeError("nothing is left to do and no timer is set: this would wait for ever")
        if timeout > 0:
            self._clock.advance(timeout)
        return super().select(0) if self.threads else []  # nothing else can have become ready: spare the system call


class JumpLoop(asyncio.SelectorEventLoop):
    """An event loop that lives in the time of a `JumpClock`. Without `threads` it does their work itself, at once."""

    def __init__(self, clock: JumpClock, *, threads: bool = True) -> None:
        self._jumps = _JumpSelector(clock)
        super().__init__(self._jumps)
        self._clock = clock
        self._threads = threads

    def run_in_executor(
        self, executor: Executor | None, func: Callable[[Unpack[Ts]], T], *args: *Ts
    ) -> asyncio.Future[T]:
        if not self._threads:
            return self._done_at_once(func, *args)
        future = super().run_in_executor(executor, func, *args)
        self._jumps.threads += 1
        future.add_done_callback(self._thread_done)
        return future

    def _done_at_once(self, func: Callable[[Unpack[Ts]], T], *args: *Ts) -> asyncio.Future[T]:
        future: asyncio.Future[T] = self.create_future()
        try:
            future.set_result(func(*args))
        except Exception as error:  # whoever waits for the thread hears of it
            future.set_exception(error)
        return future

    def _thread_done(self, _: object) -> None:
        self._jumps.threads -= 1

    def time(self) -> float:
        return self._clock.steady_s


def run_jumping(main: Coroutine[object, object, T], clock: JumpClock, *, threads: bool = True) -> T:
    """Run `main` to its end in jumping time. Without `threads` nothing depends on how fast threads are."""
    with asyncio.Runner(loop_factory=lambda: JumpLoop(clock, threads=threads)) as runner:
        return runner.run(main)
