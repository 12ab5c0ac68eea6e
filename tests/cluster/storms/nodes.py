"""The nodes of a storm: real members on clocks, disks and routes that go wrong."""

from __future__ import annotations

import asyncio
import copy
import errno
import random
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING

from tests.cluster.storms.lines import Line
from tests.cluster.world import Disk, HeardDoors, Seat
from truba.errors import OperationError
from truba.log.memory import MemoryLog, Shelf
from truba.machine.machine import Machine
from truba.node.checkpoint import Checkpointer
from truba.node.node import Node
from truba.node.owners import Handover, Hold, Owner
from truba.ports.log import Done, Log, LogBatch
from truba.ports.store import Staged, Store, Summary
from truba.store.memory import MemoryStore
from truba.types import Cause, Position

if TYPE_CHECKING:
    from tests.cluster.storms.people import Service
    from tests.cluster.storms.world import StormWorld

LATE_MS = 60_000
"""For so long a clock that was set back is believed to have shown what it showed before."""


class NodeClock:
    """A node's own clocks and dice: another start, another time of day, and somebody who sets it."""

    def __init__(self, world: StormWorld, dice: random.Random) -> None:
        self._clock = world.clock
        self._dice = dice
        self._steady_ms = dice.randrange(1 << 40)
        self.skew_ms = 0
        self.ahead_ms = 0  # the most that it ever was
        self._before_ms = 0  # what it showed when it was set back
        self._set_back_ms = -LATE_MS

    def now_ms(self) -> int:
        return self._clock.now_ms() + self.skew_ms

    def steady_ms(self) -> int:
        return self._clock.steady_ms() + self._steady_ms

    def chance(self) -> float:
        return self._dice.random()

    def set(self, skew_ms: int) -> None:
        if skew_ms < self.skew_ms:
            self._before_ms, self._set_back_ms = self.latest_ms(), self._clock.steady_ms()
        self.skew_ms = skew_ms
        self.ahead_ms = max(self.ahead_ms, skew_ms)

    def latest_ms(self) -> int:
        """The latest time that it has shown within the last minute."""
        lately = self._clock.steady_ms() - self._set_back_ms < LATE_MS
        return max(self.now_ms(), self._before_ms if lately else 0)


class StormLog(MemoryLog):
    """Takes its time to sync, and may fail: what was under way is then there, or not."""

    def __init__(self, shelf: Shelf, seat: StormSeat) -> None:
        super().__init__(shelf, held=True)
        self._seat = seat
        self._loop = asyncio.get_running_loop()
        self._writing: LogBatch | None = None
        self.broken = False  # the next sync fails
        self.dead = False  # the process is gone, and this is not what the next one finds

    def append(self, batch: LogBatch, done: Done) -> None:
        super().append(batch, partial(self._synced, done))
        self._writing = batch
        self._loop.call_later(self._seat.world.sync_s(), self._sync)

    def _sync(self) -> None:
        if self.broken:
            self.fail(OSError(errno.EIO, "the disk is broken"))
        else:
            self.release(1)

    def _synced(self, done: Done, error: BaseException | None) -> None:
        self._writing = None
        if error is None and not self.dead:
            self._seat.world.witness.copied(self._seat, *self.shelf.batches[-1])
        done(error)

    def torn(self, whole: bool) -> Shelf:
        """What a restart finds. The batch under way has come to the disk or not (`whole`), whoever was told what."""
        self.dead = True
        found = Shelf(self.shelf.framing.log_id)
        found.begin, found.batches = self.shelf.begin, list(self.shelf.batches)
        batch = self._writing
        if batch is not None and whole:
            position = Position(batch.term, batch.last_seq, found.framing.chain(self.tail, batch))
            found.batches.append((batch, position))
            self._seat.world.witness.copied(self._seat, batch, position)
        return found


class StormStore(MemoryStore):
    """`full`: a commit fails, and leaves everything as it was."""

    full = False

    def commit(self, staged: Staged, summary: Summary) -> None:
        if self.full:
            raise OSError(errno.ENOSPC, "the disk is full")
        super().commit(staged, summary)


class StormDisk(Disk):
    def __init__(self, seat: StormSeat) -> None:
        self.seat = seat
        super().__init__()
        self.store: StormStore = StormStore()

    def reopen(self) -> None:
        self.log: StormLog = StormLog(self.shelf, self.seat)

    def survivor(self, whole: bool) -> StormDisk:
        """What is there after the process is gone; what it still does goes elsewhere."""
        found = copy.copy(self)
        found.shelf = self.log.torn(whole)
        found.store = copy.copy(self.store)
        found.store.full = False
        found.reopen()
        return found

    async def replace(self) -> None:
        await super().replace()
        self.store.full = False  # the peer's may be
        self.seat.world.story.tell(self.seat.name, f"takes a checkpoint from a peer, at {self.log.tail[:2]}")
        self.seat.world.witness.took(self.seat, self.log.tail)


class StormDoors(HeardDoors):
    def __init__(self, seat: StormSeat) -> None:
        super().__init__()
        self._seat = seat

    def follow(self, leader: str) -> None:
        super().follow(leader)
        if leader:
            self._seat.world.story.tell(self._seat.name, f"follows {leader}")

    async def lead(self, node: Node) -> None:
        await super().lead(node)
        self._seat.world.story.tell(self._seat.name, f"lets clients in, term {node.machine.term}")

    async def leave(self) -> None:
        """As the frontend does: what is durable is answered, then connections end."""
        node = self.node
        await super().leave()
        if node is not None:
            with suppress(OperationError):
                await node.sequencer.flush()
        for line in list(self._seat.lines):
            line.end_there()


class Link:
    """A route: one node's way to one handler service. Dials until it is through."""

    def __init__(self, seat: StormSeat, service: Service) -> None:
        self._seat = seat
        self.service = service
        self.line: Line | None = None
        self.up = False
        self._stopped = False
        self._life = seat.life
        self._loop = asyncio.get_running_loop()
        self._node: Node
        self._wake: Callable[[], None]

    def start(self, node: Node, wake: Callable[[], None]) -> None:
        self._node = node
        self._wake = wake
        self._dial()

    def _dial(self) -> None:
        if self._stopped or self._life != self._seat.life:
            return
        if not self.service.up or self._seat.cut_off or (self.line is not None and not self.line.ended_there):
            self._loop.call_later(0.25, self._dial)
            return
        self.line = line = Line(self._seat.world, self._seat, self._node, self.service.name, self)
        line.on_end = self._ended
        self._loop.call_soon(self.service.greet, self, line, context=self.service.context)

    def serve(self, line: Line) -> None:
        """KINDS: the handler is ready to be handed sessions on that line."""
        if line is self.line and not line.ended_there:
            self.up = True
            self._wake()

    def _ended(self) -> None:
        self.up = False
        if not self._stopped:
            self._loop.call_later(0.25, self._dial, context=self._seat.context)

    def seat(self, kind: int) -> Owner | None:
        line = self.line
        if not self.up or line is None or line.ended_there or line.owner.superseded:
            return None
        return line.owner if line.owner.out < self.service.credit else None

    def state(self) -> str:
        return "up" if self.up else "down"

    async def stop(self) -> None:
        self._stopped = True
        if self.line is not None:
            self.line.end_there()

    def repeat(self, handover: Handover) -> bool:
        line, world = self.line, self._seat.world
        if not self.up or line is None or line.ended_there or self.service.refuses():
            return False
        hold = handover.hold
        world.story.tell(
            self._seat.name,
            f"pushes {hold.id} at epoch {hold.epoch}, attempt {handover.attempt}, {handover.cause}",
        )
        world.history.delivered(self._node, handover, self._seat.clock.latest_ms(), line)
        if not line.lost:
            self._loop.call_later(
                world.latency_s(), self.service.take, line, hold.id, hold.epoch, context=self.service.context
            )
        return True

    def lost(self, hold: Hold, cause: Cause) -> None:
        """The handler hears of it and may go on all the same: what it says then is refused."""

    def released(self, hold: Hold) -> None:
        if hold.epoch:
            self._wake()


class StormSeat(Seat):
    """One process after the other, on one disk. `spoilt`: this process was given a reason to end by itself."""

    cluster: StormWorld
    disk: StormDisk
    clock: NodeClock

    def __init__(self, world: StormWorld, name: str) -> None:
        self.world = world
        self.lines: dict[Line, None] = {}
        self.life = 0  # how many processes there were before this one
        self.frozen = False
        self.cut_off = False  # from clients and handlers
        self.spoilt = ""
        self.back_at_s = 0.0  # dead on purpose until then
        super().__init__(world, name)
        self.clock = NodeClock(world, random.Random(f"{world.seed} {name}"))
        self.disk = StormDisk(self)

    def start(self) -> None:
        self.spoilt = ""
        self.frozen = False
        self.disk.store.full = False
        self.world.story.tell(self.name, f"starts with its log at {self.disk.log.tail[:2]}")
        super().start()
        self.stream.connected = not self.world.is_cut(self.name)

    def make_doors(self) -> HeardDoors:
        return StormDoors(self)

    def hear(self, event: str, /, **fields: object) -> None:
        if "purged by somebody" in event and not self.world.weather.counts.get("purge_by_others"):
            self.world.witness.complain(f"{self.name} says that the stream was purged, and it was trimmed")
        told = ", ".join(f"{name}={value}" for name, value in fields.items())
        self.world.story.tell(self.name, f"says: {event} {told}")

    def make_node(self, log: Log, store: Store, machine: Machine, checkpointer: Checkpointer) -> Node:
        links = {kind.number: Link(self, self.world.services[kind.number]) for kind in self.world.kinds}
        return Node(
            log, store, self.world.kinds, links, name=self.name, clock=self.clock, tell=self.hear,
            machine=machine, checkpointer=checkpointer,
        )  # fmt: skip

    @property
    def reachable(self) -> bool:
        return self.alive and not self.frozen

    @property
    def node(self) -> Node | None:
        """Where clients are let in."""
        return self.doors.node if self.alive else None

    def freeze(self) -> None:
        self.frozen = True
        self.world.loop.freeze(self.name)

    def thaw(self) -> None:
        self.frozen = False
        self.world.loop.thaw(self.name)

    async def kill(self) -> None:
        """kill -9. The process goes on for a moment, for its tasks must end; but nothing that it does matters."""
        assert self.task is not None
        self.disk = self.disk.survivor(self.world.dice.random() < 0.5)
        self.life += 1
        for line in list(self.lines):
            line.die_there()
        self.thaw()
        self.stream.connected = False
        await self.stream.close()
        node = self.member.node
        if node is not None:
            node.give_up(RuntimeError("killed"))  # it waits for nothing on its way out
        self.task.cancel()
        await asyncio.wait([self.task])
        self.world.story.tell(self.name, "is dead")

    def ended(self) -> None:
        """It is dead: by our hand, or it has to have had a reason. What it leaves is what the next process finds."""
        assert self.task is not None
        if not self.spoilt and not self.task.cancelled() and self.task.exception() is None:
            self.world.witness.complain(f"{self.name} has ended, and nobody has asked it to")
        if not self.task.cancelled() and (error := self.task.exception()) is not None:
            self.world.story.tell(self.name, f"has ended: {error!r}")
            if not self.spoilt:
                self.world.witness.complain(f"{self.name} gave up: {error!r}")
            self.disk = self.disk.survivor(self.world.dice.random() < 0.5)
        else:
            self.disk.log.close()  # which waits for what is under way
