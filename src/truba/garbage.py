"""Python's garbage collector in a process that serves: it looks at everything so rarely that nobody waits for it.

What the pipe keeps it frees by counting references: it makes no cycles as it goes, and `tests/test_garbage.py` checks
that. The collector is there for what handlers, plug-ins and tracebacks leave behind, which is young when it dies. But
with its defaults it looks through every living object each time their number has grown by a quarter: 0.3 s with a
million active sessions, as often as that happens while they are opened, and while a start replays them.

Only for a process that is ours: an embedded pipe leaves the collector to its program.
"""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager

YOUNG, MIDDLE, ALL = 10_000, 5, 1_000
"""So many objects more than before begin a look at the young ones (0.5 ms); every 5th such look takes in those that
outlived one (3 ms); every 1,000th of these everything: once in fifty million objects that were kept."""


@contextmanager
def collected_rarely() -> Iterator[None]:
    before = gc.get_threshold()
    gc.set_threshold(YOUNG, MIDDLE, ALL)
    try:
        yield
    finally:
        gc.set_threshold(*before)
