"""What a target is: a property of everything that a reader of foreign bytes may be given, and where to begin from.

A target is a function of bytes that returns when the property holds, and raises when it does not. It must depend on
nothing but these bytes.
"""

from __future__ import annotations

import random
import tracemalloc
from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Target:
    """`seed`: an input made of real encodings, of which mutation makes the others."""

    name: str
    run: Callable[[bytes], None]
    seed: Callable[[random.Random], bytes]
    tokens: tuple[bytes, ...] = ()
    """Words that mean something to the reader."""
    memory_bytes: int = 2 << 20
    """What a run may take at most besides `memory_factor` times its input: what is documented, and the asking."""
    memory_factor: int = 64


def check(target: Target, data: bytes, *, measured: bool = True) -> None:
    """Run it once. Raises whatever the run raises, and AssertionError when it took more memory than it may.

    To measure takes several times as long as to run.
    """
    if not measured:
        target.run(data)
        return
    tracemalloc.start()
    try:
        target.run(data)
        _, peak_bytes = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    allowed_bytes = target.memory_bytes + target.memory_factor * len(data)
    assert peak_bytes <= allowed_bytes, (
        f"{peak_bytes} bytes of memory for {len(data)} of input; {allowed_bytes} is allowed"
    )


class Tape:
    """Bytes as a source of choices, for targets that build something and then damage it. Zeros after its end."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    @property
    def ended(self) -> bool:
        return self._at >= len(self._data)

    def take(self, count: int) -> bytes:
        taken = self._data[self._at : self._at + count]
        self._at += count
        return taken.ljust(count, b"\0")

    def number(self, end: int) -> int:
        """From 0 up to `end`, excluded."""
        return int.from_bytes(self.take(1 if end <= 256 else 3), "little") % end

    def rest(self) -> bytes:
        taken = self._data[self._at :]
        self._at = len(self._data)
        return taken

    def cuts(self, data: bytes, count: int) -> list[bytes]:
        """`data` in at most so many pieces more than one."""
        places = sorted(self.number(len(data) + 1) for _ in range(count))
        return [data[begin:end] for begin, end in zip([0, *places], [*places, len(data)], strict=True)]
