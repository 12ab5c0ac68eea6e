"""A whole cluster in memory and in jumping time: a sea, members on it, disks that survive them."""

from __future__ import annotations

import asyncio
import copy
from collections.abc import Callable, Coroutine, Iterable, Mapping
from contextlib import suppress
from contextvars import copy_context
from typing import Protocol

from tests.cluster.loop import PROCESS
from tests.node.world import PlayedRoute
from truba.clock import Clock
from truba.cluster.member import Member
from truba.errors import TrubaError
from truba.kinds import Kind
from truba.log.memory import MemoryLog, Shelf
from truba.machine.digest import state_digest
from truba.machine.machine import Machine
from truba.node.checkpoint import Checkpointer
from truba.node.node import Node
from truba.ports.log import Log
from truba.ports.store import Store
from truba.store.memory import MemoryStore
from truba.streams.memory import MemoryStream, Sea, Way
from truba.testing.jump import JumpClock
from truba.types import Index

CLUSTER = bytes(range(16))

KIND = Kind(7, "transfer", handler="played:", recovery_delay_s=1.0, jitter_s=0.0)


class Disk:
    """What a node keeps; survives it. `peers`: whose checkpoint a `replace` may take."""

    def __init__(self) -> None:
        self.shelf = Shelf(CLUSTER)
        self.store = MemoryStore()
        self.log = MemoryLog(self.shelf)
        self.peers: list[Seat] = []
        self.replaced = 0

    def reopen(self) -> None:
        self.log = MemoryLog(self.shelf)

    async def replace(self) -> None:
        loop = asyncio.get_running_loop()
        peers = [seat for seat in self.peers if seat.reachable and seat.disk.log.tail.seq > self.log.tail.seq]
        if not peers:
            raise TrubaError("no peer has a longer log")
        peer = max(peers, key=lambda seat: seat.disk.log.tail.seq)
        asked = loop.create_task(peer.member.checkpoint(), context=peer.context)
        asked.add_done_callback(lambda task: task.cancelled() or task.exception())  # whether or not we live to see it
        await asyncio.wait([asked], timeout=5)
        if not asked.done():
            asked.cancel()
            raise TrubaError(f"{peer.name} does not answer")
        asked.result()
        if peer.disk.store.summary.applied.seq <= self.log.tail.seq:
            raise TrubaError(f"{peer.name} gives an old checkpoint")
        self.store = copy.copy(peer.disk.store)
        self.shelf = Shelf(CLUSTER)
        self.shelf.begin = self.store.summary.applied
        self.reopen()
        self.replaced += 1


class HeardDoors:
    """Remembers who was let in by whom."""

    def __init__(self) -> None:
        self.leaders: list[str] = []
        self.node: Node | None = None

    def follow(self, leader: str) -> None:
        if not self.leaders or self.leaders[-1] != leader:
            self.leaders.append(leader)

    async def lead(self, node: Node) -> None:
        self.node = node

    async def leave(self) -> None:
        self.node = None


class Seat:
    """One node of the cluster, alive or dead. All that it does, it does in `context`: it is a process of its own."""

    def __init__(self, cluster: Cluster, name: str) -> None:
        self.cluster = cluster
        self.name = name
        self.context = copy_context()
        self.context.run(PROCESS.set, name)
        self.disk = Disk()
        self.clock: Clock = cluster.clock
        self.way = Way()
        self.routes: dict[int, PlayedRoute] = {}
        self.told: list[tuple[str, dict[str, object]]] = []
        self.task: asyncio.Task[None] | None = None
        self.member: Member
        self.stream: MemoryStream
        self.doors: HeardDoors

    def start(self) -> None:
        cluster = self.cluster
        self.disk.reopen()
        self.stream = MemoryStream(cluster.sea, self.way)
        self.doors = self.make_doors()
        self.member = Member(
            self.name,
            self.stream,
            self.disk.shelf.framing,
            self.disk,
            cluster.kinds,
            self.make_node,
            self.doors,
            clock=self.clock,
            tell=self.hear,
            tails=cluster.tails,
            checkpoint_bytes=cluster.checkpoint_bytes,
            keep_bytes=cluster.keep_bytes,
        )
        self.task = asyncio.get_running_loop().create_task(self.member.run(), name=self.name, context=self.context)

    def make_doors(self) -> HeardDoors:
        return HeardDoors()

    def hear(self, event: str, /, **fields: object) -> None:
        """What the node tells operators."""
        self.told.append((event, fields))

    def make_node(self, log: Log, store: Store, machine: Machine, checkpointer: Checkpointer) -> Node:
        self.routes = {kind.number: PlayedRoute() for kind in self.cluster.kinds}
        return Node(
            log, store, self.cluster.kinds, dict(self.routes), name=self.name, clock=self.clock,
            machine=machine, checkpointer=checkpointer,
        )  # fmt: skip

    @property
    def alive(self) -> bool:
        return self.task is not None and not self.task.done()

    @property
    def reachable(self) -> bool:
        """Whether it would answer another node."""
        return self.alive

    @property
    def serving(self) -> Node:
        """The node that clients are let in to: this seat leads."""
        assert self.doors.node is not None
        return self.doors.node

    async def write(self, *records: bytes) -> Index:
        """A session of its own, acknowledged."""
        node = self.serving
        hold = node.new(node.presence.attach(), KIND.number, list(records))
        await node.sequencer.flush()
        return hold.id

    async def kill(self) -> None:
        """As kill -9 does: what is not on the disk is gone, what it has sent may still arrive."""
        assert self.task is not None
        self.stream.connected = False
        if self.member.log is not None:
            self.member.log.close()
        self.disk.log.fail(OSError("killed"))
        self.task.cancel()
        with suppress(asyncio.CancelledError, TrubaError, OSError):
            await self.task

    async def stop(self) -> None:
        assert self.task is not None
        self.member.stop()
        await self.task


class Cluster:
    def __init__(
        self,
        clock: JumpClock,
        *kinds: Kind,
        names: Iterable[str] = ("a", "b", "c"),
        checkpoint_bytes: int = 64 << 20,
        keep_bytes: int = 1 << 30,
    ) -> None:
        self.clock = clock
        self.kinds = kinds
        self.checkpoint_bytes = checkpoint_bytes
        self.keep_bytes = keep_bytes
        self.sea = self.make_sea()
        self.seats = {name: self.make_seat(name) for name in names}
        for seat in self.seats.values():
            seat.disk.peers = [other for other in self.seats.values() if other is not seat]

    def make_sea(self) -> Sea:
        return Sea()

    def make_seat(self, name: str) -> Seat:
        return Seat(self, name)

    async def tails(self) -> Mapping[str, int]:
        return {name: seat.disk.log.tail.seq if seat.reachable else 0 for name, seat in self.seats.items()}

    def start(self) -> None:
        for seat in self.seats.values():
            seat.start()

    def others(self, than: Seat) -> list[Seat]:
        return [seat for seat in self.seats.values() if seat is not than]

    async def leader(self, within_s: float = 30.0) -> Seat:
        """The one seat that leads, as soon as it lets clients in."""
        async with asyncio.timeout(within_s):
            while True:
                for seat in self.seats.values():
                    if seat.alive and seat.doors.node is not None and seat.stream.connected:
                        return seat
                await asyncio.sleep(0.05)

    async def agree(self) -> str:
        """Wait until all living nodes are at the same Index; their one digest."""
        loop = asyncio.get_running_loop()
        end_s = loop.time() + 60
        while True:
            assert loop.time() < end_s, self.story()
            living = [seat for seat in self.seats.values() if seat.alive]
            machines = [seat.member.machine for seat in living]
            places = {(m.term, m.seq) if m is not None else None for m in machines}
            tails = {seat.disk.log.tail for seat in living}
            if len(places) == 1 and None not in places and len(tails) == 1:
                break
            await asyncio.sleep(0.1)
        digests = {state_digest(machine) for machine in machines if machine is not None}
        assert len(digests) == 1
        return digests.pop()

    def story(self) -> list[str]:
        """Where everybody stands."""
        return [f"the stream: {self.sea.first}..{self.sea.last}"] + [
            f"{seat.name}: {seat.member.role if seat.alive else 'dead'}, log at {seat.disk.log.tail[:2]}, stream read"
            f" through {seat.member.stream_seq}, {seat.member.trouble}, {seat.told[-3:]}"
            for seat in self.seats.values()
        ]

    async def close(self) -> None:
        for seat in self.seats.values():
            if seat.alive:
                await seat.stop()


Main = Callable[[Cluster, Seat], Coroutine[object, object, None]]
"""Is given a cluster, and the seat that leads it."""


class Led(Protocol):
    """The fixture `led`; `options` are those of a `Cluster`."""

    def __call__(self, main: Main, **options: int) -> None: ...


async def led_by_one(main: Main, clock: JumpClock, **options: int) -> None:
    """What a test does with a cluster that has a leader; afterwards all of its nodes that live stop cleanly."""
    cluster = Cluster(clock, KIND, **options)
    cluster.start()
    await main(cluster, await cluster.leader())
    await cluster.close()
