"""The store: sessions as they were at the last checkpoint, under the young ones that live in memory.

Adapters: `truba.store.memory`, `truba.store.rocks`. The suite that every adapter must pass is `truba.testing.store`.
A store changes only by `commit`, whole; between two commits it never changes.
"""

from __future__ import annotations

import builtins
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import msgspec

from truba.types import Cause, Index, Phase, Position


class Held(msgspec.Struct, array_like=True, gc=False, frozen=True):
    """One hold of a session that was handed over at least once: who had it from when to when, and why it ended."""

    epoch: int  # 0: the client that opened it
    at_ms: int  # when it began; 0: not known, in logs of earlier versions
    to: str = ""  # the handler as configured then; empty: a client
    ended_ms: int = 0
    cause: str = ""  # why it ended; empty while it lasts, and until the head's own cause is written down here
    detail: str = ""


class Head(msgspec.Struct, array_like=True, gc=False):
    """All of a session but its records. `Machine` sessions extend it; the store keeps exactly these fields.

    Records are numbered from 0 for the life of the session; Replace drops the earlier ones and keeps counting, so a
    record number never means two records. The store holds records in chunks, each named by its first record's number.
    """

    term: int
    number: int  # with term: the session's id
    kind: int
    phase: Phase
    epoch: int  # hand-overs so far
    created_ms: int
    aged_from_ms: int  # max_age counts from here: creation, or the last resume
    due_ms: int  # stored: when to hand over; else 0
    order: int  # seq of the event that stored or parked it: order among equal due times
    attempts: int
    deliveries: int
    cause: Cause
    detail: str  # what a failing owner said
    owner: builtins.bytes  # 16-byte digest of the owner's token; empty: nobody who could come back
    grace_ms: int  # how long that owner may stay away
    tag: int  # the owner's own number for this session; -1: none
    operations: int  # applied since New or the last hand-over
    first: int  # number of the first record held
    next: int  # number that the next record will get
    bytes: int  # of the records held; hides the type of that name, hence `builtins.bytes` above
    chunks: tuple[int, ...]  # first record number of each chunk in the store, ascending
    trace: builtins.bytes = b""  # the trace context that its client gave at New
    left_ms: int = 0  # when the last hold ended; 0: not known
    history: tuple[Held, ...] = ()  # the last holds, oldest first; read it through `truba.machine.history.holds`

    @property
    def id(self) -> Index:
        return Index(self.term, self.number)


class DueKey(NamedTuple):
    """Order of hand-over within one kind."""

    due_ms: int
    order: int
    number: int


class Put(NamedTuple):
    """A session to keep: its new head, what the store held of it before (None: nothing), and its new chunk if any."""

    head: Head
    was: Head | None
    chunk: tuple[int, list[bytes]] | None  # (number of its first record, records); named in head.chunks too


class Remove(NamedTuple):
    """A session to forget, as the store held it."""

    was: Head


@dataclass(frozen=True, slots=True)
class Summary:
    """What the store knows of itself, written with each commit in the same atomic write."""

    applied: Position  # the state is that of the log through here
    counts: Mapping[tuple[int, Phase], int]  # sessions by kind and phase; no zeros
    paused: frozenset[int] = frozenset()  # kinds of which nothing is handed over


class Staged(Protocol):
    """A commit being gathered in memory, bit by bit; nothing is written before `Store.commit`."""

    def add(self, change: Put | Remove) -> None: ...

    @property
    def bytes(self) -> int:
        """About how large the commit has become."""


class Store(Protocol):
    @property
    def summary(self) -> Summary:
        """As of the last commit; ORIGIN and no counts in an empty store."""

    def get(self, number: int) -> Head | None: ...

    def chunk(self, number: int, first: int) -> list[bytes]:
        """Records of one chunk. KeyError when there is none: the caller's head named it, so the data is damaged."""

    def due(self, kind: int, after: DueKey | None, limit: int) -> list[DueKey]:
        """Stored sessions of a kind in order of hand-over, strictly after `after`, at most `limit`."""

    def owned(self) -> Iterator[Head]:
        """Active and repeating sessions, in order of number, without wading through the others."""

    def scan(self, after_number: int) -> Iterator[Head]:
        """All sessions in order of number, strictly after that one."""

    def stage(self) -> Staged:
        """Begin a commit. Cheap; one at a time."""

    def commit(self, staged: Staged, summary: Summary) -> None:
        """Make the staged changes and the summary durable as one act: after a crash all of it is there, or nothing.

        Blocks; may run on another thread while the loop's thread reads (and sees the state before, until it returns).
        The chunks of a removed session, and those that its new head no longer names, are dropped.
        Raises DataError or OSError when it cannot be written; the caller stops the node then.
        """

    @property
    def size_bytes(self) -> int: ...

    def close(self) -> None: ...


def staged_all(store: Store, changes: Iterable[Put | Remove]) -> Staged:
    """A commit of all these changes, gathered at once."""
    staged = store.stage()
    for change in changes:
        staged.add(change)
    return staged
