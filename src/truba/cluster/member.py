"""A member of the cluster: one node, from start to end, in whatever role the stream gives it.

    follow -> quiet, or named -> OPEN is stored -> lead -> deposed, or asked to step down -> follow
              somebody else's is -> follow

A leader that is deposed has a memory that is ahead of its disk: it is thrown away and built anew from the disk, which
holds nothing but what is in the stream. What cannot be mended by following (a disk that fails, a stream that went
back) ends the member loudly.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from typing import Any, Literal, Protocol

from truba.clock import Clock
from truba.cluster.audit import Audit
from truba.cluster.finishing import append
from truba.cluster.follower import Behind, Follower
from truba.cluster.log import ReplicatedLog
from truba.cluster.marks import Marks
from truba.cluster.rule import Cursor
from truba.cluster.state import State, Storage
from truba.cluster.stepping_down import SteppingDown
from truba.cluster.trimmer import Trimmer
from truba.codec.batch import encode_batch
from truba.codec.chain import Chain
from truba.errors import Deposed, TrubaError
from truba.kinds import Kind
from truba.machine.events import Opened
from truba.machine.machine import Machine
from truba.node.checkpoint import Checkpointer
from truba.node.node import Node, Tell
from truba.ports.log import Log, LogBatch
from truba.ports.store import Store
from truba.ports.stream import Stream

AGAIN_S = 0.5
"""Between two words to a chore that it is to end."""

Role = Literal["starting", "follower", "candidate", "leader", "stopped"]


class Doors(Protocol):
    """How clients are let in."""

    def follow(self, leader: str) -> None:
        """This node follows; `leader` is the name of the node that leads, or empty."""

    async def lead(self, node: Node) -> None:
        """This node leads: clients are served by `node`."""

    async def leave(self) -> None:
        """It leads no more: answers that are durable leave, connections end."""


MakeNode = Callable[[Log, Store, Machine, Checkpointer], Node]


class Member:
    """`run` it once. `role`, `leader`, `follower`, `log` and `node` tell where it stands; `trouble`, if not empty, what
    people should look at."""

    def __init__(
        self,
        name: str,
        stream: Stream,
        cluster: Chain,
        storage: Storage,
        kinds: Sequence[Kind],
        make_node: MakeNode,
        doors: Doors,
        *,
        clock: Clock,
        tell: Tell,
        checkpoint_bytes: int = 64 << 20,
        stop_timeout_s: float = 10.0,
        tails: Callable[[], Awaitable[Mapping[str, int]]],
        keep_bytes: int = 1 << 30,
    ) -> None:
        """`tails`: asks every node of the cluster for the last event in its own log; who does not answer is at 0."""
        self.name = name
        self.role: Role = "starting"
        self.leader = ""
        self.since_ms = clock.now_ms()
        self.follower: Follower | None = None
        self.log: ReplicatedLog | None = None
        self.node: Node | None = None
        self.storage = storage
        self.stream = stream
        self._cluster = cluster
        self._make_node = make_node
        self._doors = doors
        self._clock = clock
        self._tell = tell
        self._stop_timeout_s = stop_timeout_s
        self._tails = tails
        self._keep_bytes = keep_bytes
        self._state = State(name, storage, kinds, checkpoint_bytes, self._checkpoint_failed)
        self._stepping_down = SteppingDown(name, tails, tell)
        self._cursor: Cursor | None = None
        self._marks = Marks()
        self._troubles: dict[str, str] = {}  # by what they are about
        self._first = 0  # what the stream may begin with, as leaders have said
        self._trimmer: Trimmer | None = None
        self._voids = 0
        self._stopping = asyncio.Event()

    @property
    def machine(self) -> Machine | None:
        """The state, if there is one just now."""
        return self._state.machine

    @property
    def trouble(self) -> str:
        return "; ".join(self._troubles.values())

    @property
    def voids(self) -> int:
        """Messages of the stream that were void for this node, since it started."""
        return self._voids + sum(reader.voids for reader in (self.follower, self.log) if reader is not None)

    @property
    def stream_seq(self) -> int:
        """The last message of the stream that this node has judged."""
        if self.log is not None:
            return self.log.stream_seq
        return self.follower.cursor.stream_seq if self.follower is not None else 0

    @property
    def stream_first(self) -> int:
        """What the stream may begin with, as leaders have said; 0: this node has not looked yet."""
        known = self._trimmer or self.follower
        return known.first if known is not None else self._first

    async def checkpoint(self) -> None:
        """Have the state as it is in the store. Unavailable: there is no state just now, or it cannot be written."""
        await self._state.checkpoint(self.node)

    def take_kinds(self, kinds: Sequence[Kind]) -> None:
        """Other kinds, from now on; who makes the next node knows of them."""
        self._state.take_kinds(kinds)

    def stop(self) -> None:
        """End `run` cleanly."""
        self._stopping.set()

    async def step_down(self, successor: str = "") -> None:
        """Have another node lead: `successor`, or whoever comes first. Returns once this one has resigned.

        Unavailable: it does not lead. UnknownOutcome: it ended meanwhile.
        """
        await self._stepping_down.ask(successor)

    async def run(self) -> None:
        """Until `stop`. TrubaError or OSError: this node cannot go on."""
        try:
            while not self._stopping.is_set():
                self._doors.follow("")
                self._state.restore()
                try:
                    if not await self._until_stopped(self._follow()):
                        break
                    await self._take_over()
                except Behind as behind:
                    await self._replace(behind)
            await self._state.last_checkpoint()
        finally:
            self.role = "stopped"
            await self._state.close()

    # -- following -------------------------------------------------------------------------------------------

    async def _follow(self) -> None:
        machine, checkpointer = self._state.restored
        self._become("follower")
        follower = self.follower = Follower(
            self.stream,
            self._cluster,
            self.storage.log,
            machine,
            checkpointer,
            self._marks,
            name=self.name,
            clock=self._clock,
            on_leader=self._led_by,
            cursor=self._cursor,
            first=self._first,
        )
        try:
            await follower.run()
        finally:
            self._cursor = follower.cursor if follower.at_end else None
            self._first = follower.first
            self._voids += follower.voids
            self.follower = None

    def _checkpoint_failed(self, error: BaseException) -> None:
        self._tell("a checkpoint failed", error=str(error))
        self._stopping.set()

    def _led_by(self, leader: str) -> None:
        self.leader = leader
        self._doors.follow(leader)

    async def _replace(self, behind: Behind) -> None:
        self._troubles["behind"] = f"{behind}; taking a checkpoint from a peer"
        self._tell("behind the stream", why=str(behind), next="a checkpoint is taken from a peer")
        await self._state.discard()
        self._cursor = None
        while not self._stopping.is_set():
            try:
                if not await self._until_stopped(self.storage.replace()):
                    return
            except TrubaError as error:
                self._troubles["behind"] = f"{behind}; no peer has given a checkpoint yet: {error}"
                self._tell("no checkpoint yet", error=str(error))
                with suppress(TimeoutError):
                    await asyncio.wait_for(self._stopping.wait(), 2.0)
            else:
                del self._troubles["behind"]
                self._tell("checkpoint taken from a peer", seq=self.storage.log.tail.seq)
                return

    # -- leading -----------------------------------------------------------------------------------------------

    async def _take_over(self) -> None:
        """OPEN; when it is stored, lead until that ends."""
        machine, checkpointer = self._state.restored
        assert self._cursor is not None
        self._become("candidate")
        log = self.log = ReplicatedLog(
            self.stream, self.storage.log, self._cluster, self._cursor, self.name, alone=self._alone
        )
        try:
            opened = [Opened(self._clock.now_ms(), self.name)]
            batch = LogBatch(machine.term + 1, machine.seq + 1, 1, encode_batch(opened))
            try:
                await append(log, batch)
            except Deposed as other:
                self._tell("another node leads", why=str(other))
            else:
                machine.replay(batch.term, list(opened))
                await self._lead(log, machine, checkpointer)
        finally:
            self._stepping_down.over()
            log.close()
            await log.rest()
            self._cursor = log.copied
            self._voids += log.voids
            self.log = None
        if self.machine is not None and self.machine.seq != self.storage.log.tail.seq:
            # The OPEN was stored, and another's behind it, before this node came to lead by it.
            await self._state.discard()

    async def _lead(self, log: ReplicatedLog, machine: Machine, checkpointer: Checkpointer) -> None:
        loop = asyncio.get_running_loop()
        asked = self._stepping_down.lead()
        node = self.node = self._make_node(log, self.storage.store, machine, checkpointer)
        log.lead(node.give_up)
        trimmer = self._trimmer = Trimmer(
            self.stream, log, self._marks, self._tails, self._keep_bytes, self._purged, loop, self._first
        )
        stopping = loop.create_task(self._stopping.wait())
        chores: list[asyncio.Task[None]] = []
        self.leader = self.name
        self._become("leader")
        self._tell("leading", term=machine.term, seq=machine.seq, paused=node.operators.paused)
        try:
            with suppress(TrubaError):  # deposed already: `failed` tells
                await node.start(open_term=False)
                await self._doors.lead(node)
            chores = [loop.create_task(trimmer.run()), loop.create_task(Audit(self.stream, self._unreadable).run())]
            ends: list[asyncio.Future[Any]] = [node.failed, stopping, asked, *chores]  # a chore ends by dying
            await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
            if not node.failed.done():
                node.drain()
                if self._stopping.is_set():
                    await node.dispatcher.finish(self._stop_timeout_s)
        finally:
            stopping.cancel()
            try:
                await _ended(chores)
            finally:
                self._troubles.pop("audit", None)  # the next leader finds out for itself
                self._first = trimmer.first
                self._trimmer = None
                self.leader = ""
                await self._doors.leave()
                await node.retire()
                self.node = None
        await self._hand_on(log, node)

    async def _hand_on(self, log: ReplicatedLog, node: Node) -> None:
        """The state is good and another node may begin at once; or it is not, and must go."""
        error = await self._stepping_down.resign(log, node)
        if error is None:
            return
        if not isinstance(error, Deposed):
            raise error
        self._tell("deposed", why=str(error), outcome="unknown for what was not acknowledged")
        await self._state.discard()

    async def _alone(self) -> bool:
        """None of the other nodes answers, and there are some."""
        others = [seq for name, seq in (await self._tails()).items() if name != self.name]
        return bool(others) and not any(others)

    def _purged(self, first: int, trimmed: int) -> None:
        self._troubles["purge"] = (
            f"the stream begins with message {first}, and was trimmed to {trimmed} only: somebody purged it. Nothing is"
            " lost while the nodes have their copies; truba cluster reseed makes the stream whole"
        )
        self._tell("the stream was purged by somebody else", first=first, trimmed=trimmed)

    def _unreadable(self, seqs: list[int]) -> None:
        if not seqs:
            self._troubles.pop("audit", None)
            self._tell("the stream can be read again")
            return
        self._troubles["audit"] = (
            f"{len(seqs)} of the stream's messages, from {seqs[0]} on, cannot be read: the server that leads the stream"
            " has a damaged copy. Nothing is lost while the nodes have theirs. Stop that server, remove its copy and"
            " start it: it takes that of the others; if all are damaged, truba cluster reseed makes the stream whole"
        )
        self._tell("the stream cannot be read", messages=len(seqs), first=seqs[0])

    # -- the rest ----------------------------------------------------------------------------------------------

    def _become(self, role: Role) -> None:
        if role != self.role:
            self.role = role
            self.since_ms = self._clock.now_ms()

    async def _until_stopped(self, work: Awaitable[None]) -> bool:
        """Whether it came to its end by itself."""
        task = asyncio.ensure_future(work)
        stopping = asyncio.ensure_future(self._stopping.wait())
        try:
            await asyncio.wait([task, stopping], return_when=asyncio.FIRST_COMPLETED)
        finally:
            stopping.cancel()
            if not task.done():
                task.cancel()
                await asyncio.wait([task])
        if self._state.failure is not None:
            raise self._state.failure
        if task.cancelled():
            return False
        task.result()
        return not self._stopping.is_set()


async def _ended(tasks: Sequence[asyncio.Task[None]]) -> None:
    """End them; what one of them has died of is raised. A cancel that was lost in somebody's code is said again: else a
    leader that was deposed would keep its clients for ever."""
    left = set(tasks)
    while left:
        for task in left:
            task.cancel()
        _, left = await asyncio.wait(left, timeout=AGAIN_S)
    for task in tasks:
        if not task.cancelled():
            task.result()
