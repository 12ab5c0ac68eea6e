"""Connections that have not said who they are yet: few of them, and not for long.

Whoever comes when there are too many takes the place of the one that has waited longest: those who mean to say who they
are do so within a round trip, and so the places go from stranger to stranger.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Generic, TypeVar

G = TypeVar("G")

STRANGERS_MAX = 256
KNOWN_WITHIN_S = 10.0
"""From the first byte to the proof, the handshake of TLS included."""


class Strangers(Generic[G]):
    """`drop` is called with one that has to go, and why; it is no stranger any more then."""

    def __init__(
        self, drop: Callable[[G, str], object], *, strangers_max: int | None = None, within_s: float | None = None
    ) -> None:
        self._drop = drop
        self._strangers_max = STRANGERS_MAX if strangers_max is None else strangers_max
        self._within_s = KNOWN_WITHIN_S if within_s is None else within_s
        self._alarms: dict[G, asyncio.TimerHandle] = {}  # in order of arrival

    def __len__(self) -> int:
        return len(self._alarms)

    def add(self, one: G) -> None:
        if len(self._alarms) >= self._strangers_max:
            self._dismiss(next(iter(self._alarms)), f"over {self._strangers_max} have not said who they are")
        late = f"did not say who it is within {self._within_s:g} s"
        self._alarms[one] = asyncio.get_running_loop().call_later(self._within_s, self._dismiss, one, late)

    def known(self, one: G) -> None:
        """It has said who it is, or is gone. May be called for anybody."""
        alarm = self._alarms.pop(one, None)
        if alarm is not None:
            alarm.cancel()

    def _dismiss(self, one: G, why: str) -> None:
        self.known(one)
        self._drop(one, why)
