"""Backups of a running pipe, as its frontends ask for them, and what is known of a finished one. One at a time.

Adapter: `truba.backup.running`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, Protocol

from truba.types import Index

State = Literal["none", "running", "done", "failed"]


@dataclass(frozen=True, slots=True)
class Progress:
    """Of the backup under way, or of the last one since the start. Empty and zero: not known yet."""

    state: State = "none"
    directory: str = ""
    stage: str = ""  # "log", "store" or "reading"
    done: int = 0  # bytes; sessions while "reading"
    of: int = 0
    error: str = ""
    term: int = 0  # with seq: the Index that the backup holds the state of
    seq: int = 0
    sessions: int = 0
    bytes: int = 0


@dataclass(frozen=True, slots=True)
class Made:
    """A finished backup, durable and read back: of its manifest, what whoever asked wants to know."""

    term: int  # with seq: the Index that it holds the state of
    seq: int
    sessions: int
    bytes: int
    made_ms: int  # wall clock, when it was begun

    @property
    def at(self) -> Index:
        """Whatever was acknowledged up to here is in it."""
        return Index(self.term, self.seq)


class Backups(Protocol):
    @property
    def progress(self) -> Progress: ...

    def begin(self, name: str) -> str:
        """Begin a backup called `name`, on the pipe's own host; the directory. Returns at once.

        BadRequest: that is no name for one. Busy: another one is under way. Unavailable: the log has failed.
        """
