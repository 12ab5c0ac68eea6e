"""`truba://host:port` routes, `trubas://` for TLS, `unix:/path` on this machine: the pipe dials the handler service and
keeps the connection.

The service at the other end speaks the ordinary protocol on it (see `truba.wire`), says KINDS, and is handed sessions
as long as it has credit. While it cannot be reached, its sessions simply stay due: an outage uses nothing up.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from pathlib import Path

import structlog

from truba.address import is_own_echo, parse_handler
from truba.errors import ConfigError
from truba.kinds import Backoff
from truba.node.node import Node
from truba.node.owners import Owner
from truba.protocols import replies
from truba.tls import Contexts, HandshakeFailed, connect
from truba.wire.connection import Connection, WireSettings
from truba.wire.verbs import VERBS

log = structlog.get_logger("truba.route")

REDIAL = Backoff(base_s=0.1, factor=2.0, cap_s=5.0)
CONNECT_TIMEOUT_S = 5.0
KINDS_TIMEOUT_S = 10.0
"""A service that accepts and then says nothing is left and dialled again."""


class DialRoute:
    """One handler service, one connection at a time."""

    def __init__(self, address: str, secret: str, settings: WireSettings, tls: Contexts | None = None) -> None:
        """`tls`: of a `trubas://` address, and of no other. ConfigError."""
        self.address = address
        self._where = parse_handler(address)
        self._tls = tls
        if (tls is not None) is not address.startswith("trubas:"):
            raise ConfigError(f"{address}: TLS is for trubas:// addresses, and for all of them")
        self._secret = secret
        self._settings = settings
        self._connection: Connection | None = None
        self._task: asyncio.Task[None] | None = None
        self._lost = asyncio.Event()
        self._ready = asyncio.Event()
        self._state = "not dialled yet"

    def start(self, node: Node, wake: Callable[[], None]) -> None:
        self._task = asyncio.get_running_loop().create_task(self._keep(node, wake), name=f"route {self.address}")

    def seat(self, kind: int) -> Owner | None:
        connection = self._connection
        if connection is not None and connection.has_seat(kind):
            return connection.owner
        return None

    def state(self) -> str:
        return self._state

    async def stop(self) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])  # unlike `await`, this tells a cancel of ours from the task's own
            if not self._task.cancelled():
                self._task.result()
        connection = self._connection
        if connection is not None:
            connection.close()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._lost.wait(), CONNECT_TIMEOUT_S)
            if connection.transport is not None:
                connection.transport.abort()

    async def _keep(self, node: Node, wake: Callable[[], None]) -> None:
        tries = 0
        told: str | None = None
        while True:
            trouble = await self._once(node, wake)
            tries = 0 if trouble is None else tries + 1
            if trouble != told and trouble is not None:  # told anew when it is another: mending one may show the next
                log.warning("handler unreachable", handler=self.address, error=trouble)
            told = trouble
            self._state = f"unreachable: {trouble}" if trouble else "connection ended"
            await asyncio.sleep(REDIAL.delay_s(max(tries, 1), 0.5 + node.clock.chance() / 2))

    async def _once(self, node: Node, wake: Callable[[], None]) -> str | None:
        """One connection from dialling to its end. What went wrong before the handler said KINDS, or None."""

        def make() -> Connection:
            return Connection(node, VERBS, self._settings, self._closed, dialled=True, wake=on_change)

        def on_change() -> None:
            self._ready.set()
            wake()

        self._lost.clear()
        self._ready.clear()
        try:
            async with asyncio.timeout(CONNECT_TIMEOUT_S):
                transport, connection = await self._dial(make)
        except TimeoutError:
            return f"no connection within {CONNECT_TIMEOUT_S:.0f} s"
        except (OSError, ValueError) as error:  # ValueError: a host that is no name
            return str(getattr(error, "strerror", None) or error)
        if is_own_echo(transport):
            transport.abort()
            await self._lost.wait()
            return "nobody listens there"
        self._connection = connection
        transport.write(replies.push([b"hello", b"truba", b"1", self._secret.encode()]))
        try:
            async with asyncio.timeout(KINDS_TIMEOUT_S):
                await _first_of(self._ready, self._lost)
        except TimeoutError:
            transport.abort()
            await self._lost.wait()
            return f"connected, but no KINDS within {KINDS_TIMEOUT_S:.0f} s"
        if not connection.kinds:
            await self._lost.wait()
            if isinstance(connection.error, HandshakeFailed):  # in TLS 1.3 a refused side hears of it only now
                return str(connection.error)
            tls = " Does it speak TLS (trubas://)?" if self.address.startswith("truba:") else ""
            return f"the handler service closed the connection before it said KINDS; is the secret right?{tls}"
        self._state = f"connected, kinds {', '.join(map(str, sorted(connection.kinds)))}, credit {connection.credit}"
        log.info("handler connected", handler=self.address, kinds=sorted(connection.kinds), credit=connection.credit)
        await self._lost.wait()
        log.warning("handler connection lost", handler=self.address)
        return None

    async def _dial(self, make: Callable[[], Connection]) -> tuple[asyncio.Transport, Connection]:
        """OSError, ValueError."""
        if isinstance(self._where, Path):
            return await asyncio.get_running_loop().create_unix_connection(make, str(self._where))
        return await connect(make, *self._where, self._tls)

    def _closed(self, connection: Connection) -> None:
        if self._connection is connection:
            self._connection = None
        self._lost.set()


async def _first_of(*events: asyncio.Event) -> None:
    tasks = [asyncio.ensure_future(event.wait()) for event in events]
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()
