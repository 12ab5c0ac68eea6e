"""Processors of their own for two processes, while one of them never sleeps.

The scheduler of a busy system puts a process that wakes up behind one that is running, for milliseconds: a pipe that
waits for its disk would be charged for the load's not sleeping.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path


@contextmanager
def apart(pid: int | None) -> Iterator[None]:
    """This process on the last of its processors, that one on the others, all its threads; then as it was before.

    None: nobody else is moved. With a single processor nobody is. PermissionError: that process is somebody else's.
    """
    mine = os.sched_getaffinity(0)
    if len(mine) < 2:
        yield
        return
    alone = {max(mine)}
    before: dict[int, set[int]] = {}
    try:
        for thread in _threads(pid):
            with suppress(ProcessLookupError):  # it has ended
                before[thread] = os.sched_getaffinity(thread)
                os.sched_setaffinity(thread, before[thread] - alone or before[thread])
        os.sched_setaffinity(0, alone)
        yield
    finally:
        os.sched_setaffinity(0, mine)
        for thread in _threads(pid):  # one that was begun meanwhile has the processors of the one that began it
            with suppress(ProcessLookupError):
                os.sched_setaffinity(thread, before.get(thread, mine))


def _threads(pid: int | None) -> list[int]:
    if pid is None:
        return []
    try:
        return [int(entry.name) for entry in Path(f"/proc/{pid}/task").iterdir()]
    except FileNotFoundError:
        return []  # it has ended: whoever measures it notices
