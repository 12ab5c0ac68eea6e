"""The audit log in a file: who did what, from where, when, and how it ended. JSON lines, each synced before anything
follows it.

    {"at": "...", "who": "ann", "peer": "127.0.0.1:5", "act": "resume", "on": "session 3-117", "result": "asked"}
    {"at": "...", "who": "ann", ...,                                                            "result": "done"}

A line "asked" is on disk before the change is made, one with the result before it is answered: no change without a
trace, and one that was asked and has no result was cut off by a crash. The file is opened anew for each line, so
whoever rotates it just renames it.
"""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar

from truba.clock import Clock
from truba.errors import OperationError, TrubaError, Unavailable, UnknownOutcome

T = TypeVar("T")


class AuditFile:
    """See `truba.ports.audit`. The only writer of its file; all of an address, or of several."""

    def __init__(self, path: Path, clock: Clock) -> None:
        self._path = path
        self._clock = clock
        self._thread = ThreadPoolExecutor(1, "truba-audit")
        self._under_way: set[asyncio.Future[Any]] = set()

    async def audited(self, do: Callable[[], Awaitable[T]], **fields: str) -> T:
        task = asyncio.ensure_future(self._audited(do, fields))
        self._under_way.add(task)
        task.add_done_callback(self._under_way.discard)
        return await asyncio.shield(task)

    async def _audited(self, do: Callable[[], Awaitable[T]], fields: dict[str, str]) -> T:
        await self.asked(**fields)
        try:
            result = await do()
        except TrubaError as error:
            refused = isinstance(error, OperationError) and error.happened == "no"
            await self.ended(f"{'refused' if refused else 'unknown'}: {error}", **fields)
            raise
        except Exception as error:  # a defect; without a line it would look like a crash
            await self.ended(f"unknown: {error!r}", **fields)
            raise
        await self.ended("done", **fields)
        return result

    async def asked(self, **fields: str) -> None:
        try:
            await self._write(fields | {"result": "asked"})
        except OSError as error:
            raise Unavailable(
                f"the audit log {self._path} cannot be written: {error.strerror}; nothing was changed"
            ) from error

    async def ended(self, result: str, **fields: str) -> None:
        try:
            await self._write(fields | {"result": result})
        except OSError as error:
            raise UnknownOutcome(
                f"it ended as {result!r}, but the audit log {self._path} cannot be written: {error.strerror}"
            ) from error

    async def _write(self, fields: dict[str, str]) -> None:
        at = datetime.fromtimestamp(self._clock.now_ms() / 1000, UTC).isoformat(timespec="milliseconds")
        line = json.dumps({"at": at} | fields, ensure_ascii=False, separators=(",", ":")) + "\n"
        # Waited for to its end even if whoever asked has gone: what was decided goes on.
        await asyncio.shield(asyncio.get_running_loop().run_in_executor(self._thread, self._append, line.encode()))

    def _append(self, line: bytes) -> None:
        new = not self._path.exists()
        fd = os.open(self._path, os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o600)
        try:
            end = os.fstat(fd).st_size
            if end and os.pread(fd, 1, end - 1) != b"\n":
                line = b"\n" + line  # a full disk, or a crash, has cut off the last one: it must not spoil this one
            view = memoryview(line)
            while view:
                view = view[os.write(fd, view) :]
            os.fsync(fd)
        finally:
            os.close(fd)
        if new:
            directory = os.open(self._path.parent, os.O_RDONLY | os.O_DIRECTORY)
            try:
                os.fsync(directory)
            finally:
                os.close(directory)

    async def close(self) -> None:
        """Once what is under way has ended, and is written down."""
        while self._under_way:
            await asyncio.wait(self._under_way)
        self._thread.shutdown()
