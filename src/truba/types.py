"""Words that everyone uses: Index, Phase, Cause, Position.

Values only: frozen, comparable, without behaviour beyond parsing and printing. Nothing here does I/O.
"""

from __future__ import annotations

from enum import StrEnum
from typing import NamedTuple


class Index(NamedTuple):
    """Place of an event in the log: `(term, seq)`, ordered, printed `term-seq`.

    `seq` counts every event of the log from 1 and never restarts, so within one log it is unique by itself; it is
    what the code calls a session's *number*. The id of a session is the Index of the event that created it.
    """

    term: int
    seq: int

    def __str__(self) -> str:
        return f"{self.term}-{self.seq}"

    @classmethod
    def parse(cls, text: str | bytes) -> Index:
        """Read `3-117`. Raises ValueError on anything that `str(index)` would not print."""
        plain = text.decode("ascii", "replace") if isinstance(text, bytes) else text
        term, dash, seq = plain.partition("-")
        if dash and term.isdecimal() and seq.isdecimal() and max(len(term), len(seq)) <= 19:  # they fit 64 bits
            index = cls(int(term), int(seq))
            if str(index) == plain:
                return index
        raise ValueError(f"not an id: {plain[:64]!r}; ids look like 3-117")


class Position(NamedTuple):
    """How far a log, or a state built from it, has come: the last event and the chain hash up to its batch."""

    term: int
    seq: int
    chain: bytes  # 16 bytes; zeros before the first batch


ORIGIN = Position(0, 0, bytes(16))


class Phase(StrEnum):
    """Where a session stands. A deleted session has no phase: it is gone."""

    ACTIVE = "active"  # held by the client that opened it
    STORED = "stored"  # unfinished; will be handed over once due
    REPEATING = "repeating"  # held by a handler
    PARKED = "parked"  # unfinished, limits exhausted; waits for an operator


class Cause(StrEnum):
    """Why a session is unfinished: what ended its last owner's hold."""

    STORED = "stored"  # its owner said Store
    LOST = "lost"  # its owner's connection broke and was not resumed in time
    IDLE = "idle"  # its client made no operation for the kind's idle_timeout
    RESTART = "restart"  # the pipe restarted and its owner did not come back in time
    FAILED = "failed"  # its owner gave it back: an error in the handler or in the client's block
    LATE = "late"  # its handler showed no sign of life for the kind's handler_timeout
    UNREACHABLE = "unreachable"  # no handler has worked on it: none was reached, or it answered "not now"
    UNFINISHED = "unfinished"  # its handler ended without Delete or Store
    RESUMED = "resumed"  # an operator resumed it
