"""Where a pipe is: `truba://[user:password@]host:port`, `trubas://` for TLS, `unix:///path/to/socket`."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from errno import ECONNREFUSED
from typing import TypeVar
from urllib.parse import unquote, urlsplit

from truba.address import DEFAULT_PORT, can_be_looked_up, is_local, is_own_echo, refuse_plain, without_user
from truba.errors import ConfigError
from truba.tls import Contexts, Tls, connect

P = TypeVar("P", bound=asyncio.Protocol)


@dataclass(frozen=True, slots=True)
class Target:
    host: str = ""
    port: int = 0
    path: str = ""  # of a Unix socket; then host and port are empty
    user: str | None = None
    password: str | None = field(default=None, repr=False)
    tls: Contexts | None = field(default=None, repr=False)
    insecure: bool = False  # plain text may leave this machine

    def __str__(self) -> str:
        return self.path or f"{self.host}:{self.port}"

    async def connect(self, make: Callable[[], P]) -> P:
        """A connected protocol. OSError."""
        loop = asyncio.get_running_loop()
        if self.path:
            return (await loop.create_unix_connection(make, self.path))[1]
        transport, protocol = await connect(make, self.host, self.port, self.tls)
        if is_own_echo(transport):
            transport.abort()
            raise ConnectionRefusedError(ECONNREFUSED, "nobody listens there")
        return protocol

    @property
    def guarded(self) -> bool:
        """May it be told secrets? Nobody reads on the way, or that was said to be right."""
        return self.insecure or self.tls is not None or bool(self.path) or is_local(self.host)


def parse_target(url: str, tls: Tls | None = None, *, insecure: bool = False) -> Target:
    """ConfigError when it makes no sense, when it is plain text beyond this machine and not `insecure`, or when a
    file of `tls` cannot be used."""
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError as error:
        raise ConfigError(f"{without_user(url)!r} is no address of a pipe: {error}") from error
    user = unquote(parts.username) if parts.username else None
    password = unquote(parts.password) if parts.password else None
    if tls is not None and parts.scheme != "trubas":
        raise ConfigError(f"{without_user(url)!r} does not speak TLS, and tls was given: write trubas://host:port")
    if parts.scheme in ("unix", "truba+unix") and parts.path and not parts.netloc:
        return Target(path=parts.path)
    host = parts.hostname if parts.hostname and can_be_looked_up(parts.hostname) else None
    if parts.scheme in ("truba", "trubas") and host is not None and parts.path in ("", "/") and not parts.query:
        contexts = None
        if parts.scheme == "trubas":
            contexts = Contexts(tls or Tls(), server_side=False)
        elif not insecure:
            refuse_plain(without_user(url), host)
        return Target(host, DEFAULT_PORT if port is None else port, "", user, password, contexts, insecure)
    raise ConfigError(
        f"{without_user(url)!r} is no address of a pipe: write truba://host:port, trubas://host:port or unix:///path"
    )
