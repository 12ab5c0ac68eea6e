"""What the tests of the log share: a disk whose n-th call fails, and small logs made on purpose."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from truba.log.disk import OsDisk
from truba.log.file import FileLog
from truba.ports.log import LogBatch
from truba.testing.log import batch, commit
from truba.types import Position

SMALL = {"segment_bytes": 8 * 512, "reserve_bytes": 0, "commit": "inline", "housekeeping": "inline"}


class FaultyDisk(OsDisk):
    """Counts calls that change something, or may fail as such calls do; `fails(name, number)` makes one fail."""

    CALLS = ("open", "pwritev", "fdatasync", "fsync", "rename", "unlink", "mkdir")

    def __init__(self, fails: Callable[[str, int], int | None] = lambda name, number: None) -> None:
        self.fails = fails  # errno or None, for the call with that name and its number among all counted calls
        self.calls: list[str] = []
        self.free: int | None = None
        self.half = False  # a failing write writes half of it first
        self.slow_s = 0.0  # added to the duration of what follows, as the log's clock sees it
        self._ahead_s = 0.0
        for name in self.CALLS:
            setattr(self, name, self._counted(name, getattr(OsDisk, name)))

    def _counted(self, name: str, call: Callable[..., Any]) -> Callable[..., Any]:
        def counted(*args: Any) -> Any:
            self.calls.append(name)
            if error := self.fails(name, len(self.calls)):
                if name == "pwritev" and self.half:
                    fd, parts, offset = args
                    whole = b"".join(parts)
                    os.pwrite(fd, whole[: len(whole) // 2], offset)
                raise OSError(error, os.strerror(error))
            if name == "fdatasync":
                self._ahead_s += self.slow_s
            return call(*args)

        return counted

    def steady_s(self) -> float:
        return OsDisk.steady_s() + self._ahead_s

    def free_bytes(self, path: str) -> int:
        return OsDisk.free_bytes(self, path) if self.free is None else self.free


def open_log(path: Path, **options: Any) -> FileLog:
    return FileLog.open(path, **{**SMALL, **options})


def fill(path: Path, batches: Sequence[LogBatch], **options: Any) -> list[tuple[LogBatch, Position]]:
    """Write these batches to the log in `path` and close it; what a reader sees."""

    async def work() -> list[tuple[LogBatch, Position]]:
        log = open_log(path, **options)
        await commit(log, *batches)
        entries = list(log.read(log.tail.seq - sum(each.count for each in batches)))
        log.close()
        return entries

    return asyncio.run(work())


def contents(path: Path, after_seq: int = 0, **options: Any) -> list[tuple[LogBatch, Position]]:
    """Open the log, read it all, close it."""
    log = open_log(path, **options)
    try:
        return list(log.read(after_seq))
    finally:
        log.close()


def some_batches(count: int, body_bytes: int = 100) -> list[LogBatch]:
    return [batch(seq, body=bytes([seq % 255 + 1]) * body_bytes) for seq in range(1, count + 1)]
