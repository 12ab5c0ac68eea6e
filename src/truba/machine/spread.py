"""A table for very many entries, in parts: none of them is ever so large that laying it out anew makes anybody wait.

Python's dictionary copies all its entries when it is full: 25 ms for 700,000 of them, 40 ms for a million, each time
so many have come and gone. Parts are full one by one. An access costs three times that of a dictionary, which most
tables stay: `wider` turns one into this when it has grown large. Source of the idea: any hash table in segments.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator, Sequence
from itertools import chain
from typing import Generic, TypeVar

K = TypeVar("K")
V = TypeVar("V")
D = TypeVar("D")

PARTS = 256
LARGE = 16_384
"""Entries from which on a table is in parts: a few milliseconds to move them, once."""


class Spread(Generic[K, V]):
    """What is used of a dictionary here; not in order of insertion.

    `near`: keys for which it gives the same are in one part. About a hundred that come after each other are to be, for
    whoever goes through all finds in memory, and puts into the store, what was made together three times as fast; and
    no more, for all parts would be full in the same moment if each had its turn with each key.
    """

    __slots__ = ("_near", "_parts")

    def __init__(self, entries: Table[K, V], near: Callable[[K], Hashable]) -> None:
        self._near = near
        self._parts: list[dict[K, V]] = [{} for _ in range(PARTS)]
        for key in entries:
            self[key] = entries[key]

    @property
    def parts(self) -> Sequence[dict[K, V]]:
        return self._parts

    def _part(self, key: K) -> dict[K, V]:
        return self._parts[hash(self._near(key)) % PARTS]

    def get(self, key: K) -> V | None:
        return self._parts[hash(self._near(key)) % PARTS].get(key)

    def pop(self, key: K, default: D) -> V | D:
        return self._part(key).pop(key, default)

    def values(self) -> Iterator[V]:
        return chain.from_iterable(part.values() for part in self._parts)

    def __getitem__(self, key: K) -> V:
        return self._part(key)[key]

    def __setitem__(self, key: K, value: V) -> None:
        self._part(key)[key] = value

    def __delitem__(self, key: K) -> None:
        del self._part(key)[key]

    def __contains__(self, key: K) -> bool:
        return key in self._part(key)

    def __iter__(self) -> Iterator[K]:
        return chain.from_iterable(self._parts)

    def __len__(self) -> int:
        return sum(map(len, self._parts))

    def __bool__(self) -> bool:
        return any(self._parts)


Table = dict[K, V] | Spread[K, V]


def near_number(number: int) -> int:
    return number >> 7


def near_text(id_text: bytes) -> bytes:
    return id_text[:-2]


def wider(table: Table[K, V], near: Callable[[K], Hashable]) -> Table[K, V]:
    """The same entries, in parts if they are many."""
    return Spread(table, near) if type(table) is dict and len(table) >= LARGE else table


def pieces(table: Table[K, V]) -> Sequence[dict[K, V]]:
    """The dictionaries that it consists of."""
    return table.parts if isinstance(table, Spread) else [table]
