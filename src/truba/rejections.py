"""Who was turned away at an address: all of them counted by cause, and a few of each cause a minute told in the log.

Whoever reaches the address can be turned away as often as he likes. A line for each would let him fill the disk that
holds the log, so the first ones of a minute are told one by one, and at its end how many more there were.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass

LINES_MAX = 10
"""Of one cause, one by one: enough to see from where, and a few megabytes a day of each cause at the worst."""

WINDOW_S = 60.0


@dataclass(slots=True)
class _Window:
    """From the first one of a cause on; the next one begins with the first after its end."""

    end: asyncio.TimerHandle
    seen: int = 0


class Rejections:
    """Of one address. `tell(cause, **fields)` writes a line of the log, whose text is the cause: there are few."""

    def __init__(self, tell: Callable[..., object], *, lines_max: int = LINES_MAX, window_s: float = WINDOW_S) -> None:
        self.counts: Counter[str] = Counter()
        """By cause, since the start."""
        self._tell = tell
        self._lines_max = lines_max
        self._window_s = window_s
        self._windows: dict[str, _Window] = {}

    def add(self, cause: str, /, **fields: object) -> None:
        """One more. `fields`: what else its line says."""
        self.counts[cause] += 1
        window = self._windows.get(cause)
        if window is None:
            end = asyncio.get_running_loop().call_later(self._window_s, self._end, cause)
            window = self._windows[cause] = _Window(end)
        window.seen += 1
        if window.seen <= self._lines_max:
            self._tell(cause, **fields)

    def close(self) -> None:
        """Tell now of those that were not told of yet."""
        for cause in list(self._windows):
            self._end(cause)

    def _end(self, cause: str) -> None:
        window = self._windows.pop(cause)
        window.end.cancel()
        if window.seen > self._lines_max:
            self._tell(cause, left_out=window.seen - self._lines_max, within_s=self._window_s)
