"""What the log holds: facts already decided, in words that need no configuration to be applied.

Every number in an event was chosen before it was made (clocks, dice, policy), so applying a log is deterministic.
Encoded as MessagePack arrays whose first element is the tag; fields are only ever added at the end, with a default.
A session is named by its number: the seq of its Created.
"""

from __future__ import annotations

import msgspec

from truba.types import Cause


class Opened(msgspec.Struct, frozen=True, array_like=True, gc=False, tag=0):
    """A writer opened the log: the first event of each term."""

    at_ms: int
    writer: str


class Created(msgspec.Struct, frozen=True, array_like=True, gc=False, tag=1):
    """New: a session begins, active, at epoch 0. Its number is the seq of this event."""

    kind: int
    at_ms: int
    owner: bytes  # digest of the owner's token; empty: nobody who could come back
    grace_ms: int
    tag: int  # -1: none
    records: list[bytes]
    trace: bytes = b""  # the trace context that its client gave, as it gave it; empty: none


class Appended(msgspec.Struct, frozen=True, array_like=True, gc=False, tag=2):
    number: int
    records: list[bytes]


class Replaced(msgspec.Struct, frozen=True, array_like=True, gc=False, tag=3):
    number: int
    record: bytes


class Deleted(msgspec.Struct, frozen=True, array_like=True, gc=False, tag=4):
    """The session is gone: its owner finished it, an operator removed it, or it was lost without a record."""

    number: int


class Stored(msgspec.Struct, frozen=True, array_like=True, gc=False, tag=5):
    """The hold ended; the session is unfinished and due at `due_ms`. UNREACHABLE gives the attempt back."""

    number: int
    due_ms: int
    cause: Cause
    detail: str = ""
    at_ms: int = 0  # 0: not known, in logs of earlier versions


class Repeated(msgspec.Struct, frozen=True, array_like=True, gc=False, tag=6):
    """Handed over: the epoch rises, `owner` holds the session. Durable before the handler hears of it."""

    number: int
    owner: bytes
    grace_ms: int
    at_ms: int = 0
    to: str = ""  # the handler as configured then


class Parked(msgspec.Struct, frozen=True, array_like=True, gc=False, tag=7):
    """Limits exhausted: kept, not handed over before an operator resumes it."""

    number: int
    cause: Cause
    detail: str = ""
    at_ms: int = 0


class Resumed(msgspec.Struct, frozen=True, array_like=True, gc=False, tag=8):
    """An operator made it due at `due_ms`; attempts and age count anew from `at_ms`."""

    number: int
    at_ms: int
    due_ms: int


class Rescheduled(msgspec.Struct, frozen=True, array_like=True, gc=False, tag=9):
    """An operator moved a stored session to `due_ms`; attempts, age and cause stay as they are."""

    number: int
    at_ms: int
    due_ms: int


class Paused(msgspec.Struct, frozen=True, array_like=True, gc=False, tag=10):
    """An operator has no session of this kind handed over (`on`), or has it go on. Clients notice nothing."""

    kind: int
    at_ms: int
    on: bool


class GraceChanged(msgspec.Struct, frozen=True, array_like=True, gc=False, tag=11):
    """The owner of an active or repeating session has asked for another grace."""

    number: int
    grace_ms: int


Event = (
    Opened
    | Created
    | Appended
    | Replaced
    | Deleted
    | Stored
    | Repeated
    | Parked
    | Resumed
    | Rescheduled
    | Paused
    | GraceChanged
)
