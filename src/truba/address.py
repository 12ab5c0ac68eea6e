"""Addresses as people write them: `127.0.0.1:7433`, `[::1]:7433`, `truba://host:port`, `unix:/path`; which of them stay
at home."""

from __future__ import annotations

import os
import re
from ipaddress import ip_address
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple
from urllib.parse import urlsplit

from truba.errors import ConfigError

if TYPE_CHECKING:
    from asyncio import BaseTransport

DEFAULT_PORT = 7433
UNIX_PATH_BYTES_MAX = 107
"""The kernel keeps 108 (unix(7), sun_path), the last for a zero."""

_PORT_MAX = 65_535
_PORT = re.compile("[0-9]{1,5}").fullmatch


class Address(NamedTuple):
    """Where to listen or to dial; printed `host:port`, an IPv6 host in brackets."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def address(value: object) -> Address:
    """The host and port of "host:port" or "[::1]:port"."""
    wanted = 'an address such as "127.0.0.1:7433" or "[::1]:7433"'
    if isinstance(value, str):
        host, colon, port = value.rpartition(":")
        bracketed = host.startswith("[") and host.endswith("]")
        if bracketed:
            host = host[1:-1]
        plain = host and "[" not in host and "]" not in host and (bracketed or ":" not in host)
        if colon and plain and can_be_looked_up(host) and _PORT(port) and int(port) <= _PORT_MAX:
            return Address(host, int(port))
    raise ValueError(f"{value!r} is not an address", wanted)


def can_be_looked_up(host: str) -> bool:
    """Of a name with a label that is empty, or over 63 characters, Python will not even ask: a UnicodeError."""
    try:
        return b"\0" not in host.encode("idna")
    except UnicodeError:
        return False


def parse_listen(text: str) -> Address:
    """`host:port`, the host in brackets for IPv6; port 0 asks for a free one. ConfigError."""
    try:
        return address(text)
    except ValueError as error:
        raise ConfigError(f"{error.args[0]}: write {error.args[1]}") from error


def parse_handler(url: str) -> Address | Path:
    """`truba://host:port` of a handler service, `trubas://` of one that speaks TLS, or the file of a Unix socket.
    ConfigError."""
    if url.startswith("unix:"):
        return unix_path(url)
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
    except ValueError as error:
        raise ConfigError(f"{without_user(url)!r} is no address: {error}") from error
    plain = parts.path in ("", "/") and not parts.query and not parts.username
    if parts.scheme not in ("truba", "trubas") or not host or not can_be_looked_up(host) or not port or not plain:
        raise ConfigError(
            f"{without_user(url)!r} is no handler address: write truba://host:port, trubas://host:port or unix:/path"
        )
    return Address(host, port)


def unix_path(url: str) -> Path:
    """The file of `unix:/path`, which may be written `unix:///path` too. ConfigError."""
    text = url.removeprefix("unix:").removeprefix("//")
    if not text.startswith("/") or text.endswith("/") or "\0" in text or len(os.fsencode(text)) > UNIX_PATH_BYTES_MAX:
        raise ConfigError(
            f"{url!r} is no Unix socket: write unix:/path, a whole path of at most {UNIX_PATH_BYTES_MAX} bytes"
        )
    return Path(text)


def without_user(url: str) -> str:
    """A url that may be shown: a password in it is not."""
    return re.sub(r"//[^/]*@", "//...@", url)


def is_local(host: str) -> bool:
    """Does what is sent there stay on this machine, so that nobody can listen in? Of names only `localhost` does."""
    host = host.lower()
    if host == "localhost" or host.endswith(".localhost"):
        return True
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False


def refuse_plain(what: str, host: str) -> None:
    """ConfigError where plain text would leave this machine."""
    if not is_local(host):
        raise ConfigError(
            f"{what} would be plain text beyond this machine, for everybody on the way to read: use TLS (trubas://),"
            " or say that you mean it (insecure)"
        )


def is_own_echo(transport: BaseTransport) -> bool:
    """Is the other end of this connection its own beginning?

    Whoever dials a port of this machine that nobody listens on, and that lies among those which the kernel gives to
    outgoing connections, is given that very port one day (on Linux, for an even port: once in some ten thousand), and
    TCP connects it to itself. It would then read its own requests as answers, and keep the service that is being
    restarted from its port.
    """
    own: object = transport.get_extra_info("sockname")
    return bool(own) and own == transport.get_extra_info("peername")
