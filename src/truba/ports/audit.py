"""The audit log: what operators did, whichever way they came, is written down before it is done and once it is over.

Adapter: `truba.audit`, lines in a file.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Protocol, TypeVar

T = TypeVar("T")


class AuditLog(Protocol):
    """What it returns from is on stable storage."""

    async def audited(self, do: Callable[[], Awaitable[T]], *, who: str, peer: str, act: str, on: str) -> T:
        """What `do` comes to, with a line that it was asked for before it and one of how it ended after it; to its end
        even when whoever asked waits no more.

        Unavailable: the first line could not be written, so nothing was done. UnknownOutcome: the second one could not.
        """

    async def asked(self, *, who: str, peer: str, act: str, on: str) -> None:
        """The first line alone, of what goes on for long. Unavailable: it could not be written: nothing may be done."""

    async def ended(self, result: str, *, who: str, peer: str, act: str, on: str) -> None:
        """The second one. UnknownOutcome: it ended as `result` says, and that could not be written."""
