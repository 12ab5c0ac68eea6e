"""Backups of a pipe that goes on meanwhile.

    keep the log -> copy the store by hard links, on a thread -> name the log's tail -> a child copies both
                                                    the log's part is copied: it may be trimmed again <-'

All that the pipe itself does takes some milliseconds: the links, during which RocksDB's binding holds the interpreter.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import msgspec
import structlog

from truba.backup.child import Made, Said
from truba.backup.make import Order
from truba.backup.manifest import NAME, UNFINISHED, Place
from truba.errors import BadRequest, Busy, TrubaError, Unavailable
from truba.log.file import FileLog
from truba.node.checkpoint import Checkpointer
from truba.ports.backup import Progress
from truba.processes.light import LightChild
from truba.store.rocks import RocksStore

log = structlog.get_logger("truba.backup")

SCRATCH = "backing-up"
"""Under the data directory, so that hard links reach it; what a process left there that was killed is removed."""

NAME_BYTES_MAX = 255

LOG_PATIENCE_S = 300.0
"""For the log's part, some hundred megabytes. The log grows meanwhile: a target that hangs must not fill its disk."""


class RunningBackups:
    """`ports.backup.Backups` of a pipe by itself. `root`: what backups are made under; None: none may be made."""

    def __init__(
        self,
        data: Path,
        root: Path | None,
        file_log: FileLog,
        store: RocksStore,
        checkpointer: Checkpointer,
        reserve_bytes: int = 0,
    ) -> None:
        """`reserve_bytes`: free space of its own disk that a backup leaves to the pipe."""
        self.progress = Progress()
        self._data = data
        self._root = root
        self._log = file_log
        self._store = store
        self._checkpointer = checkpointer
        self._reserve_bytes = reserve_bytes
        self._task: asyncio.Task[None] | None = None
        self._scratch = data / SCRATCH
        shutil.rmtree(self._scratch, ignore_errors=True)  # if it stays, the next backup says so

    def begin(self, name: str) -> str:
        """See the port."""
        target = self._target(name)
        if self._task is not None:
            raise Busy(f"a backup to {self.progress.directory} is under way; nothing was begun")
        if self._log.failure is not None:
            raise Unavailable("the log has failed: the pipe is about to stop; nothing was begun")
        self.progress = Progress("running", str(target))
        self._task = asyncio.get_running_loop().create_task(self._run(target), name="backup")
        return str(target)

    async def close(self) -> None:
        """End what is under way: its directory stays unfinished. Before the store is closed."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])

    def _target(self, name: str) -> Path:
        if self._root is None:
            raise BadRequest(
                'no directory for backups is configured: write backups = "/some/directory" in [node] and start again,'
                " or stop the pipe and use truba backup --data; nothing was begun"
            )
        root = self._root.resolve()
        if not name or len(os.fsencode(name)) > NAME_BYTES_MAX or "\0" in name:
            raise BadRequest(f"a backup is named by up to {NAME_BYTES_MAX} bytes; nothing was begun")
        if not name.isprintable():  # bytes that are no UTF-8, too: it is told in logs and as JSON
            raise BadRequest(f"{name!r} is no name of a backup: write printable characters; nothing was begun")
        target = (root / name).resolve()
        if root not in target.parents:
            raise BadRequest(f"backups of this pipe go below {root}, and {name!r} does not; nothing was begun")
        for own in ("log", "store", SCRATCH):
            if (self._data / own).resolve() in (target, *target.parents):
                raise BadRequest(f"{self._data / own} is the pipe's own, and no place for backups; nothing was begun")
        for above in target.parents[: target.parents.index(root)]:
            if (above / NAME).exists() or (above / UNFINISHED).exists():
                raise BadRequest(f"{above} is a backup, and another one inside would spoil it; nothing was begun")
        return target

    async def _run(self, target: Path) -> None:
        try:
            made = await self._make(target)
        except asyncio.CancelledError:
            self.progress = replace(self.progress, state="failed", error="the pipe stopped; the backup is unfinished")
        except Exception as error:  # whatever it was: the pipe goes on, and whoever asked hears of it
            self.progress = replace(self.progress, state="failed", error=str(error) or repr(error))
            log.warning("backup failed", directory=str(target), error=self.progress.error)
        else:
            self.progress = Progress("done", str(target), **msgspec.structs.asdict(made))
            log.info("backup made", directory=str(target), term=made.term, seq=made.seq)
        finally:
            self._task = None

    async def _make(self, target: Path) -> Made:
        keep = self._checkpointer.keep_log()
        try:
            await asyncio.to_thread(shutil.rmtree, self._scratch, True)
            held = await asyncio.to_thread(self._store.export, self._scratch / "store")
            # The store's last commit is never ahead of what the log holds durably, and the tail only grows.
            order = Order(
                data=str(self._data),
                store=str(self._scratch / "store"),
                log=str(self._data / "log"),
                after=Place.of(held.applied),
                through=Place.of(self._log.tail),
                target=str(target),
                leave_bytes=self._reserve_bytes,
            )
            return await self._watched(order, keep.let_go)
        finally:
            keep.let_go()
            await asyncio.to_thread(shutil.rmtree, self._scratch, True)

    async def _watched(self, order: Order, log_copied: Callable[[], None]) -> Made:
        """What the child makes. TrubaError with what it says when it fails."""
        errors = self._scratch / "errors"
        command = (sys.executable, "-m", "truba.backup.child")
        child = await LightChild.start(*command, work=msgspec.json.encode(order), errors=errors)
        failed = ""
        try:
            async with asyncio.timeout(LOG_PATIENCE_S) as limit:
                async for line in child.lines():
                    said = msgspec.json.decode(line, type=Said)
                    if said.made is not None:
                        return said.made
                    if said.failed:
                        failed = said.failed
                    elif said.stage:
                        self.progress = replace(self.progress, stage=said.stage, done=said.done, of=said.of)
                        if said.stage != "log":
                            limit.reschedule(None)
                            log_copied()
        except TimeoutError as error:
            raise TrubaError(
                f"the log was not copied to {order.target} within {LOG_PATIENCE_S:.0f} s, and cannot be kept for ever;"
                " the backup is unfinished: remove it"
            ) from error
        finally:
            await child.kill()
        if not failed:
            left = errors.read_text(errors="replace").strip().splitlines()[-1:] or ["it was killed"]
            failed = f"the process that made the backup ended early: {left[0]}; {order.target} is unfinished: remove it"
        raise TrubaError(failed)
