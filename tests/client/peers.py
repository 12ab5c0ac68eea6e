"""What clients talk to in tests: a pipe of a few lines whose connections are cut, a cutting proxy, real pipes."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import random
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import cast

import hiredis

from tests.client.model import TinyPipe
from truba.testing.ports import free_ports

TRUBA = [sys.executable, "-m", "truba", "serve"]


class CutPeer(asyncio.Protocol):
    """A connection to a TinyPipe that ends after so many bytes of requests read, or of answers written."""

    def __init__(self, served: Served) -> None:
        self.served = served
        self.reader = hiredis.Reader()
        self.reads, self.writes = next(served.cuts, (None, None))

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)
        self.served.connections += 1

    def data_received(self, data: bytes) -> None:
        if self.reads is not None:
            data = data[: self.reads]
            self.reads -= len(data)
        self.reader.feed(data)
        out = b""
        while (request := self.reader.gets()) is not False:
            out += self.served.answer(request)
        if self.writes is not None:
            out = out[: self.writes]
            self.writes -= len(out)
        self.transport.write(out)
        if self.reads == 0 or self.writes == 0:
            self.transport.close()
            self.reads = 0

    def connection_lost(self, error: Exception | None) -> None:
        self.served.pipe.leave(asyncio.get_running_loop().time())


class Served:
    """A TinyPipe behind a port. `cuts`: of each connection in turn, bytes that it may read, bytes that it may write."""

    def __init__(self, cuts: list[tuple[int | None, int | None]] | None = None) -> None:
        self.pipe = TinyPipe()
        self.cuts = iter(cuts or [])
        self.connections = 0
        self.refusals: dict[bytes, bytes] = {}  # verb -> answer
        self.asked: list[list[bytes]] = []

    def answer(self, request: list[bytes]) -> bytes:
        self.asked.append(request)
        return self.refusals.get(request[0]) or self.pipe.ask(request, asyncio.get_running_loop().time())

    @asynccontextmanager
    async def running(self) -> AsyncIterator[str]:
        server = await asyncio.get_running_loop().create_server(lambda: CutPeer(self), "127.0.0.1", 0)
        try:
            yield f"truba://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        finally:
            server.close()


@asynccontextmanager
async def proxy(address: str, seed: int, span: int) -> AsyncIterator[tuple[str, Callable[[], int]]]:
    """Cuts each connection after a random number of bytes up to `span`, until told to stop; says how many it cut."""
    dice = random.Random(seed)
    host, port = address.rsplit(":", 1)
    tasks: set[asyncio.Task[None]] = set()
    cut = 0
    cutting = True

    async def pump(
        reader: asyncio.StreamReader, writer: asyncio.StreamWriter, budget: list[int], both: list[asyncio.StreamWriter]
    ) -> None:
        nonlocal cut
        with contextlib.suppress(OSError):
            while data := await reader.read(65536):
                if cutting and len(data) > budget[0]:
                    writer.write(data[: budget[0]])
                    cut += 1
                    break
                budget[0] -= len(data)
                writer.write(data)
        for one in both:
            one.close()
            with contextlib.suppress(OSError):
                await one.wait_closed()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            to_reader, to_writer = await asyncio.open_connection(host, int(port))
        except OSError:
            writer.close()
            return
        budget = [dice.randrange(200, span)]
        for args in ((reader, to_writer), (to_reader, writer)):
            task = asyncio.create_task(pump(*args, budget, [writer, to_writer]))
            tasks.add(task)
            task.add_done_callback(tasks.discard)

    def stop() -> int:
        nonlocal cutting
        cutting = False
        return cut

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    try:
        yield f"truba://127.0.0.1:{server.sockets[0].getsockname()[1]}", stop
    finally:
        server.close()
        await asyncio.wait_for(asyncio.gather(*tasks), 10)  # both ends are closed by now


class RealPipe:
    """`truba serve` as a process of its own, on the same port at each start."""

    def __init__(self, directory: Path, config: str) -> None:
        self.directory = directory
        # None that the kernel gives to connections: one of them may have it while the pipe is down.
        self.listen = f"127.0.0.1:{free_ports(1)[0]}"
        directory.mkdir(exist_ok=True)
        (directory / "truba.toml").write_text(config)
        self.process: subprocess.Popen[str] | None = None

    @property
    def url(self) -> str:
        return f"truba://{self.listen}"

    def start(self) -> RealPipe:
        self.process = subprocess.Popen(
            [*TRUBA, "--listen", self.listen],
            cwd=self.directory,
            stderr=subprocess.PIPE,
            text=True,
            env={name: value for name, value in os.environ.items() if not name.startswith("TRUBA_")},
        )
        assert self.process.stderr is not None
        logged = []
        for line in self.process.stderr:
            logged.append(line)
            entry = json.loads(line) if line.startswith("{") else {}
            if entry.get("event") == "ready":
                self.listen = entry["listen"]
                return self
        raise AssertionError(f"it did not start: {logged}")

    def kill(self) -> None:
        if self.process is not None:
            self.process.kill()
            self.process.communicate(timeout=30)
            self.process = None
