"""Where the next batch is committed: on the event loop, or on the commit thread. Pure: fed with durations.

Two hops between threads cost more than a fast sync hides, and a slow sync must not stop the loop. So: on the loop
while syncs are fast, on the thread for a while after a slow one.
"""

from __future__ import annotations

_STAY_MIN, _STAY_MAX = 32, 4096  # batches on the thread before the loop is tried again


class Pace:
    """`inline` says where the next batch goes; `took` tells how long the last one was."""

    __slots__ = ("_best_s", "_estimate_s", "_inline_s_max", "_left", "_slow_s", "_stay", "_streak", "inline")

    def __init__(self, inline_s_max: float, slow_s: float = 0.003) -> None:
        self.inline = True
        self._inline_s_max = inline_s_max  # mean write + sync up to which batches stay on the loop
        self._slow_s = slow_s  # one batch as slow as this sends the next ones to the thread
        self._estimate_s = 0.0
        self._best_s = 0.0
        self._stay = _STAY_MIN
        self._left = 0
        self._streak = _STAY_MAX  # batches on the loop since the last time

    def took(self, duration_s: float) -> None:
        if self.inline:
            self._estimate_s += (duration_s - self._estimate_s) / 8
            self._streak += 1
            if duration_s >= self._slow_s or self._estimate_s > self._inline_s_max:
                # A disk that is slow again soon after the last time is left to the thread for longer.
                self._stay = min(_STAY_MAX, self._stay * 2) if self._streak <= self._stay else _STAY_MIN
                self.inline, self._left, self._best_s = False, self._stay, duration_s
            return
        # On the thread a duration includes the wait for the interpreter's lock, so only the best of many tells what
        # the disk can do; a mean would never let the log come back to the loop.
        self._best_s = min(self._best_s, duration_s)
        self._left -= 1
        if self._left <= 0:
            if self._best_s <= self._inline_s_max:
                self.inline, self._estimate_s, self._streak = True, self._best_s, 0
            else:
                self._left, self._best_s = self._stay, duration_s
