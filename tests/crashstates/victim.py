"""A node's log, store and checkpoints at work in a process that kills itself (SIGKILL) before step number k.

A step is a system call of ours that changes the disk (of the log, of the store's mark, of an installation, of a file
that arrives from a peer), a write or a flush of RocksDB, and the beginning and the end of a commit. `Victims` keeps a
process that has imported everything and never opened a database; it forks one victim for each life.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple

from tests.crashstates.sessions import KINDS, LOG_ID, History, history
from truba.codec.batch import decode_batch
from truba.install import Arrival, settle
from truba.log.disk import OsDisk
from truba.log.file import FileLog
from truba.machine.machine import Machine
from truba.node.checkpoint import Checkpointer
from truba.node.recovery import recover
from truba.store import rocks
from truba.store.rocks import RocksStore
from truba.types import Position

SEGMENT_BYTES = 16 << 10
CHECKPOINT_EVERY = 12  # batches
CALLS = ("rename", "replace", "mkdir", "fsync", "fdatasync", "unlink", "rmdir", "write", "pwritev")


Tell = Callable[[str, int], None]


class Told(NamedTuple):
    """What a life has said: how far the state is durable, how far it may be, and, at its end, where its steps were."""

    sure: int
    tried: int
    steps: list[str]
    killed: bool


class Steps:
    """`part`: what is being done, for whoever chooses steps."""

    def __init__(self, last: int) -> None:
        self.taken = 0
        self.parts: list[str] = []
        self.part = "batches"
        self._last = last
        self._lock = threading.Lock()

    def step(self, part: str = "") -> bool:
        """True: this is the last one."""
        with self._lock:
            self.taken += 1
            self.parts.append(part or self.part)
            return self.taken == self._last

    def before(self, part: str = "") -> None:
        if self.step(part):
            die()

    def watch(self) -> None:
        """From here on the steps of this process are counted."""
        for name in CALLS:
            setattr(os, name, self._counted(getattr(os, name)))
            if hasattr(OsDisk, name):
                setattr(OsDisk, name, staticmethod(self._counted(getattr(OsDisk, name))))
        pwritev = OsDisk.pwritev

        def halved(fd: int, parts: Any, offset: int) -> int:
            if self.step():
                whole = b"".join(parts)
                os_pwritev(fd, [whole[: self.taken % (len(whole) + 1)]], offset)
                die()
            return pwritev(fd, parts, offset)

        OsDisk.pwritev = staticmethod(halved)  # type: ignore[method-assign]
        opened = rocks.open_database

        def watched(directory: Path, memory_bytes: int, *, read_only: bool = False) -> Any:
            database = opened(directory, memory_bytes, read_only=read_only)
            return database if read_only else WatchedDatabase(database, self)

        rocks.open_database = watched

    def _counted(self, call: Callable[..., Any]) -> Callable[..., Any]:
        def act(*args: Any, **kwargs: Any) -> Any:
            self.before()
            return call(*args, **kwargs)

        return act


os_pwritev = os.pwritev
os_write = os.write


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)
    signal.pause()


class WatchedDatabase:
    """RocksDB, with a step before each write, each flush, and after them."""

    def __init__(self, database: Any, steps: Steps) -> None:
        self._database = database
        self._steps = steps

    def __getattr__(self, name: str) -> Any:
        return getattr(self._database, name)

    def write(self, *args: Any) -> None:
        self._steps.before("commit")
        self._database.write(*args)
        self._steps.before("commit")

    def flush(self, *args: Any) -> None:
        self._database.flush(*args)
        self._steps.before("commit")


class Life:
    """From the state that lies in `data` to the end of the history, with a checkpoint of a peer on the way."""

    def __init__(self, data: Path, known: History, peer: Path, peer_at: Position, steps: Steps, tell: Tell) -> None:
        self._data = data
        self._known = known
        self._peer = peer
        self._peer_at = peer_at
        self._steps = steps
        self._tell = tell

    async def live(self) -> None:
        settle(self._data)
        before = self._peer_at.seq - 20
        await self._work(lambda seq: seq < before)
        if self._open_seq < self._peer_at.seq:
            self._tell("tried", self._peer_at.seq)
            self._steps.part = "install"
            self._install()
            self._steps.part = "batches"
            self._tell("sure", self._peer_at.seq)
        await self._work(lambda seq: True)

    async def _work(self, go_on: Callable[[int], bool]) -> None:
        log = FileLog.open(
            self._data / "log",
            segment_bytes=SEGMENT_BYTES,
            reserve_bytes=0,
            commit="inline",
            housekeeping="inline",
            log_id=LOG_ID,
        )
        try:
            store = RocksStore.open(self._data / "store")
            try:
                machine = recover(log, store, KINDS)
                self._tell("sure", log.tail.seq)
                failed: list[BaseException] = []
                checkpointer = Checkpointer(machine, log, store, 1 << 60, failed.append)
                await self._batches(log, machine, checkpointer, go_on)
                await checkpointer.close()
                if failed:
                    raise failed[0]
                self._open_seq = log.tail.seq
            finally:
                store.close()
        finally:
            log.close()

    async def _batches(
        self, log: FileLog, machine: Machine, checkpointer: Checkpointer, go_on: Callable[[int], bool]
    ) -> None:
        for number, (batch, position) in enumerate(self._known.entries):
            if position.seq <= log.tail.seq:
                continue
            if not go_on(position.seq):
                break
            self._tell("tried", position.seq)
            told: list[BaseException | None] = []
            log.append(batch, told.append)
            assert told == [None], told
            assert log.tail == position
            self._tell("sure", position.seq)
            machine.replay(batch.term, decode_batch(batch.body))
            if number % CHECKPOINT_EVERY == 0:
                await checkpointer.now()

    def _install(self) -> None:
        arrival = Arrival(self._data)
        try:
            arrival.store.mkdir(mode=0o700)
            for source in sorted(self._peer.iterdir()):
                fd = os.open(arrival.store / source.name, os.O_WRONLY | os.O_CREAT, 0o600)
                os.write(fd, source.read_bytes())
                os.fsync(fd)
                os.close(fd)
            arrival.install(LOG_ID, self._peer_at, segment_bytes=SEGMENT_BYTES)
        finally:
            arrival.close()


def one_life(data: Path, peer: Path, known: History, peer_at: Position, last: int, out: int) -> None:
    steps = Steps(last)
    steps.watch()

    def tell(what: str, number: int) -> None:
        os_write(out, f"{what} {number}\n".encode())

    asyncio.run(Life(data, known, peer, peer_at, steps, tell).live())
    os_write(out, f"steps {' '.join(steps.parts)}\n".encode())


def serve() -> None:
    """A line of JSON for each life; its answer is what the life said, and how it ended."""
    histories: dict[tuple[int, int], History] = {}
    for line in sys.stdin:
        asked = json.loads(line)
        key = (asked["seed"], asked["batches"])
        known = histories.get(key) or histories.setdefault(key, history(*key))
        peer_at = next(position for _, position in known.entries if position.seq == asked["peer_seq"])
        reader, writer = os.pipe()
        child = os.fork()
        if child == 0:
            status = 1
            try:
                os.close(reader)
                one_life(Path(asked["data"]), Path(asked["peer"]), known, peer_at, asked["last"], writer)
                status = 0
            except BaseException:
                sys.excepthook(*sys.exc_info())
            finally:
                sys.stderr.flush()
                os._exit(status)
        os.close(writer)
        with os.fdopen(reader) as said:
            lines = said.read().split("\n")
        _, status = os.waitpid(child, 0)
        answer: dict[str, Any] = {"sure": 0, "tried": 0, "steps": []}
        for what, *values in (each.split() for each in lines if each):
            answer[what] = values if what == "steps" else int(values[0])
        answer["status"] = os.waitstatus_to_exitcode(status)
        sys.stdout.write(json.dumps(answer) + "\n")
        sys.stdout.flush()


class Victims:
    """`with Victims(...) as victims: victims.life(...)`."""

    def __init__(self, seed: int, batches: int, peer: Path, peer_seq: int) -> None:
        self._asked = {"seed": seed, "batches": batches, "peer": str(peer), "peer_seq": peer_seq}
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.crashstates.victim"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=Path(__file__).parents[2],
        )

    def __enter__(self) -> Victims:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        try:
            self._process.wait(30)
        finally:
            self._process.kill()
            self._process.wait()
            self._process.stdout.close()

    def life(self, data: Path, last: int) -> Told:
        """One life in `data`, killed before its step number `last` (0: never)."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps({**self._asked, "data": str(data), "last": last}) + "\n")
        self._process.stdin.flush()
        answer = json.loads(self._process.stdout.readline() or '{"status": "gone"}')
        assert answer["status"] in (0, -signal.SIGKILL), f"the process ended with {answer['status']}, see its output"
        return Told(answer["sure"], answer["tried"], answer["steps"], answer["status"] != 0)


if __name__ == "__main__":
    serve()
