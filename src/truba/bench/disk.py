"""What the disk alone can do: one write and one fdatasync after the other, the floor under every durable answer.

The file is filled with zeros first, as the log's segments are: a sync then has no new blocks to enter in the file
system. Nothing here knows of the log.
"""

from __future__ import annotations

import os
import statistics
import time
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

BLOCK_BYTES = 4096
FILE_BYTES = 16 << 20
PROBE_S = 0.25
SYNCS_MIN = 5
"""Even on a disk so slow that they take longer than the time given."""


@dataclass(frozen=True, slots=True)
class DiskFigure:
    """Write + fdatasync of one block: median time, and how many a second."""

    median_us: float
    rate_per_s: float


class DiskProbe:
    """A file to write to, made once. OSError, naming the file, when the disk refuses."""

    def __init__(self, directory: Path) -> None:
        self._path = directory / "disk-probe"
        self._at = 0
        self._fd = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        try:
            zeros = bytes(1 << 20)
            while self._at < FILE_BYTES:
                self._at += os.pwrite(self._fd, zeros, self._at)
            os.fsync(self._fd)
        except OSError as error:
            os.close(self._fd)
            raise self._named(error) from error
        self._at = 0

    def __enter__(self) -> DiskProbe:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        os.close(self._fd)
        self._path.unlink(missing_ok=True)

    def figure(self, probe_s: float = PROBE_S) -> DiskFigure:
        """Write and sync for about so long."""
        block, took_s = os.urandom(BLOCK_BYTES), list[float]()
        begun_s = now_s = time.perf_counter()
        try:
            while now_s - begun_s < probe_s or len(took_s) < SYNCS_MIN:
                if os.pwrite(self._fd, block, self._at) != BLOCK_BYTES:
                    raise OSError(5, "a short write")
                os.fdatasync(self._fd)
                before_s, now_s = now_s, time.perf_counter()
                took_s.append(now_s - before_s)
                self._at = (self._at + BLOCK_BYTES) % FILE_BYTES
        except OSError as error:
            raise self._named(error) from error
        return DiskFigure(statistics.median(took_s) * 1e6, len(took_s) / (now_s - begun_s))

    def _named(self, error: OSError) -> OSError:
        return OSError(error.errno, error.strerror, str(self._path))
