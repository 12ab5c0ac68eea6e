"""A way to a peer door that lets a checkpoint through up to a byte, and holds what follows: for as long as a test wants
to look at a transfer that is half done, however fast or slow the machine is.
"""

from __future__ import annotations

import asyncio
import contextlib
from types import TracebackType
from typing import Self

from truba.address import Address

READ_BYTES = 64 << 10


class HoldingRelay:
    """Passes connections on to `door`. Of the answer to each CHECKPOINT `pass_bytes` come through; None: all.

    `holds`: how many answers are being held now, each of them behind that many bytes, which have left.
    """

    def __init__(self, door: Address) -> None:
        self._door = door
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self.pass_bytes: int | None = None
        self.holds = 0

    @property
    def address(self) -> Address:
        assert self._server is not None
        return Address(*self._server.sockets[0].getsockname()[:2])

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._take, "127.0.0.1", 0)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._server is not None
        self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _take(self, near: asyncio.StreamReader, to_near: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        to_far: asyncio.StreamWriter | None = None
        asked = asyncio.Event()  # for a checkpoint, on this connection
        try:
            far, to_far = await asyncio.open_connection(*self._door)
            # Whichever side ends, the other one hears of it: a door that sends to nobody would refuse the next one.
            up = asyncio.ensure_future(self._up(near, to_far, asked))
            down = asyncio.ensure_future(self._down(far, to_near, asked))
            try:
                await asyncio.wait([up, down], return_when=asyncio.FIRST_COMPLETED)
            finally:
                up.cancel()
                down.cancel()
                await asyncio.gather(up, down, return_exceptions=True)
        except OSError:
            pass  # nobody is at the door: who came is hung up
        finally:
            self._tasks.discard(task)
            for writer in (to_near, to_far):
                if writer is not None:
                    writer.transport.abort()
                    with contextlib.suppress(OSError):
                        await writer.wait_closed()

    @staticmethod
    async def _up(near: asyncio.StreamReader, to_far: asyncio.StreamWriter, asked: asyncio.Event) -> None:
        while data := await near.read(READ_BYTES):
            if b"CHECKPOINT" in data:  # it comes alone: each question waits for the answer to the one before
                asked.set()
            to_far.write(data)
            await to_far.drain()

    async def _down(self, far: asyncio.StreamReader, to_near: asyncio.StreamWriter, asked: asyncio.Event) -> None:
        passed = 0
        while data := await far.read(READ_BYTES):
            if asked.is_set():
                left = len(data) if self.pass_bytes is None else self.pass_bytes - passed
                passed += len(data)
                if left < len(data):
                    to_near.write(data[:left])
                    await to_near.drain()
                    self.holds += 1
                    try:
                        await asyncio.Event().wait()
                    finally:
                        self.holds -= 1
            to_near.write(data)
            await to_near.drain()
