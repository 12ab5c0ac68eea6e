"""Parked hooks: how somebody hears that a session was parked, and that a person is needed.

Shipped: `truba.hooks.command` (a program of your own), `truba.hooks.function` (a function, embedded) and
`truba.transports.notes` (a signed POST).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from truba.types import Cause, Index

if TYPE_CHECKING:
    from truba.kinds import Kind


@dataclass(frozen=True, slots=True)
class ParkedSession:
    """What a hook is told. Never what the records hold."""

    id: Index
    kind: int
    name: str
    """The kind's."""
    cause: Cause
    """What ended the hold of the last owner."""
    detail: str
    """Which limit was reached, and what the handler said when it gave the session back."""
    attempts: int
    epoch: int
    """Number of hand-overs: with the id, it names this parking."""

    def fields(self) -> dict[str, str | int]:
        """As JSON may have it."""
        return {
            "session": str(self.id),
            "kind": self.kind,
            "name": self.name,
            "cause": self.cause.value,
            "detail": self.detail,
            "attempts": self.attempts,
        }


class ParkedHook(Protocol):
    """Tells somebody. Called on the loop, at least once for each session that is parked while the process lives."""

    async def __call__(self, parked: ParkedSession, /) -> None:
        """Return: it is told. Raise: try again later. Cancelled (it took too long, or the pipe stops): leave nothing
        behind that still runs."""


class HookMaker(Protocol):
    """Makes the hooks of one scheme, for `on_parked = "scheme:..."`."""

    def __call__(self, address: str, kind: Kind, /) -> ParkedHook:
        """`address` as configured, scheme included. ConfigError when it makes no sense."""
