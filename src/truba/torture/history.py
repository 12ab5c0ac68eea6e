"""What a process under torture writes down: a line before each call, a line when it is answered. Pure.

Times are seconds of CLOCK_MONOTONIC, which all processes of a machine share. A call without an answer has an unknown
outcome: the process was killed, or the line was torn.

Records carry where they come from, so that a journal needs to name them only: a record of session `c0.17` begins with
`c0.17/`, then a name that no other record has, and its size; the rest follows from these (`make_record`). A session is
named by whoever opens it, before it has an id.
"""

from __future__ import annotations

from hashlib import blake2b
from typing import Literal

import msgspec

Verb = Literal["open", "append", "replace", "delete", "store", "fail", "touch", "read", "resume", "release", "remove"]
Steering = Literal["pause", "continue"]
Outcome = Literal["ok", "refused", "unknown"]
Phase = Literal["active", "stored", "repeating", "parked", "gone"]


class Found(msgspec.Struct, frozen=True, omit_defaults=True):
    """A session as a read found it."""

    phase: Phase
    epoch: int = 0
    label: str = ""
    records: tuple[str, ...] = ()


class Held(msgspec.Struct, frozen=True, array_like=True):
    """A session that a process which came back still holds."""

    label: str
    id: str
    writes: int  # appends and replaces since it was opened


class Asked(msgspec.Struct, frozen=True, omit_defaults=True, tag="asked"):
    """A call begins."""

    n: int  # counts the calls of this process
    at_s: float
    verb: Verb | Steering
    label: str = ""  # of the session; empty: not known, or (resume) of all that this owner holds
    id: str = ""
    epoch: int = 0
    records: tuple[str, ...] = ()  # names of those given
    delay_s: float = 0.0  # of a store
    kind: int = -1  # of an open, and of what an operator says of a kind


class Told(msgspec.Struct, frozen=True, omit_defaults=True, tag="told"):
    """A call is answered."""

    n: int
    at_s: float
    outcome: Outcome
    error: str = ""  # its fixed word
    id: str = ""  # of an open
    found: Found | None = None  # of a read
    held: tuple[Held, ...] = ()  # of a resume


class Delivered(msgspec.Struct, frozen=True, omit_defaults=True, tag="delivered"):
    """A handler was given a session."""

    at_s: float
    id: str
    epoch: int
    cause: str
    label: str = ""  # as its records say; empty: there are none
    records: tuple[str, ...] = ()


class Listed(msgspec.Struct, frozen=True, omit_defaults=True, tag="listed"):
    """All sessions that the pipe knew, each of which was read, and what was paused; nobody was at work meanwhile."""

    begin_s: float
    at_s: float
    ids: tuple[str, ...] = ()
    paused: tuple[int, ...] = ()


Line = Asked | Told | Delivered | Listed

SPOILED = "?"
"""First letter of the name of a record whose bytes nobody has written."""


def make_record(label: str, name: str, size: int) -> bytes:
    """`size` is of the filling behind the head."""
    head = f"{label}/{name}*{size} ".encode()
    return head + _filling(head, size)


def read_records(records: list[bytes]) -> tuple[str, tuple[str, ...]]:
    """The label that they carry (empty: none does) and their names. Whatever is wrong with one is in its name."""
    label, names = "", []
    for record in records:
        head, space, filling = record.partition(b" ")
        text = head.decode("ascii", "replace")
        session, _, name = text.partition("/")
        _, _, size = name.rpartition("*")
        right = bool(space) and size.isdecimal() and filling == _filling(head + space, int(size))
        if right and (not label or label == session):
            label = session
            names.append(name)
        else:
            names.append(f"{SPOILED}{text[:40]}, {len(record)} bytes")
    return label, tuple(names)


def record_name(name: str, size: int) -> str:
    """As it stands in journals."""
    return f"{name}*{size}"


def _filling(head: bytes, size: int) -> bytes:
    seed = blake2b(head, digest_size=32).digest()
    return (seed * (size // len(seed) + 1))[:size]
