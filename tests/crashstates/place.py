"""Where the suites put real files: in memory where the machine has such a place, since only processes die there."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

MEMORY = Path("/dev/shm")


@contextmanager
def a_place() -> Iterator[Path]:
    """A new directory, gone afterwards."""
    where = MEMORY if MEMORY.is_dir() and os.access(MEMORY, os.W_OK) else None
    with tempfile.TemporaryDirectory(prefix="truba-crash-", dir=where) as name:
        yield Path(name)
