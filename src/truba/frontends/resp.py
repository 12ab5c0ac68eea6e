"""The default frontend: RESP over TCP and a Unix socket."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import structlog

from truba.address import parse_listen
from truba.node.node import Node
from truba.protocols import replies
from truba.wire.connection import Connection, WireSettings
from truba.wire.verbs import VERBS

log = structlog.get_logger("truba.frontend")

FAREWELL_S = 5.0
"""How long a stopping frontend waits for clients to read their last answers."""


@dataclass(frozen=True, slots=True)
class Listen:
    """Where to listen: `host:port`, a socket path, or both."""

    tcp: str | None = None
    unix: Path | None = None
    connections_max: int = 10_000


class RespFrontend:
    """Takes connections until it is stopped. `bound`: the TCP address in use, for port 0."""

    def __init__(self, listen: Listen, settings: WireSettings) -> None:
        self._listen = listen
        self._settings = settings
        self._servers: list[asyncio.Server] = []
        self._connections: set[Connection] = set()
        self._emptied = asyncio.Event()
        self._node: Node | None = None
        self._socket_made = False
        self.bound: tuple[str, int] | None = None

    async def start(self, node: Node) -> None:
        """OSError when an address cannot be had; its text says which."""
        self._node = node
        loop = asyncio.get_running_loop()
        if self._listen.tcp is not None:
            host, port = parse_listen(self._listen.tcp)
            try:
                server = await loop.create_server(self._connection, host, port, backlog=1024)
            except OSError as error:
                raise OSError(error.errno, f"cannot listen on {self._listen.tcp}: {_plain(error)}") from error
            self.bound = server.sockets[0].getsockname()[:2]
            self._servers.append(server)
        if self._listen.unix is not None:
            self._servers.append(await self._start_unix(self._listen.unix))

    async def _start_unix(self, path: Path) -> asyncio.Server:
        await _remove_stale(path)
        try:
            server = await asyncio.get_running_loop().create_unix_server(self._connection, str(path), backlog=1024)
        except OSError as error:
            raise OSError(error.errno, f"cannot listen on {path}: {_plain(error)}") from error
        self._socket_made = True
        path.chmod(0o600)  # noqa: ASYNC240 - once, at the start
        return server

    def _connection(self) -> asyncio.Protocol:
        assert self._node is not None  # connections come after start
        if len(self._connections) >= self._listen.connections_max:
            return _Refused(self._listen.connections_max)
        connection = Connection(self._node, VERBS, self._settings, self._closed)
        self._connections.add(connection)
        return connection

    def _closed(self, connection: Connection) -> None:
        self._connections.discard(connection)
        if not self._connections:
            self._emptied.set()

    async def stop(self) -> None:
        for server in self._servers:
            server.close()
        if self._listen.unix is not None and self._socket_made:  # else it is somebody else's file
            with contextlib.suppress(FileNotFoundError):
                self._listen.unix.unlink()
        for connection in list(self._connections):
            connection.close()
        if self._connections:
            self._emptied.clear()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._emptied.wait(), FAREWELL_S)
        for connection in list(self._connections):
            if connection.transport is not None:
                connection.transport.abort()


class _Refused(asyncio.Protocol):
    """One connection too many: told so, and closed."""

    def __init__(self, limit: int) -> None:
        self._limit = limit

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        stream = cast(asyncio.Transport, transport)  # uvloop's is no subclass of it
        log.warning("connection refused", reason="connections_max", limit=self._limit)
        stream.write(
            replies.error("BUSY", f"the pipe has {self._limit} connections, its limit; nothing was stored; try later")
        )
        stream.close()


async def _remove_stale(path: Path) -> None:
    """A socket file that nobody listens on any more is removed; one in use, or another file, is not."""
    try:
        mode = path.stat().st_mode  # noqa: ASYNC240 - once, at the start
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(mode):
        raise OSError(errno.EEXIST, f"cannot listen on {path}: there is a file of that name")
    try:
        _, writer = await asyncio.open_unix_connection(str(path))
    except ConnectionRefusedError:
        path.unlink()  # noqa: ASYNC240 - once, at the start
        return
    writer.close()
    raise OSError(errno.EADDRINUSE, f"cannot listen on {path}: another process listens there")


def _plain(error: OSError) -> str:
    """The system's own words; asyncio puts a sentence of its own in their place."""
    return os.strerror(error.errno) if error.errno else str(error)
