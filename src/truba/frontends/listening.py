"""Listening sockets, bound once, and whoever takes connections on them for now.

    bind(listen) -> Listening          the addresses are ours until `close`
    Reception(listening, make).open()  connections are taken, until its `close`; then perhaps another one's turn

In between, connections wait in the kernel's queue. Nothing here knows what is said on a connection, but that on the TCP
port it may be said in TLS.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, cast

import structlog

from truba import unix
from truba.address import parse_listen
from truba.entrance import Entrance
from truba.entrance import Guest as Entering
from truba.protocols import replies
from truba.rejections import Rejections
from truba.tls import Contexts

log = structlog.get_logger("truba.frontend")

BACKLOG = 1024
"""Connections that the kernel keeps for us until they are taken."""

FAREWELL_S = 5.0
"""How long a reception that closes waits for clients to read their last answers."""

# From 3.13 on the loop would remove the socket's file with the first server that closes; it is ours to remove.
_KEEP_FILE: dict[str, Any] = {"cleanup_socket": False} if sys.version_info >= (3, 13) else {}


@dataclass(frozen=True, slots=True)
class Listen:
    """Where to listen: `host:port`, a socket path, or both."""

    tcp: str | None = None
    unix: Path | None = None
    connections_max: int = 10_000
    tls: Contexts | None = None  # of the TCP port


class Listening:
    """Made by `bind`. `bound`: the TCP address in use, for port 0."""

    def __init__(self, listen: Listen) -> None:
        self.connections_max = listen.connections_max
        self.tls = listen.tls
        self.connections = 0  # taken and not yet ended
        self.rejections = Rejections(_tell)
        self.bound: tuple[str, int] | None = None
        self._unix = listen.unix
        self._sockets: list[socket.socket] = []
        self._file_made = False

    async def open(self, listen: Listen) -> None:
        """OSError when an address cannot be had; its text says which."""
        if listen.tcp is not None:
            await self._bind_tcp(listen.tcp)
        if listen.unix is not None:
            await self._bind_unix(listen.unix)

    async def _bind_tcp(self, text: str) -> None:
        host, port = parse_listen(text)
        try:
            found = await asyncio.get_running_loop().getaddrinfo(
                host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
            )
            for family, _, _, _, address in dict.fromkeys(found):
                sock = self._socket(family)
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                if family == socket.AF_INET6:
                    sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
                sock.bind(address)
                sock.listen(BACKLOG)
        except OSError as error:
            raise OSError(error.errno, f"cannot listen on {text}: {_plain(error)}") from error
        self.bound = self._sockets[0].getsockname()[:2]

    async def _bind_unix(self, path: Path) -> None:
        sock = await unix.bound(path)
        self._sockets.append(sock)
        self._file_made = True
        sock.listen(BACKLOG)

    def _socket(self, family: int) -> socket.socket:
        sock = socket.socket(family, socket.SOCK_STREAM)
        self._sockets.append(sock)
        return sock

    async def serve(
        self, make: Callable[[], asyncio.Protocol], make_local: Callable[[], asyncio.Protocol]
    ) -> list[asyncio.Server]:
        """Servers on duplicates of the sockets: closing them leaves the addresses ours. `make_local`: for Unix ones."""
        loop = asyncio.get_running_loop()
        servers: list[asyncio.Server] = []
        for sock in self._sockets:
            if sock.family == socket.AF_UNIX:
                server = await loop.create_unix_server(make_local, sock=sock.dup(), backlog=BACKLOG, **_KEEP_FILE)
            else:
                server = await loop.create_server(make, sock=sock.dup(), backlog=BACKLOG)
            servers.append(server)
        return servers

    def close(self) -> None:
        """Give the addresses back; connections that nobody has taken are refused once no reception is open."""
        for sock in self._sockets:
            sock.close()
        self._sockets.clear()
        self.rejections.close()
        if self._unix is not None and self._file_made:  # else it is somebody else's file
            self._file_made = False
            with contextlib.suppress(FileNotFoundError):
                self._unix.unlink()


def _tell(cause: str, **fields: object) -> None:
    log.warning(cause, **fields)


async def bind(listen: Listen) -> Listening:
    """Have the addresses from here on. OSError when one cannot be had; its text says which."""
    listening = Listening(listen)
    try:
        await listening.open(listen)
    except BaseException:
        listening.close()
        raise
    return listening


class Guest(Entering, Protocol):
    """A connection as a reception sees it: an asyncio.Protocol that can be asked to leave."""

    def close(self) -> None:
        """End it once what was answered has left."""


class Reception:
    """Takes connections, at most `connections_max` at once. May be opened again once `close` has returned.

    `make` gives the protocol of a new connection, a Guest; it must call `left` when that has ended. `guarded`: it is a
    stranger (`truba.entrance`) until it calls `known`.
    """

    def __init__(self, listening: Listening, make: Callable[[], Guest], *, guarded: bool = False) -> None:
        self._listening = listening
        self._make = make
        self._entrance: Entrance[Guest] = Entrance(
            self._come,
            lambda: _Refused(listening.connections_max),
            listening.rejections.add,
            connections_max=listening.connections_max,
            tls=listening.tls,
            guarded=guarded,
            plain_answer=_SPEAKS_TLS,
        )
        self._servers: list[asyncio.Server] = []
        self._emptied = asyncio.Event()

    def _come(self) -> Guest:
        guest = self._make()
        self._listening.connections += 1
        return guest

    @property
    def rejections(self) -> Rejections:
        return self._listening.rejections

    @property
    def guests(self) -> list[Guest]:
        """Those who are here now."""
        return list(self._entrance.guests)

    async def open(self) -> None:
        entrance = self._entrance
        entrance.opened = True
        self._servers = await self._listening.serve(entrance.take, entrance.take_local)

    def known(self, guest: Guest) -> None:
        """It has said who it is."""
        self._entrance.known(guest)

    def left(self, guest: Guest) -> None:
        if guest in self._entrance.guests:
            self._listening.connections -= 1
        self._entrance.left(guest)
        if not self._entrance.guests:
            self._emptied.set()

    async def close(self) -> None:
        """Take no more, at once; ask those who are here to leave, and hang up on who has not done so in time."""
        self._entrance.close()
        for server in self._servers:
            server.close()
        self._servers.clear()
        for guest in self.guests:
            guest.close()
        if self._entrance.guests:
            self._emptied.clear()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._emptied.wait(), FAREWELL_S)
        for guest in self.guests:
            if guest.transport is not None:
                guest.transport.abort()


_SPEAKS_TLS = replies.error(
    "ERR", "this port speaks TLS and nothing else: connect to trubas://; nothing was stored, the connection is closed"
)


class _Refused(asyncio.Protocol):
    """One connection too many: told so, and closed."""

    def __init__(self, limit: int) -> None:
        self._limit = limit

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        stream = cast(asyncio.Transport, transport)  # uvloop's is no subclass of it
        stream.write(
            replies.error("BUSY", f"the pipe has {self._limit} connections, its limit; nothing was stored; try later")
        )
        stream.close()


def _plain(error: OSError) -> str:
    """The system's own words."""
    if isinstance(error, socket.gaierror):
        return str(error.strerror)
    return os.strerror(error.errno) if error.errno else str(error)
