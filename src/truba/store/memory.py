"""A store in memory, for tests, simulations and pipes that need not outlive their process.

A commit copies the tables, changes the copy and puts it in place, and derives the orders anew from the heads: simple
enough to be what the other store is compared with. It costs time in proportion to all sessions. Nothing is on disk.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterator
from dataclasses import dataclass, field

from truba.ports.store import DueKey, Head, Put, Remove, Staged, Summary
from truba.store.keys import head_fields
from truba.types import ORIGIN, Phase


def _copy(head: Head) -> Head:
    return Head(*head_fields(head))


class MemoryStaged:
    """Changes as they were when added: heads are mutable, so they are copied."""

    __slots__ = ("bytes", "changes")

    def __init__(self) -> None:
        self.changes: list[Put | Remove] = []
        self.bytes = 0

    def add(self, change: Put | Remove) -> None:
        match change:
            case Put(head, was, chunk):
                kept = None if chunk is None else (chunk[0], list(chunk[1]))
                self.changes.append(Put(_copy(head), was, kept))
                self.bytes += 200 + (sum(map(len, kept[1])) if kept else 0)
            case Remove():
                self.changes.append(change)
                self.bytes += 50


@dataclass(frozen=True, slots=True)
class _State:
    heads: dict[int, Head]
    chunks: dict[int, dict[int, list[bytes]]]
    summary: Summary
    numbers: list[int] = field(init=False)
    owned: list[int] = field(init=False)
    due: dict[int, list[DueKey]] = field(init=False)

    def __post_init__(self) -> None:
        numbers = sorted(self.heads)
        due: dict[int, list[DueKey]] = {}
        owned: list[int] = []
        for number in numbers:
            head = self.heads[number]
            if head.phase is Phase.STORED:
                due.setdefault(head.kind, []).append(DueKey(head.due_ms, head.order, number))
            elif head.phase is not Phase.PARKED:
                owned.append(number)
        for keys in due.values():
            keys.sort()
        object.__setattr__(self, "numbers", numbers)
        object.__setattr__(self, "owned", owned)
        object.__setattr__(self, "due", due)


class MemoryStore:
    """`ports.store.Store` in plain dictionaries."""

    def __init__(self) -> None:
        self._state = _State({}, {}, Summary(ORIGIN, {}))

    @property
    def summary(self) -> Summary:
        return self._state.summary

    def get(self, number: int) -> Head | None:
        head = self._state.heads.get(number)
        return None if head is None else _copy(head)

    def chunk(self, number: int, first: int) -> list[bytes]:
        return list(self._state.chunks[number][first])

    def due(self, kind: int, after: DueKey | None, limit: int) -> list[DueKey]:
        keys = self._state.due.get(kind, [])
        start = 0 if after is None else bisect_right(keys, after)
        return keys[start : start + limit]

    def owned(self) -> Iterator[Head]:
        state = self._state
        for number in state.owned:
            yield _copy(state.heads[number])

    def scan(self, after_number: int) -> Iterator[Head]:
        state = self._state
        for position in range(bisect_left(state.numbers, after_number + 1), len(state.numbers)):
            yield _copy(state.heads[state.numbers[position]])

    def stage(self) -> MemoryStaged:
        return MemoryStaged()

    def commit(self, staged: Staged, summary: Summary) -> None:
        if not isinstance(staged, MemoryStaged):
            raise TypeError(f"staged by another store: {type(staged).__name__}")
        heads, chunks = dict(self._state.heads), dict(self._state.chunks)
        for change in staged.changes:
            match change:
                case Put(head, _, chunk):
                    held = chunks.get(head.number, {}) | ({} if chunk is None else {chunk[0]: chunk[1]})
                    heads[head.number] = head
                    chunks[head.number] = {first: held[first] for first in head.chunks if first in held}
                case Remove(was):
                    heads.pop(was.number, None)
                    chunks.pop(was.number, None)
        self._state = _State(heads, chunks, Summary(summary.applied, dict(summary.counts), summary.paused))

    @property
    def size_bytes(self) -> int:
        state = self._state
        return sum(head.bytes for head in state.heads.values()) + 200 * len(state.heads)

    def close(self) -> None:
        """Nothing to give back."""
