"""Which stored session of a kind is due next: young ones from heaps, old ones from pages of the store.

Entries are never taken out when a session changes; they are checked when they come to the top (lazy deletion).
"""

from __future__ import annotations

from collections import deque
from heapq import heapify, heappop, heappush
from typing import TYPE_CHECKING

from truba.ports.store import DueKey
from truba.types import Phase

if TYPE_CHECKING:
    from truba.machine.layers import Layer, Layers

PAGE = 256
"""Due keys read from the store at once: 256 keys cost about as much as one seek."""


class DueHeap:
    """Due keys of one kind in one layer, smallest first, some of them out of date."""

    __slots__ = ("keys",)

    def __init__(self) -> None:
        self.keys: list[DueKey] = []

    def push(self, key: DueKey) -> None:
        heappush(self.keys, key)

    def top(self, layer: Layer, above: Layer | None) -> DueKey | None:
        """The smallest key that still holds in `layer`, where `above` does not say otherwise."""
        keys = self.keys
        while keys:
            key = keys[0]
            head = layer.heads.get(key.number)
            if (
                head is not None
                and head.order == key.order
                and head.phase is Phase.STORED
                and (above is None or key.number not in above.heads)
            ):
                return key
            heappop(keys)
        return None

    def compact(self, layer: Layer) -> None:
        """Drop what no longer holds, when that is most of it: a session stored again and again leaves one each time."""
        if len(self.keys) > 1024 and len(self.keys) > 2 * len(layer.heads):
            heads = layer.heads
            self.keys = [key for key in self.keys if (head := heads.get(key.number)) and head.order == key.order]
            heapify(self.keys)


class DueQueue:
    """The due sessions of one kind over all layers.

    `mark` is the last key of the store that was looked at and found changed since: a search never begins at the front,
    where the store may have thousands of deleted keys.
    """

    __slots__ = ("exhausted", "kind", "layers", "mark", "page")

    def __init__(self, kind: int, layers: Layers) -> None:
        self.kind = kind
        self.layers = layers
        self.mark: DueKey | None = None
        self.page: deque[DueKey] = deque()
        self.exhausted = False

    def push(self, key: DueKey) -> None:
        young = self.layers.young
        heap = young.due.get(self.kind)
        if heap is None:
            heap = young.due[self.kind] = DueHeap()
        heap.push(key)
        heap.compact(young)

    def peek(self) -> DueKey | None:
        """The next session to hand over, due or not yet due."""
        young, frozen = self.layers.young, self.layers.frozen
        best = self._top_of_base(young, frozen)
        if frozen is not None and (heap := frozen.due.get(self.kind)) is not None:
            key = heap.top(frozen, young)
            if key is not None and (best is None or key < best):
                best = key
        if (heap := young.due.get(self.kind)) is not None:
            key = heap.top(young, None)
            if key is not None and (best is None or key < best):
                best = key
        return best

    def settle(self, frozen: Layer) -> None:
        """The store has taken over `frozen`: look again from its earliest key, if that lies before the mark."""
        self.page.clear()
        self.exhausted = False
        heap = frozen.due.get(self.kind)
        key = heap.top(frozen, None) if heap is not None else None
        if key is not None and self.mark is not None and key <= self.mark:
            self.mark = DueKey(key.due_ms, key.order - 1, 0)

    def _top_of_base(self, young: Layer, frozen: Layer | None) -> DueKey | None:
        while not self.exhausted:
            while self.page:
                key = self.page[0]
                if key.number not in young.heads and (frozen is None or key.number not in frozen.heads):
                    return key
                self.mark = self.page.popleft()
            self.page.extend(self.layers.base.due(self.kind, self.mark, PAGE))
            self.exhausted = not self.page
        return None
