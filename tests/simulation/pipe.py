"""One process of the pipe, from its start to its death: the real node on the real file log, on a disk that outlives it.

What a process has of its own (timers, tasks, connections, descriptors) ends with it, at any moment, in the middle of
any call of the disk if need be. The store is in memory and changes whole, by its commits, as a store on a disk would;
a commit takes its time, and may fail, or fall into the death of the process.
"""

from __future__ import annotations

import asyncio
import errno
import os
from collections import deque
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tests.simulation.checker import Violation
from tests.simulation.clients import PIPE
from tests.simulation.network import Link
from truba.compose import make_routes
from truba.errors import DataError, LogPoisoned, UnknownOutcome
from truba.log.file import FileLog
from truba.node.node import Limits, Node
from truba.ports.log import Done, LogBatch, Space
from truba.ports.transport import Route
from truba.testing.disk import Mount, ProcessGone
from truba.transports.dial import DialRoute
from truba.types import Position
from truba.wire.connection import Connection
from truba.wire.verbs import VERBS

if TYPE_CHECKING:
    from tests.simulation.world import World

HOME = Path("/log")


class SlowLog:
    """The file log on a disk that takes its time: each batch is written when its time has come, not before.

    Up to `window` batches are under way, as in a log that is replicated; the file log itself takes them one by one.
    """

    def __init__(self, life: Life, log: FileLog) -> None:
        self._life = life
        self._log = log
        self._under_way: deque[tuple[LogBatch, Done]] = deque()
        self._last_s = 0.0  # when the last one of them will be written
        self.batch_bytes_max = life.world.plan.batch_bytes_max
        self.batch_bytes_min = 0
        self.window = life.world.plan.window

    @property
    def tail(self) -> Position:
        return self._log.tail

    @property
    def space(self) -> Space:
        return self._log.space

    @property
    def size_bytes(self) -> int:
        return self._log.size_bytes

    @property
    def failure(self) -> BaseException | None:
        return self._log.failure

    def append(self, batch: LogBatch, done: Done) -> None:
        world = self._life.world
        world.truth.appended(batch)
        self._under_way.append((batch, done))
        seconds = world.disk_s()
        if seconds or len(self._under_way) > 1:
            self._last_s = max(self._last_s, world.clock.steady_s + seconds)
            world.loop.call_at(self._last_s, self._write)
        else:
            self._write()

    def _write(self) -> None:
        batch, done = self._under_way.popleft()
        if not self._life.alive:
            return
        try:
            self._log.append(batch, lambda error: self._written(batch, error, done))
        except LogPoisoned as error:  # the housekeeper failed meanwhile, or the batch before this one
            done(error)

    def _written(self, batch: LogBatch, error: BaseException | None, done: Done) -> None:
        if error is None:
            try:
                self._life.world.truth.durable(batch)
            except Violation as violation:
                self._life.world.fail(violation)  # the node would take it for a trouble of its own
                raise
        done(error)

    def confirm(self, done: Done) -> None:
        self._log.confirm(done)

    def read(self, after_seq: int) -> Iterator[tuple[LogBatch, Position]]:
        return self._log.read(after_seq)

    def position_at(self, seq: int) -> Position | None:
        return self._log.position_at(seq)

    def trim(self, through_seq: int) -> None:
        self._log.trim(through_seq)

    def close(self) -> None:
        self._log.close()


class Life:
    """One process of the pipe."""

    def __init__(self, world: World, number: int) -> None:
        self.world = world
        self.name = f"pipe-{number}"
        self.alive = True
        self.ready = False
        self.troubled = False  # the disk has failed it, on purpose
        self.tasks: list[asyncio.Task[Any]] = []
        self.node: Node | None = None
        self.log: FileLog | None = None
        self._links: list[tuple[Link, bool]] = []  # with: is the pipe at the near end?
        self._connections: list[Connection] = []
        self._calls_left = 0  # of the disk, until the process dies; 0: no such plan
        self._power = False
        self._faults: dict[str, tuple[int, int]] = {}  # call: after how many, which errno
        self.mount = Mount(world.disk, self._before_call, self._died_in_call)

    # -- its life -------------------------------------------------------------------------------------------

    async def run(self) -> None:
        world = self.world
        try:
            self.log = FileLog.open(
                HOME,
                disk=self.mount,
                segment_bytes=world.plan.segment_bytes,
                reserve_bytes=world.plan.reserve_bytes,
                commit="inline",
                housekeeping="inline",
            )
            world.truth.recovered(self.log)
            self.node = node = Node(
                SlowLog(self, self.log),
                world.store,
                world.plan.kinds,
                self._routes(),
                name=self.name,
                limits=Limits(grace_max_s=60.0, checkpoint_bytes=world.plan.checkpoint_bytes),
                clock=world.clock,
                tell=self._tell,
            )
            world.truth.agrees(node.machine, "recovered")
            node.failed.add_done_callback(self._failed)
            await node.start()
        except ProcessGone:
            return
        except UnknownOutcome:
            return  # the log failed during the start: `_failed` sees to it
        except DataError as error:
            if not self.troubled and not world.disk_is_short:
                raise Violation(f"{self.name} does not start: {error}") from error
            world.story.tell(self.name, "does not start:", str(error))
            self.die(power=False)
            return
        world.network.listen(*PIPE, self._accept)
        self.ready = True
        world.story.tell(self.name, f"ready, term {node.machine.term}, seq {node.machine.seq}")

    def die(self, *, power: bool, why: str = "") -> None:
        """kill -9, or with `power` the whole machine: nothing that this process would still do is done."""
        if not self.alive:
            return
        world = self.world
        self.alive = self.ready = False
        self.mount.gone = True
        world.story.tell(self.name, "loses power" if power else "is killed", *([why] if why else []))
        world.network.close(*PIPE)
        for link, near in self._links:
            link.died(link.near if near else link.far)
        if power:
            world.disk.crash()
        else:
            world.disk.kill()
        if self.node is not None:
            self.node.give_up(RuntimeError("killed"))  # takes its timers with it
        for task in self.tasks:
            task.cancel()
        world.life_ended(self)

    async def stop(self) -> None:
        """SIGTERM: in order, as `truba serve` does."""
        node, world = self.node, self.world
        if node is None or not self.ready:
            return
        self.ready = False
        world.story.tell(self.name, "is told to stop")
        node.drain()
        await node.dispatcher.finish(1.0)
        world.network.close(*PIPE)
        for connection in list(self._connections):
            connection.close()
        await node.stop()
        if self.alive and not node.failed.done():
            assert self.log is not None
            self.log.close()
            self.die(power=False, why="in order")

    # -- the disk ---------------------------------------------------------------------------------------------

    def die_in_call(self, count: int, *, power: bool) -> None:
        """In the middle of the count-th call of the disk from now on."""
        self._calls_left, self._power = count, power

    def fail_call(self, name: str, count: int, code: int) -> None:
        """The count-th call of that name from now on fails."""
        self._faults[name] = (count, code)

    def spare(self) -> None:
        """The storm is over."""
        self._calls_left = 0
        self._faults.clear()

    def _before_call(self, name: str) -> None:
        if self._calls_left:
            self._calls_left -= 1
            if not self._calls_left:
                raise ProcessGone(name)
        if name in self._faults:
            count, code = self._faults.pop(name)
            if count > 1:
                self._faults[name] = (count - 1, code)
                return
            self.troubled = True
            self.world.story.tell("disk", f"{name} fails:", errno.errorcode[code])
            raise OSError(code, os.strerror(code))

    def _died_in_call(self) -> None:
        self.die(power=self._power, why="in a call of the disk")

    def _failed(self, failed: asyncio.Future[BaseException]) -> None:
        """The node has given up, so its process ends."""
        if not self.alive:
            return
        error = failed.result()
        if not self.troubled and not self.world.disk_is_short:
            raise Violation(f"{self.name} gave up: {error!r}") from error
        self.world.story.tell(self.name, "gives up:", str(error))
        self.die(power=False)

    # -- its ends of connections --------------------------------------------------------------------------

    def _routes(self) -> dict[int, Route]:
        settings = self.world.plan.wire
        return make_routes(self.world.plan.kinds, {"truba": lambda address, kinds: DialRoute(address, "", settings)})

    def _accept(self) -> Connection:
        assert self.node is not None
        connection = Connection(self.node, VERBS, self.world.plan.wire, self._connections.remove)
        self._connections.append(connection)
        return connection

    def joined(self, link: Link, *, near: bool) -> None:
        """A link has an end in this process."""
        self._links = [(each, side) for each, side in self._links if not (each.near if side else each.far).gone]
        self._links.append((link, near))

    def _tell(self, event: str, /, **fields: object) -> None:
        self.world.story.tell(self.name, event, *(f"{name}={value}" for name, value in fields.items() if value != ""))

    def work(self, call: Callable[[], Any]) -> asyncio.Future[Any]:
        """What blocks (the commit of a checkpoint): it happens whole, at some moment, unless the process dies first."""
        world = self.world
        done: asyncio.Future[Any] = world.loop.create_future()

        def act() -> None:
            if not self.alive or done.done():
                return
            chance = 0.5 if world.calm else world.dice.random()
            if chance < world.plan.commit_faults:
                self.troubled = True
                world.story.tell("disk", "a commit of the store fails")
                done.set_exception(OSError(errno.EIO, os.strerror(errno.EIO)))
                return
            try:
                done.set_result(call())
            except Exception as error:  # as a thread's
                done.set_exception(error)
                return
            world.story.tell(self.name, "checkpoint", world.store.summary.applied.seq)
            if chance > 1 - world.plan.commit_deaths:
                self.die(power=chance > 1 - world.plan.commit_deaths / 2, why="just after a commit of the store")

        world.loop.call_later(world.dice.random() * 0.05, act)
        return done
