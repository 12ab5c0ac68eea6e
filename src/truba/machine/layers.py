"""Sessions in layers, as in an LSM tree: young ones in memory, those being written, and the store below.

    young    changed since the last checkpoint began        mutable, in memory
    frozen   changed before it, now being written           read-only, in memory; absent between checkpoints
    base     everything older                               the store

A session born and deleted in the young layer never reaches the store. A frozen session that changes again is copied
into the young layer first, so the writer sees it as it was. Sessions that someone owns stay in memory besides (their
heads; their older records rest in the store). Nothing here decides, does I/O of its own, or reads a clock.

Source of the idea: the log-structured merge tree (O'Neil et al., 1996), with a state machine in place of the memtable.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator

from truba.errors import DataDamaged
from truba.machine.due import DueHeap
from truba.ports.store import Head, Put, Remove, Store
from truba.types import Phase

OWNED = (Phase.ACTIVE, Phase.REPEATING)


class Layer:
    """Changes on top of what lies below. `heads[n] is None`: session n of the layer below is gone."""

    __slots__ = ("due", "heads", "tails", "was")

    def __init__(self) -> None:
        self.heads: dict[int, Head | None] = {}
        self.tails: dict[int, list[bytes]] = {}  # records not in any layer below; the last of them is number next - 1
        self.was: dict[int, Head] = {}  # as the layer below has it, where it has it
        self.due: dict[int, DueHeap] = {}

    def changes(self) -> Iterator[Put | Remove]:
        """What a commit must do to bring the layer below up to this one."""
        for number, head in self.heads.items():
            was = self.was.get(number)
            if head is not None:
                tail = self.tails.get(number)
                if tail:
                    head.chunks = with_tail(head, tail)
                    yield Put(head, was, (head.next - len(tail), tail))
                else:
                    yield Put(head, was, None)
            elif was is not None:
                yield Remove(was)

    def let_go(self, count: int) -> bool:
        """Forget up to so many sessions of a layer that is in the store; False: there are none left.

        A layer that is simply dropped frees all of them in one go, a microsecond each and more.
        """
        for part in (self.heads, self.tails, self.was):
            for _ in range(min(count, len(part))):
                part.popitem()
        for heap in self.due.values():
            del heap.keys[-count:]
        return any((self.heads, self.tails, self.was, *(heap.keys for heap in self.due.values())))


def with_tail(head: Head, tail: list[bytes]) -> tuple[int, ...]:
    """The chunks of a session once its tail is a chunk of its own. Asking twice changes nothing."""
    first = head.next - len(tail)
    return head.chunks if not tail or head.chunks[-1:] == (first,) else (*head.chunks, first)


class Layers:
    """All sessions, whichever layer they are in."""

    def __init__(self, base: Store) -> None:
        self.base = base
        self.young = Layer()
        self.frozen: Layer | None = None
        self.owned: dict[int, Head] = {head.number: head for head in base.owned()}
        self._read: Head | None = None  # from the store, the last one

    @property
    def young_count(self) -> int:
        """Sessions changed since the last checkpoint began, those that are gone included."""
        return len(self.young.heads)

    def get(self, number: int) -> Head | None:
        """The session as it is now; not to be changed (see `thaw`)."""
        heads = self.young.heads
        if number in heads:
            return heads[number]
        if self.frozen is not None and number in self.frozen.heads:
            return self.frozen.heads[number]
        return self.owned.get(number) or self._below(number)

    def _below(self, number: int) -> Head | None:
        """A session is looked at to decide on it, and again to change it: the store is asked once for both."""
        head = self._read
        if head is None or head.number != number:
            head = self._read = self.base.get(number)
        return head

    def thaw(self, number: int) -> Head:
        """The session's head in the young layer, free to be changed; it must exist."""
        young = self.young
        head = young.heads.get(number)
        if head is not None:
            return head
        below = self.get(number)
        if below is None:
            raise LookupError(f"no session {number}")
        if self.frozen is not None and number in self.frozen.heads:
            below.chunks = with_tail(below, self.frozen.tails.get(number, []))
        head = copy.copy(below)
        young.was[number] = below
        young.heads[number] = head
        young.tails[number] = []
        if number in self.owned:
            self.owned[number] = head
        return head

    def add(self, head: Head, records: list[bytes]) -> None:
        self.young.heads[head.number] = head
        self.young.tails[head.number] = records
        self.owned[head.number] = head

    def drop(self, number: int) -> Head:
        """Forget a session; what it was."""
        young = self.young
        head = young.heads.get(number)
        if head is None:
            head = self.thaw(number)
        if number in young.was:
            young.heads[number] = None
        else:
            del young.heads[number]
        del young.tails[number]
        self.owned.pop(number, None)
        return head

    def records(self, head: Head) -> list[bytes]:
        """All records of a session, in order. DataDamaged when the store lacks some."""
        records: list[bytes] = []
        frozen = self.frozen
        number = head.number
        tail = self.young.tails.get(number)
        frozen_tail = frozen.tails.get(number) if frozen is not None else None
        frozen_first = -1
        if frozen is not None and frozen_tail:
            below = frozen.heads[number]
            assert below is not None  # a layer keeps no tail of a session that is gone
            frozen_first = below.next - len(frozen_tail)
            if tail is None:
                tail = frozen_tail
        tail_first = head.next - len(tail) if tail else -1
        for first in head.chunks:
            if first == tail_first:
                continue
            if first == frozen_first and frozen_tail is not None:
                records += frozen_tail
                continue
            try:
                records += self.base.chunk(number, first)
            except KeyError:
                raise DataDamaged(f"store: session {head.id} lacks its records from number {first} on") from None
        if tail:
            records += tail
        if len(records) != head.next - head.first:
            raise DataDamaged(f"store: session {head.id} has {len(records)} records, not {head.next - head.first}")
        return records

    def page(self, after_number: int, through_number: int, steps_max: int) -> tuple[list[Head], int | None]:
        """Sessions in order of number, found in so many steps; the number to go on after, None at the end.

        What the store does not hold was created after the log's position that it holds, and so has a higher number:
        those are asked for one by one. Nothing is sorted or copied, however many sessions are young.
        """
        young = self.young.heads
        frozen = self.frozen.heads if self.frozen is not None else {}
        stored_through = self.base.summary.applied.seq
        found: list[Head] = []
        steps = 0
        at = after_number
        if at < stored_through:
            for head in self.base.scan(at):
                at = head.number
                now = young[at] if at in young else frozen[at] if at in frozen else self.owned.get(at, head)
                if now is not None:
                    found.append(now)
                steps += 1
                if steps == steps_max:
                    return found, at
            at = max(at, stored_through)
        last = min(through_number, at + steps_max - steps)
        for number in range(at + 1, last + 1):
            fresh = young[number] if number in young else frozen.get(number)
            if fresh is not None:
                found.append(fresh)
        return found, last if last < through_number else None

    def freeze(self) -> Layer:
        """Begin a checkpoint: what is young until now will be written; what changes from now on is young again."""
        if self.frozen is not None:
            raise RuntimeError("a checkpoint is already under way")
        self.frozen, self.young = self.young, Layer()
        return self.frozen

    def settle(self) -> None:
        """The frozen layer is in the store."""
        self.frozen = None
        self._read = None
