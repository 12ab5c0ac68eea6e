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
from threading import Thread

import msgspec
import structlog

from truba.backup.child import Said
from truba.backup.make import Order, refuse_place
from truba.backup.manifest import SCRATCH, Place
from truba.backup.newest import newest
from truba.errors import BadRequest, Busy, DataForeign, DataUnwritable, TrubaError, Unavailable
from truba.log.file import FileLog
from truba.node.checkpoint import Checkpointer
from truba.ports.backup import Made, Progress
from truba.processes.light import LightChild
from truba.store.rocks import RocksStore

log = structlog.get_logger("truba.backup")

NAME_BYTES_MAX = 255

LOG_PATIENCE_S = 300.0
"""For the log's part, some hundred megabytes. The log grows meanwhile: a target that hangs must not fill its disk."""

Watch = Callable[[str, int, int], object]
"""Told which part is under way, and how far: see `ports.backup.Progress`."""


class Maker:
    """Makes backups of a log and a store that go on meanwhile, one at a time."""

    def __init__(
        self, data: Path, file_log: FileLog, store: RocksStore, checkpointer: Checkpointer, reserve_bytes: int = 0
    ) -> None:
        """`reserve_bytes`: free space of its own disk that a backup leaves to the pipe."""
        self._data = data.absolute()  # for the process that copies it, whatever becomes the working directory
        self._log = file_log
        self._store = store
        self._checkpointer = checkpointer
        self._reserve_bytes = reserve_bytes
        self._target = Path()
        self._task: asyncio.Task[Made] | None = None
        self._closed = False
        self._scratch = self._data / SCRATCH

    def begin(self, target: Path, watch: Watch = lambda stage, done, of: None) -> asyncio.Task[Made]:
        """Begin one in that directory, new or empty. TrubaError, awaited: why it could not be made. If it is cancelled,
        the directory stays unfinished.

        DataForeign: that is no place for one. Busy: another one is under way. Unavailable: the log has failed, or this
        was closed.
        """
        target = target.absolute()
        refuse_place(target, self._data)
        if self._task is not None:
            raise Busy(f"a backup to {self._target} is under way; nothing was begun")
        if self._closed or self._log.failure is not None:
            raise Unavailable("the pipe is about to stop, or its log has failed; nothing was begun")
        self._target = target
        self._task = asyncio.get_running_loop().create_task(self._run(target, watch), name="backup")
        self._task.add_done_callback(self._forget)  # the first of its callbacks: the others may begin another one
        return self._task

    async def close(self) -> None:
        """End what is under way: its directory stays unfinished. Before the store is closed."""
        self._closed = True
        await asyncio.sleep(0)  # a task that has not begun could not say why it ended
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])

    async def _run(self, target: Path, watch: Watch) -> Made:
        try:
            return await self._make(target, watch)
        except asyncio.CancelledError:
            if self._closed:  # whoever waits for it was not cancelled
                raise Unavailable(f"the pipe stopped; the backup {target} is unfinished: remove it") from None
            raise
        except OSError as error:
            raise DataUnwritable(f"no backup was made in {target}: {error}") from error

    def _forget(self, task: asyncio.Task[Made]) -> None:
        self._task = None

    async def _make(self, target: Path, watch: Watch) -> Made:
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
            return await self._watched(order, keep.let_go, watch)
        finally:
            keep.let_go()
            await asyncio.to_thread(shutil.rmtree, self._scratch, True)

    async def _watched(self, order: Order, log_copied: Callable[[], None], watch: Watch) -> Made:
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
                        watch(said.stage, said.done, said.of)
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


class RunningBackups:
    """`ports.backup.Backups` of a pipe by itself. `root`: what backups are made under; None: none may be made."""

    def __init__(self, root: Path | None, maker: Maker) -> None:
        self.progress = Progress()
        self._root = root
        self._maker = maker
        self._made_ms = 0
        self._found_ms = 0

    def look_back(self, log_id: bytes) -> None:
        """Find out when the newest backup was made that lies below `root`. On the loop, and returns at once."""
        if self._root is not None:
            # No thread of the loop's own: a directory on a network that hangs would keep the process from ending.
            Thread(target=self._look_back, args=(self._root, log_id.hex()), name="look back", daemon=True).start()

    def _look_back(self, root: Path, log_id: str) -> None:
        self._found_ms = newest(root, log_id)

    @property
    def newest_ms(self) -> int | None:
        """Wall clock when the newest backup was begun that is known; 0: none is. None: none may be made."""
        return None if self._root is None else max(self._made_ms, self._found_ms)

    def begin(self, name: str) -> str:
        """See the port."""
        target = self._target(name)
        try:
            task = self._maker.begin(target, self._watch)
        except DataForeign as error:
            raise BadRequest(f"{error}; nothing was begun") from error
        self.progress = Progress("running", str(target))
        task.add_done_callback(self._ended)
        return str(target)

    async def close(self) -> None:
        """See `Maker`."""
        await self._maker.close()

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
        return target

    def _watch(self, stage: str, done: int, of: int) -> None:
        self.progress = replace(self.progress, stage=stage, done=done, of=of)

    def _ended(self, task: asyncio.Task[Made]) -> None:
        directory = self.progress.directory
        failed = "the pipe stopped before it began" if task.cancelled() else task.exception()
        if failed is None:
            made = task.result()
            self._made_ms = made.made_ms
            self.progress = Progress(
                "done", directory, term=made.term, seq=made.seq, sessions=made.sessions, bytes=made.bytes
            )
            log.info("backup made", directory=directory, term=made.term, seq=made.seq)
        else:  # whatever it was: the pipe goes on, and whoever asked hears of it
            self.progress = replace(self.progress, state="failed", error=str(failed) or repr(failed))
            log.warning("backup failed", directory=directory, error=self.progress.error)
