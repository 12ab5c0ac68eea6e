"""An event loop for many processes at once: one of them can stand still while the others go on, and threads are none.

Which process a callback belongs to is told by its context: a task, and all that it begins, carries the `PROCESS` that
it was begun in. A process that is frozen runs nothing, as after SIGSTOP; thawed, it finds everything that came
meanwhile, in the order in which it came, and every timer over its time.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import Executor
from contextvars import ContextVar
from heapq import heapify, heappush
from typing import TypeVar, TypeVarTuple, Unpack

from truba.testing.jump import JumpClock, JumpLoop

TURNS_MAX = 100_000
"""Turns of the loop at one moment of time: more than that is a loop that waits for time to pass, and never sleeps."""

T = TypeVar("T")
Ts = TypeVarTuple("Ts")

PROCESS: ContextVar[str] = ContextVar("PROCESS", default="")
"""The name of the process that runs; empty: the world around all of them."""


class StormLoop(JumpLoop):
    """`thread_s`: how long what is given to a thread takes there; it then happens at once."""

    def __init__(self, clock: JumpClock, thread_s: Callable[[], float] = lambda: 0.001) -> None:
        super().__init__(clock)
        self._ready: list[asyncio.Handle]  # BaseEventLoop's own, a deque: what runs in the next turn
        self._scheduled: list[asyncio.TimerHandle]  # its own too: a heap
        self._frozen: dict[str, list[asyncio.Handle]] = {}
        self._thread_s = thread_s
        self._moment_s = 0.0
        self._turns = 0

    def freeze(self, process: str) -> None:
        self._frozen.setdefault(process, [])

    def thaw(self, process: str) -> None:
        """Let it go on. Nothing happens if it was not frozen."""
        held = self._frozen.pop(process, [])
        timers = sorted(
            (handle for handle in held if isinstance(handle, asyncio.TimerHandle)), key=asyncio.TimerHandle.when
        )
        self._ready.extend(handle for handle in held if not isinstance(handle, asyncio.TimerHandle))
        for timer in timers:
            if not timer.cancelled():
                timer._scheduled = True  # type: ignore[attr-defined]  # noqa: SLF001 - as call_at does
                heappush(self._scheduled, timer)

    def run_in_executor(
        self, executor: Executor | None, func: Callable[[Unpack[Ts]], T], *args: *Ts
    ) -> asyncio.Future[T]:
        """Threads of real time would bring chance into the order of things."""
        future: asyncio.Future[T] = self.create_future()

        def work() -> None:
            if future.cancelled():
                return
            try:
                future.set_result(func(*args))
            except Exception as error:  # it is the caller's
                future.set_exception(error)

        self.call_later(self._thread_s(), work)
        return future

    def _run_once(self) -> None:
        self._turns += 1
        if self._moment_s != self.time():
            self._moment_s, self._turns = self.time(), 0
        elif self._turns > TURNS_MAX:
            self._turns = 0
            raise RuntimeError(f"time stands still: {TURNS_MAX} turns of the loop at {self._moment_s}")
        if self._frozen:
            self._hold_back()
        super()._run_once()  # type: ignore[misc]

    def _hold_back(self) -> None:
        """What belongs to a frozen process is taken out before anything runs."""
        frozen = self._frozen
        ready = list(self._ready)
        self._ready.clear()
        for handle in ready:
            held = frozen.get(_process(handle))
            (self._ready if held is None else held).append(handle)
        going = []
        for timer in self._scheduled:
            held = frozen.get(_process(timer))
            if held is None:
                going.append(timer)
            else:
                timer._scheduled = False  # type: ignore[attr-defined]  # noqa: SLF001 - it is in no heap now
                held.append(timer)
        if len(going) < len(self._scheduled):
            self._scheduled[:] = going
            heapify(self._scheduled)


def _process(handle: asyncio.Handle) -> str:
    return handle._context.get(PROCESS, "")  # type: ignore[attr-defined,no-any-return]  # noqa: SLF001 - nothing else tells
