"""What the disk can do by itself: one write and one fdatasync at a time, into space that was filled with zeros."""

from __future__ import annotations

import os
import statistics
import time
from pathlib import Path

BYTES = 4096
WRITES = 500


def raw_sync_s(directory: Path) -> float:
    """Median seconds of `pwrite` + `fdatasync` of 4 KiB. OSError."""
    path = directory / "raw-sync"
    fd = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        os.pwrite(fd, bytes(BYTES * WRITES), 0)
        os.fsync(fd)
        block = os.urandom(BYTES)
        times_s = []
        for at in range(WRITES):
            started_s = time.perf_counter()
            os.pwrite(fd, block, at * BYTES)
            os.fdatasync(fd)
            times_s.append(time.perf_counter() - started_s)
        return statistics.median(times_s)
    finally:
        os.close(fd)
        path.unlink()
