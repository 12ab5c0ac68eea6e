"""Checkpoints: the young layer goes into the store, then the log before it may go.

    enough log, or enough changed sessions
               -> freeze at the end of a batch -> that batch is durable
               -> stage in slices on the loop -> commit on a thread -> settle, trim the log

Nobody waits for it: staging yields to the loop every few hundred sessions, and the commit runs beside it. Three
things keep its pauses short, however many sessions change: it begins before there are too many of them, it is staged
faster than others come, and whoever changes very many sessions for the pipe itself, an owner lost say, waits for it
(`when_room`). What is frozen is written only once the log holds it durably, so the store never knows more than the log.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from itertools import islice

from truba.errors import Unavailable
from truba.histogram import Histogram
from truba.machine.layers import Layer
from truba.machine.machine import Machine
from truba.node.sequencer import Batch
from truba.ports.log import Log
from truba.ports.store import Store, Summary
from truba.types import Phase, Position

SESSIONS = 16_384
"""Changed sessions that begin a checkpoint, however little log they took: the store's commit holds the interpreter's
lock while it takes them over, 0.6 us each at worst, and what is young takes memory, 1 KB each."""

SLICE = 128
"""Sessions staged between two turns of the loop, at least: about half a millisecond."""

SLICE_MAX = 1024
"""And at most. Between, twice as many as were changed since the turn before: so while one checkpoint is staged half as
many sessions come together for the next, whatever the load, and no checkpoint is much larger than SESSIONS."""

FRAME_BYTES = 512
"""About what a batch takes of the log besides its events."""


class Keep:
    """Somebody still reads the log: it is not trimmed until `let_go`, which may be called again."""

    def __init__(self, checkpointer: Checkpointer) -> None:
        self._checkpointer = checkpointer

    def let_go(self) -> None:
        self._checkpointer.let_go(self)


class Checkpointer:
    """One for each machine. `done` counts finished checkpoints. What goes wrong is told to `on_failure`."""

    def __init__(
        self,
        machine: Machine,
        log: Log,
        store: Store,
        log_bytes: int,
        on_failure: Callable[[BaseException], None],
        sessions: int = SESSIONS,
    ) -> None:
        """`log_bytes` of log, or so many changed `sessions`, begin a checkpoint."""
        self._machine = machine
        self._log = log
        self._store = store
        self._log_bytes = log_bytes
        self._sessions = sessions
        self.on_failure = on_failure
        self._since_bytes = log.size_bytes  # of log since the last checkpoint began
        self._task: asyncio.Task[None] | None = None
        self._thread = ThreadPoolExecutor(1, "truba-checkpoint")
        self._keeps: set[Keep] = set()
        self._applied_seq = 0  # of the last checkpoint of this process
        self.done = 0
        self.took_ms = Histogram()  # each, from its beginning to the log's being trimmed
        self.failure: BaseException | None = None  # no other one may follow

    @property
    def running(self) -> bool:
        """Until its end was told: what comes between a failure and that must not begin another one."""
        return self._task is not None

    def sealed(self, batch: Batch | None, size: int, exact: bool = True) -> None:
        """A batch of `size` bytes goes into the log: `batch`, or one that is durable already.

        `exact`: the state is that of the log through there, and not beyond.
        """
        self._since_bytes += size + FRAME_BYTES
        if not exact or self.running or self.failure is not None:
            return
        if self._since_bytes >= self._log_bytes or self._machine.layers.young_count >= self._sessions:
            self._begin(batch, self._log.tail)

    async def now(self, at: Position | None = None) -> None:
        """Take a checkpoint of the state as it is, which must be exactly that of the log's tail, and wait for it.

        `at`: that tail, as it was compared with the state; another thread may make the log longer at any moment. None:
        nothing is under way. Unavailable: one has failed before, and what it froze is in nobody's hands.
        """
        if self.failure is not None:
            raise Unavailable(f"checkpoints cannot be written any more: {self.failure}")
        if self._machine.seq > self._store.summary.applied.seq:
            self._begin(None, at or self._log.tail)
            await self.wait()

    def keep_log(self) -> Keep:
        """Leave the log after the store's present commit as it is for a while; disks fill meanwhile."""
        keep = Keep(self)
        self._keeps.add(keep)
        return keep

    def let_go(self, keep: Keep) -> None:
        """See `Keep.let_go`. Not after the log was closed."""
        self._keeps.discard(keep)
        if not self._keeps and self._log.failure is None:
            self._log.trim(self._applied_seq)

    async def wait(self) -> None:
        """Wait for a checkpoint under way."""
        if self._task is not None:
            await asyncio.wait([self._task])

    @property
    def behind(self) -> bool:
        """So much has changed beside a checkpoint that the next might begin.

        Whoever changes many sessions in slices, and makes nobody wait, waits then: it would run away from a commit,
        which takes as long as the disk does, and the next one would hold the interpreter's lock for all of it.
        """
        return self._task is not None and self._machine.layers.young_count >= self._sessions

    def when_room(self, go_on: Callable[[], object]) -> None:
        """Call it in a turn of its own: the next one, or while this is `behind`, once the checkpoint has ended."""
        if self._task is not None and self.behind:
            self._task.add_done_callback(lambda _: go_on())
        else:
            asyncio.get_running_loop().call_soon(go_on)

    async def close(self) -> None:
        await self.wait()
        self._thread.shutdown()

    def _begin(self, batch: Batch | None, tail: Position) -> None:
        self._since_bytes = 0
        frozen = self._machine.freeze()
        counts, paused = dict(self._machine.counts), self._machine.paused
        # Asked for here, while the batch is being sealed: by the time the task runs it may be durable, and told nobody.
        durable = None if batch is None else batch.durable()
        run = self._run(frozen, batch, tail, durable, counts, paused)
        self._task = asyncio.get_running_loop().create_task(run, name="checkpoint")
        self._task.add_done_callback(self._ended)

    async def _run(
        self,
        frozen: Layer,
        batch: Batch | None,
        tail: Position,
        durable: asyncio.Future[None] | None,
        counts: dict[tuple[int, Phase], int],
        paused: frozenset[int],
    ) -> None:
        if durable is not None:
            await durable
        loop = asyncio.get_running_loop()
        began_s = loop.time()
        position = tail if batch is None else batch.position
        staged = self._store.stage()
        changes = frozen.changes()
        layers, slice_sessions, changed = self._machine.layers, SLICE, self._machine.layers.young_count
        while part := list(islice(changes, slice_sessions)):
            for change in part:
                staged.add(change)
            await asyncio.sleep(0)
            before, changed = changed, layers.young_count
            slice_sessions = min(max(SLICE, 2 * (changed - before)), SLICE_MAX)
        await loop.run_in_executor(self._thread, self._store.commit, staged, Summary(position, counts, paused))
        self._machine.settle(frozen)
        self._applied_seq = position.seq
        if not self._keeps:
            self._log.trim(position.seq)
        self.took_ms.add(round((loop.time() - began_s) * 1000))
        self.done += 1
        loop.call_soon(_let_go, frozen)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._task = None
        if not task.cancelled() and (error := task.exception()) is not None:
            self.failure = error
            self.on_failure(error)


def _let_go(frozen: Layer) -> None:
    """In slices as well, for a large layer takes long to free."""
    if frozen.let_go(SLICE_MAX):
        asyncio.get_running_loop().call_soon(_let_go, frozen)
