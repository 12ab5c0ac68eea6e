"""The audit log: what operators did, who, when, and how it ended. JSON lines, each synced before anything follows it.

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
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from truba.clock import Clock
from truba.errors import Unavailable, UnknownOutcome


class AuditLog:
    """One writer. A line that cannot be written refuses the change, or says that its result went unrecorded."""

    def __init__(self, path: Path, clock: Clock) -> None:
        self._path = path
        self._clock = clock
        self._thread = ThreadPoolExecutor(1, "truba-audit")

    async def asked(self, **fields: Any) -> None:
        """Unavailable: it could not be written, so nothing may be done."""
        try:
            await self._write(fields | {"result": "asked"})
        except OSError as error:
            raise Unavailable(
                f"the audit log {self._path} cannot be written: {error.strerror}; nothing was changed"
            ) from error

    async def ended(self, result: str, **fields: Any) -> None:
        """UnknownOutcome: the change was made, or refused, as `result` says, and that could not be written."""
        try:
            await self._write(fields | {"result": result})
        except OSError as error:
            raise UnknownOutcome(
                f"it ended as {result!r}, but the audit log {self._path} cannot be written: {error.strerror}"
            ) from error

    async def _write(self, fields: dict[str, Any]) -> None:
        at = datetime.fromtimestamp(self._clock.now_ms() / 1000, UTC).isoformat(timespec="milliseconds")
        line = json.dumps({"at": at} | fields, ensure_ascii=False, separators=(",", ":")) + "\n"
        # Waited for to its end even if whoever asked has gone: what was decided goes on.
        await asyncio.shield(asyncio.get_running_loop().run_in_executor(self._thread, self._append, line.encode()))

    def _append(self, line: bytes) -> None:
        new = not self._path.exists()
        fd = os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        try:
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

    def close(self) -> None:
        self._thread.shutdown()
