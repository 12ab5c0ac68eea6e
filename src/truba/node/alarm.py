"""One timer of the loop, armed at the earliest time that anybody asked for."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from truba.clock import Clock


class Alarm:
    """Calls back once for each time it was armed, at the earliest of the times asked for since. Steady clock, ms."""

    def __init__(self, callback: Callable[[], None], clock: Clock) -> None:
        self._callback = callback
        self._clock = clock
        self._loop = asyncio.get_running_loop()
        self._timer: asyncio.TimerHandle | None = None
        self._at_ms = 0

    def at(self, steady_ms: int) -> None:
        """Ring by then at the latest."""
        if self._timer is not None:
            if self._at_ms <= steady_ms:
                return
            self._timer.cancel()
        self._at_ms = steady_ms
        self._timer = self._loop.call_later(max(0, steady_ms - self._clock.steady_ms()) / 1000, self._ring)

    def cancel(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _ring(self) -> None:
        self._timer = None
        self._callback()
