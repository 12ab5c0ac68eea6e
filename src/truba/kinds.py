"""A kind of client, and the policy by which its unfinished sessions are handed over.

`Kind` is both what users write in Python and what a configuration file turns into. Times are seconds, sizes are bytes.
"""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from truba.errors import ConfigError

if TYPE_CHECKING:
    from truba import sync
    from truba.ports.parked import ParkedSession
    from truba.ports.records import Codec
    from truba.session import RepeatData
    from truba.typed import TypedRepeat
    from truba.webhook import Webhook

AsyncHandler = Callable[["RepeatData"], Awaitable[Any]]
Handler = AsyncHandler | Callable[["sync.RepeatData"], Any]
"""What finishes a session: returning deletes it, raising has it handed over again after a backoff.

A coroutine function, or a plain one, which runs in a thread with the plain twin of the repeat.
"""

AnyHandler = Handler | Callable[["TypedRepeat[Any]"], Awaitable[Any]] | Callable[["sync.TypedRepeat[Any]"], Any]
"""Where a codec may stand beside it: with one, the function gets records as objects."""

OnParked = Callable[["ParkedSession"], Any]
"""Hears of a session that was parked: a coroutine function, or a plain one, which runs in a thread."""

KIND_MAX = 2**32 - 1

SECONDS_MAX = 1e15
"""Thirty million years, which is for ever. Much more does not fit the milliseconds of an event, and ends the pipe."""


@dataclass(frozen=True, slots=True)
class Backoff:
    """Exponential backoff with full jitter: after try n, a random time up to `min(cap_s, base_s * factor**(n - 1))`."""

    base_s: float = 1.0
    factor: float = 2.0
    cap_s: float = 600.0

    def __post_init__(self) -> None:
        if not (0 <= self.base_s < math.inf and 1 <= self.factor < math.inf and 0 <= self.cap_s <= SECONDS_MAX):
            raise ConfigError(f"backoff needs base >= 0, factor >= 1, cap from 0 to {SECONDS_MAX:.0f} s: {self}")

    def delay_s(self, tries: int, chance: float) -> float:
        """Seconds to wait after try number `tries` (from 1); `chance` is uniform in [0, 1)."""
        try:
            ceiling_s = min(self.cap_s, self.base_s * self.factor ** (max(tries, 1) - 1))
        except OverflowError:
            ceiling_s = self.cap_s
        return chance * ceiling_s


@dataclass(frozen=True, slots=True)
class Breaker:
    """When a kind's handler is left alone (see `truba.node.breaker`): after that many sessions in a row ended badly.

    For a random time up to `open_for_s`, twice that after each session that is tried in vain, `cap_s` at most.
    """

    failures: int = 10
    """0: never."""
    open_for_s: float = 1.0
    cap_s: float = 30.0

    def __post_init__(self) -> None:
        if self.failures < 0 or not (0 <= self.open_for_s < math.inf and 0 <= self.cap_s < math.inf):
            raise ConfigError(f"breaker needs failures >= 0, open_for >= 0, cap >= 0: {self}")


@dataclass(frozen=True, slots=True)
class Kind:
    """One kind of client: its number and name, who finishes its sessions, and within which limits."""

    number: int
    name: str
    handler: AnyHandler | Webhook | str
    """A function, a webhook, or a route: "local:module:function", "truba://host:port", "unix:/path", or one with a
    scheme that is plugged in."""
    recovery_delay_s: float = 5.0
    """From the loss of an owner to the hand-over: time for the old owner's last effects to settle."""
    jitter_s: float = 2.0
    """Random extra on top of recovery_delay_s, so that one crash does not come back as one burst."""
    backoff: Backoff = field(default_factory=Backoff)
    max_attempts: int = 25
    """Hand-overs that reached the handler before the session is parked; 0: no limit."""
    max_age_s: float = 7 * 86_400.0
    """Age at which an unfinished session is parked instead of handed over; 0: no limit."""
    handler_timeout_s: float = 60.0
    """How long a handler may show no sign of life (operation or Touch) before it is given up as late."""
    idle_timeout_s: float = 3_600.0
    """How long a client may hold a session without any operation."""
    concurrency: int = 64
    """Sessions of this kind that handlers work on at once."""
    record_bytes_max: int = 1 << 20
    session_bytes_max: int = 64 << 20
    session_records_max: int = 65_536
    rate_per_s: float | None = None
    """Hand-overs a second, one second's worth of them at once; None: no limit."""
    breaker: Breaker = field(default_factory=Breaker)
    on_parked: OnParked | Webhook | Sequence[str] | str | None = None
    """Told of each session that is parked: a function, a webhook, a command with its arguments, or an address of a
    scheme that is plugged in."""
    codec: Codec[Any] | None = None
    """What records are for the handler, where it is a function, and for sessions of an embedded pipe; None: bytes."""

    def __post_init__(self) -> None:
        def refuse(what: str) -> ConfigError:
            return ConfigError(f"kind {self.name!r}: {what}")

        if not (isinstance(self.number, int) and 0 <= self.number <= KIND_MAX):
            raise refuse(f"number must be a whole number from 0 to {KIND_MAX}, not {self.number!r}")
        if not self.name or not all(c.isalnum() or c in "-_." for c in self.name) or self.name.isdecimal():
            raise refuse("a name is made of letters, digits, '-', '_' and '.', and is not a number")
        for what in ("recovery_delay_s", "jitter_s", "max_age_s", "handler_timeout_s", "idle_timeout_s"):
            if not getattr(self, what) <= SECONDS_MAX:
                raise refuse(f"{what} must be at most {SECONDS_MAX:.0f}")
        for what in ("recovery_delay_s", "jitter_s", "max_attempts", "max_age_s"):
            if getattr(self, what) < 0:
                raise refuse(f"{what} must not be negative")
        for what in ("handler_timeout_s", "idle_timeout_s", "concurrency"):
            if getattr(self, what) <= 0:
                raise refuse(f"{what} must be above zero")
        if self.rate_per_s is not None and not 0 < self.rate_per_s < math.inf:
            raise refuse("rate_per_s must be above zero and finite, or None")
        hook = self.on_parked
        words = hook if isinstance(hook, str | list | tuple) else ()
        posted = hasattr(hook, "url")  # a Webhook: its module is imported by those who post
        if not (hook is None or callable(hook) or posted) and not (
            words and words[0] and all(type(word) is str for word in words)
        ):
            raise refuse("on_parked must be a function, or a command with its arguments: a list of texts")
        for what in ("record_bytes_max", "session_bytes_max", "session_records_max"):
            if getattr(self, what) < 1:
                raise refuse(f"{what} must be at least 1")
