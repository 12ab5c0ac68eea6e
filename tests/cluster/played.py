"""A played node behind a real peer door, and a proxy that cuts or changes what goes through it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import msgspec

from truba.address import Address
from truba.audit import AuditFile
from truba.clock import SystemClock
from truba.cluster.door import Door
from truba.cluster.words import Digest, Exported, Status
from truba.errors import Busy
from truba.tls import Contexts
from truba.types import Position

SECRET = b"the secret of the cluster"
AUDIT = "audit.jsonl"
LOOPBACK = Address("127.0.0.1", 0)

FOLLOWER = Status(
    name="a", version="0.1.0", role="follower", leader="b", term=3, seq=117, chain="0c" * 16, stream_first=1,
    stream_last=40, stream_seq=40, lag=0, voids=1, since_ms=5_000, trouble="", applied_seq=100, sessions=7,
    servers=("nats://127.0.0.1:4222",),
)  # fmt: skip


class Played:
    """A Host that says what it is told to say."""

    def __init__(self, **said: object) -> None:
        self.said = msgspec.structs.replace(FOLLOWER, **said)
        self.files: dict[str, bytes] = {}
        self.exported = Exported(bytes(range(16)), Position(3, 117, b"\x0c" * 16), b"more")
        self.digest_text = "ab" * 32
        self.stepped: list[str] = []
        self.before_export: Callable[[Path], Awaitable[None]] | None = None
        self.on_step_down: Callable[[str], None] | None = None

    def status(self) -> Status:
        return self.said

    async def digest(self) -> Digest:
        return Digest(term=self.said.term, seq=self.said.seq, chain=self.said.chain, digest=self.digest_text)

    async def step_down(self, successor: str) -> None:
        if self.said.role != "leader":
            raise Busy("this node does not lead")
        self.stepped.append(successor)
        if self.on_step_down is not None:
            self.on_step_down(successor)

    async def export(self, directory: Path) -> Exported:
        if self.before_export is not None:
            await self.before_export(directory)
        for name, data in self.files.items():
            path = directory / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)
        return self.exported


@asynccontextmanager
async def opened(
    host: Played, scratch: Path, address: Address = LOOPBACK, tls: Contexts | None = None
) -> AsyncIterator[Door]:
    audit = AuditFile(scratch / AUDIT, SystemClock())
    door = Door(host, SECRET, scratch, audit, tls)
    await door.start(address)
    try:
        yield door
    finally:
        await door.close()
        await audit.close()


@asynccontextmanager
async def through(door: Door, change: Callable[[int, bytes], bytes]) -> AsyncIterator[Address]:
    """A way to the door on which answers pass `change(offset, data)`; less than all of it: then the end."""
    tasks: set[asyncio.Task[None]] = set()

    async def carry(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, changing: bool) -> None:
        offset = 0
        try:
            while data := await reader.read(65_536):
                passed = change(offset, data) if changing else data
                offset += len(data)
                writer.write(passed)
                await writer.drain()
                if len(passed) < len(data):
                    break
        except ConnectionError:
            pass  # one side has gone: so does the other
        finally:
            writer.close()

    async def enter(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        back, forth = await asyncio.open_connection(*door.bound)
        for task in (carry(reader, forth, False), carry(back, writer, True)):
            tasks.add(asyncio.ensure_future(task))

    server = await asyncio.start_server(enter, "127.0.0.1", 0)
    try:
        yield Address(*server.sockets[0].getsockname()[:2])
    finally:
        server.close()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
