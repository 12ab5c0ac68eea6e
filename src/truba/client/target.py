"""Where a pipe is: `truba://[user:password@]host:port`, `unix:///path/to/socket`."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from errno import ECONNREFUSED
from typing import TypeVar
from urllib.parse import unquote, urlsplit

from truba.address import DEFAULT_PORT, is_own_echo
from truba.errors import ConfigError

P = TypeVar("P", bound=asyncio.Protocol)


@dataclass(frozen=True, slots=True)
class Target:
    host: str = ""
    port: int = 0
    path: str = ""  # of a Unix socket; then host and port are empty
    user: str | None = None
    password: str | None = field(default=None, repr=False)

    def __str__(self) -> str:
        return self.path or f"{self.host}:{self.port}"

    async def connect(self, make: Callable[[], P]) -> P:
        """A connected protocol. OSError."""
        loop = asyncio.get_running_loop()
        if self.path:
            return (await loop.create_unix_connection(make, self.path))[1]
        transport, protocol = await loop.create_connection(make, self.host, self.port)
        if is_own_echo(transport):
            transport.abort()
            raise ConnectionRefusedError(ECONNREFUSED, "nobody listens there")
        return protocol


def parse_target(url: str) -> Target:
    """ConfigError when it makes no sense."""
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError as error:
        raise ConfigError(f"{url!r} is no address of a pipe: {error}") from error
    user = unquote(parts.username) if parts.username else None
    password = unquote(parts.password) if parts.password else None
    if parts.scheme in ("unix", "truba+unix") and parts.path and not parts.netloc:
        return Target(path=parts.path)
    if parts.scheme == "truba" and parts.hostname and parts.path in ("", "/") and not parts.query:
        return Target(parts.hostname, DEFAULT_PORT if port is None else port, "", user, password)
    raise ConfigError(f"{url!r} is no address of a pipe: write truba://host:port or unix:///path")
