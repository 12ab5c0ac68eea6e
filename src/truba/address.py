"""Addresses as people write them: `127.0.0.1:7433`, `[::1]:7433`, `truba://host:port`."""

from __future__ import annotations

from urllib.parse import urlsplit

from truba.errors import ConfigError

DEFAULT_PORT = 7433


def parse_listen(text: str) -> tuple[str, int]:
    """`host:port`, the host in brackets for IPv6; port 0 asks for a free one. ConfigError."""
    host, colon, port = text.rpartition(":")
    if not colon or not port.isdecimal() or int(port) > 65_535 or not host:
        raise ConfigError(f"{text!r} is no address: write host:port, e.g. 127.0.0.1:{DEFAULT_PORT}")
    return host.removeprefix("[").removesuffix("]"), int(port)


def parse_handler(url: str) -> tuple[str, int]:
    """`truba://host:port` of a handler service. ConfigError."""
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
    except ValueError as error:
        raise ConfigError(f"{url!r} is no address: {error}") from error
    if parts.scheme != "truba" or not host or not port or parts.path not in ("", "/") or parts.query or parts.username:
        raise ConfigError(f"{url!r} is no handler address: write truba://host:port")
    return host, port
