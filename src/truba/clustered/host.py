"""What a node answers at its peer door."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path

from truba import __version__
from truba.clock import Clock
from truba.cluster.member import Member
from truba.cluster.words import Digest, Exported, Status
from truba.clustered.storage import NodeStorage
from truba.errors import Unavailable
from truba.machine.digest import StateDigest
from truba.machine.machine import Machine
from truba.types import Position

STILL_S = 0.01
STILL_TRIES = 500

DIGEST_STEPS = 100
"""Sessions in one turn of the loop: reading a million of them at once would cost a leader its office."""
DIGEST_TRIES = 5


class MemberHost:
    """See `truba.cluster.words.Host`. `servers`: what the node is connected to."""

    def __init__(
        self,
        member: Member,
        storage: NodeStorage,
        cluster_id: bytes,
        clock: Clock,
        servers: Callable[[], tuple[str, ...]],
    ) -> None:
        self._member = member
        self._storage = storage
        self._cluster_id = cluster_id
        self._clock = clock
        self._servers = servers

    def status(self) -> Status:
        member = self._member
        tail = self._storage.log.tail
        machine = member.machine
        follower = member.follower
        stream_seq = member.stream_seq
        stream_last = max(stream_seq, follower.stream_last if follower is not None else 0)
        return Status(
            name=member.name,
            version=__version__,
            role=member.role,
            leader=member.leader,
            term=tail.term,
            seq=tail.seq,
            chain=tail.chain.hex(),
            stream_first=member.stream_first,
            stream_last=stream_last,
            stream_seq=stream_seq,
            lag=stream_last - stream_seq,
            voids=member.voids,
            since_ms=self._clock.now_ms() - member.since_ms,
            trouble=member.trouble,
            applied_seq=self._storage.store.summary.applied.seq,
            sessions=sum(machine.counts.values()) if machine is not None else 0,
            servers=self._servers(),
        )

    async def digest(self) -> Digest:
        """Unavailable: what there is changes before all of it is read."""
        for _ in range(DIGEST_TRIES):
            machine, tail = await self._still()
            digest = StateDigest(machine)
            while digest.read(DIGEST_STEPS):
                await asyncio.sleep(0)
                if machine is not self._member.machine or machine.seq != tail.seq:
                    break
            else:
                return Digest(term=tail.term, seq=tail.seq, chain=tail.chain.hex(), digest=digest.hex())
        raise Unavailable(
            f"{self._member.name} is too busy: its state changes while it is read; ask again when less is written"
        )

    async def step_down(self, successor: str) -> None:
        await self._member.step_down(successor)

    async def export(self, directory: Path) -> Exported:
        """Of the state as it is now: what the stream has trimmed is in it."""
        await self._still()
        await self._member.checkpoint()
        target = directory / "store"
        summary = await asyncio.to_thread(self._storage.store.export, target)
        for file in target.iterdir():
            file.rename(directory / file.name)
        target.rmdir()
        return Exported(self._cluster_id, summary.applied, b"")

    async def _still(self) -> tuple[Machine, Position]:
        """The state, once it is exactly that of the own log's tail, and that tail, which another thread may move at any
        moment. Unavailable: it does not come to that."""
        for _ in range(STILL_TRIES):
            machine, node = self._member.machine, self._member.node
            if node is not None and not node.sequencer.failed:
                await node.sequencer.flush()
            tail = self._storage.log.tail
            if machine is not None and machine is self._member.machine and machine.seq == tail.seq:
                return machine, tail
            await asyncio.sleep(STILL_S)
        raise Unavailable(f"{self._member.name} is too busy, or has no state just now; ask again, or another node")
