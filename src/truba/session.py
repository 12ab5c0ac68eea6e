"""What a client works with: `Pipe`, `Session`, and the `RepeatData` that a handler gets.

These are the contracts; the embedded pipe (`truba.open`) and the remote one (`truba.connect`) both keep them.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Protocol, cast, runtime_checkable

from truba.errors import BadRequest
from truba.types import Cause, Index

STORE_SECONDS_MAX = 10 * 365 * 86_400
"""Ten years: a longer Store is a mistake in the unit."""


def index_of(session_id: Index | str) -> Index:
    """What a caller names a session by: its id, or the text of it. BadRequest for anything else."""
    match cast(object, session_id):
        case Index() as index:
            return index
        case str(text):
            try:
                return Index.parse(text)
            except ValueError as error:
                raise BadRequest(f"{error}; nothing was changed") from error
        case other:
            what = f"an id is an Index or a text such as '3-117', not {type(other).__name__}"
            raise BadRequest(f"{what}; nothing was changed")


@runtime_checkable
class Session(Protocol):
    """One job under way. Methods return once their effect is on stable storage; else they raise `OperationError`."""

    @property
    def id(self) -> Index:
        """The Index of its New."""

    @property
    def kind(self) -> int: ...

    @property
    def epoch(self) -> int:
        """Number of hand-overs so far: the fencing number to give to other systems."""

    @property
    def ended(self) -> bool:
        """The hold is over: deleted, stored, given back, or taken away."""

    async def append(self, *records: bytes) -> None:
        """Add records, all or none."""

    async def replace(self, record: bytes) -> None:
        """Drop the records so far and add this one, as one act."""

    async def delete(self) -> None:
        """The job is done: the session is gone."""

    async def store(self, seconds: float) -> None:
        """Close the session; it is handed over as unfinished after so many seconds, never earlier."""

    async def fail(self, reason: str = "") -> None:
        """Give the session back unfinished; the kind's policy chooses when it is handed over."""

    async def touch(self) -> None:
        """A sign of life: renews idle_timeout, or handler_timeout for a handler. Nothing is logged."""


class Pipe(Protocol):
    """A pipe, embedded or remote."""

    async def new(self, kind: int, *records: bytes, tag: int | None = None, trace: bytes = b"") -> Session:
        """Open a session, with first records if given. `trace`: a trace context (`truba.otel`) for its handlers. The
        shipped pipes take `codec` too: see `truba.typed`."""

    def session(self, kind: int, *records: bytes, trace: bytes = b"") -> AbstractAsyncContextManager[Session]:
        """`async with`: delete on success; on an exception give back by the kind's policy, and raise it again."""

    async def resume(self, session_id: Index | str) -> None:
        """For operators: make a parked or stored session due at once, with fresh limits. NoSession, Busy."""

    async def remove(self, session_id: Index | str) -> None:
        """For operators: delete a stored or parked session, whoever it belonged to. NoSession, Busy."""

    async def pause_kind(self, kind: int) -> None:
        """For operators: hand over nothing more of a kind until it is continued, whatever restarts. UnknownKind."""

    async def continue_kind(self, kind: int) -> None:
        """For operators: go on with handing over a kind. UnknownKind."""

    async def close(self) -> None: ...


@dataclass(frozen=True, slots=True)
class RepeatData:
    """An unfinished session as its handler gets it."""

    records: Sequence[bytes]
    session: Session
    kind: int
    attempt: int
    """Which hand-over to a handler this is, from 1."""
    cause: Cause
    """What ended the hold of the last owner."""
    trace: bytes = b""
    """The trace context that the session's client gave at New; empty: none."""
