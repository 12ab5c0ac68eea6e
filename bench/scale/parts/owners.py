"""Very many real connections to a `truba serve`: memory of each, work over all, and what happens when all break."""

from __future__ import annotations

import asyncio
import time

from bench.scale.child import progressed, say_result
from bench.scale.pipes import memory_mib
from bench.scale.results import Owners
from truba.client.admin import Admin
from truba.types import Phase

AT_ONCE = 100
KIND = 7
POLL_S = 0.02


class Client(asyncio.Protocol):
    """One connection. Each command is answered by whole lines; an error ends the measurement."""

    def __init__(self) -> None:
        self._got = b""
        self._lines = 0
        self._done: asyncio.Future[bytes] | None = None
        self.id = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        self._got += data
        if self._done is not None and self._got.count(b"\r\n") >= self._lines:
            done, self._done = self._done, None
            got, self._got = self._got, b""
            if done.done():
                return  # nobody waits for it any more
            if got.startswith(b"-"):
                done.set_exception(RuntimeError(got.decode()))
            else:
                done.set_result(got)

    def connection_lost(self, error: Exception | None) -> None:
        if self._done is not None:
            self._done.set_exception(ConnectionError(f"the pipe hung up: {error}"))

    async def ask(self, lines: int, *words: bytes) -> bytes:
        self._lines = lines
        self._done = asyncio.get_running_loop().create_future()
        request = b"*%d\r\n" % len(words) + b"".join(b"$%d\r\n%s\r\n" % (len(word), word) for word in words)
        self.transport.write(request)  # type: ignore[attr-defined]
        return await self._done

    async def begin(self, number: int) -> None:
        await self.ask(1, b"OWNER", b"a-token-of-owner-%08d" % number, b"GRACE", b"1")
        answer = await self.ask(2, b"NEW", b"%d" % KIND, b"x" * 100)
        self.id = answer.split(b"\r\n")[1]


async def measure(host: str, port: int, pid: int, connections: int, seconds: float) -> None:
    loop = asyncio.get_running_loop()

    async def dial() -> Client:
        return (await loop.create_connection(Client, host, port))[1]

    pinger = await dial()
    longest_s = 0.0

    async def ping() -> None:
        nonlocal longest_s
        while True:
            began_s = time.perf_counter()
            await pinger.ask(1, b"PING")
            longest_s = max(longest_s, time.perf_counter() - began_s)
            await asyncio.sleep(0.001)

    began_mib, began_s = memory_mib(pid), time.perf_counter()
    clients: list[Client] = []
    for at in range(0, connections, AT_ONCE):
        some = [await dial() for _ in range(min(AT_ONCE, connections - at))]
        await asyncio.gather(*(client.begin(at + number) for number, client in enumerate(some)))
        clients += some
        progressed(len(clients))
    opened_per_s = connections / (time.perf_counter() - began_s)
    each = (memory_mib(pid) - began_mib) * 2**20 / connections

    until_s, operations = time.perf_counter() + seconds, 0

    async def work(client: Client) -> None:
        nonlocal operations
        while time.perf_counter() < until_s:
            await client.ask(1, b"APPEND", client.id, b"x" * 100)
            operations += 1

    pinging = asyncio.create_task(ping())
    began_s = time.perf_counter()
    await asyncio.gather(*map(work, clients))
    rate = operations / (time.perf_counter() - began_s)
    for client in clients:
        client.transport.abort()  # type: ignore[attr-defined]
    began_s = time.perf_counter()
    async with Admin.over(f"truba://{host}:{port}") as admin:
        while (await admin.kinds())[KIND].sessions[Phase.ACTIVE]:  # noqa: ASYNC110 - nobody tells
            await asyncio.sleep(POLL_S)
    lost_s = time.perf_counter() - began_s
    pinging.cancel()
    say_result(Owners(connections, each, opened_per_s, rate, longest_s * 1e3, lost_s))
