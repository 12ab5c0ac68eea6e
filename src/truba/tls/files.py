"""Certificates in files, and the contexts made of them. Files that change are read again; nothing is restarted.

Looked at whenever a connection begins: a few microseconds for each file, so no timer and no watcher. What cannot be
used (half a pair, while somebody copies them) is told once, and what was read before stays in force.
"""

from __future__ import annotations

import logging
import ssl
from dataclasses import dataclass
from pathlib import Path

from truba.errors import ConfigError

log = logging.getLogger("truba.tls")


@dataclass(frozen=True, slots=True)
class Tls:
    """Whom to believe, and what to show. PEM files.

    `ca`: the authorities that the other side's certificate must come from. A client without it believes those of the
    system; a server without it asks for no certificate. `certificate`: one's own, with what leads to its authority
    behind it. `key`: of that certificate; None: it is in the same file.
    """

    ca: Path | str | None = None
    certificate: Path | str | None = None
    key: Path | str | None = None

    @property
    def files(self) -> tuple[Path, ...]:
        return tuple(Path(one) for one in (self.ca, self.certificate, self.key) if one is not None)


class Contexts:
    """The context of one side, of the newest files that could be used. ConfigError when the first ones cannot."""

    def __init__(self, tls: Tls, *, server_side: bool) -> None:
        self.tls = tls
        self._server_side = server_side
        self._seen = _signature(tls)
        self._context = make_context(tls, server_side=server_side)

    def current(self) -> ssl.SSLContext:
        """For one connection: asked anew for each. Never raises for files that became unusable."""
        seen = _signature(self.tls)
        if seen != self._seen:
            self._seen = seen
            names = ", ".join(map(str, self.tls.files))
            try:
                self._context = make_context(self.tls, server_side=self._server_side)
            except ConfigError as error:
                log.error("the new certificate files cannot be used; those before stay in force: %s", error)
            else:
                log.info("new certificate files are in force for connections from now on: %s", names)
        return self._context


def make_context(tls: Tls, *, server_side: bool) -> ssl.SSLContext:
    """TLS 1.2 or later. A client verifies chain and name, a server with `ca` demands a certificate. ConfigError."""
    if tls.key is not None and tls.certificate is None:
        raise ConfigError(f"{tls.key} is a key without a certificate: name the certificate too")
    if server_side and tls.certificate is None:
        raise ConfigError("a server needs a certificate of its own: name certificate, and its key")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER if server_side else ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.options |= ssl.OP_NO_RENEGOTIATION | ssl.OP_NO_COMPRESSION
    if tls.ca is not None:
        try:
            context.load_verify_locations(tls.ca)
        except (ssl.SSLError, OSError) as error:
            raise ConfigError(f"{tls.ca}: no certificates of an authority: {_plain(error)}") from error
        if server_side:
            context.verify_mode = ssl.CERT_REQUIRED
    elif not server_side:
        context.load_default_certs(ssl.Purpose.SERVER_AUTH)
    if server_side:
        # A resumed session would be let in on the word of an authority that may have been replaced since.
        context.options |= ssl.OP_NO_TICKET
        context.num_tickets = 0
    if tls.certificate is not None:
        try:
            context.load_cert_chain(tls.certificate, tls.key, password=_no_password)
        except (ssl.SSLError, OSError) as error:
            pair = f"{tls.certificate}" if tls.key is None else f"{tls.certificate} and {tls.key}"
            raise ConfigError(f"{pair}: no certificate with its key: {_plain(error)}") from error
    return context


def _no_password() -> str:
    """OpenSSL would ask the terminal."""
    raise ConfigError("the key is encrypted, and nobody is asked for its password: keep it plain, for its user only")


def _signature(tls: Tls) -> tuple[tuple[int, int, int] | None, ...]:
    """What changes when a file is written, or another one put in its place."""
    found: list[tuple[int, int, int] | None] = []
    for path in tls.files:
        try:
            status = path.stat()
        except OSError:
            found.append(None)
        else:
            found.append((status.st_mtime_ns, status.st_ino, status.st_size))
    return tuple(found)


def _plain(error: OSError) -> str:
    """The system's words, or OpenSSL's without the place in its source."""
    if isinstance(error, ssl.SSLError):
        return (error.reason or str(error)).replace("_", " ").lower()
    return error.strerror or str(error)
