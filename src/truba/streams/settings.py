"""What an operator says about the NATS servers and the stream. Values only: connects to nothing, imports no NATS."""

from __future__ import annotations

import re
import ssl
from dataclasses import dataclass, field
from pathlib import Path

from truba.errors import ConfigError


@dataclass(frozen=True, slots=True)
class JetStreamSettings:
    """Where the stream is, who we are there, and how long we wait."""

    servers: tuple[str, ...]
    """`nats://host:port` or `tls://host:port`, several of one cluster."""
    stream: str = "truba"
    replicas: int = 3
    user: str | None = None
    password: str | None = field(default=None, repr=False)
    credentials_file: Path | None = None
    """A NATS .creds file, instead of user and password."""
    tls_ca_file: Path | None = None
    """Whom to believe, for tls:// servers; None: the machine's own authorities."""
    tls_cert_file: Path | None = None
    tls_key_file: Path | None = None
    system_user: str | None = None
    """A user of NATS' system account: only it can see whether the servers sync what they store."""
    system_password: str | None = field(default=None, repr=False)
    system_credentials_file: Path | None = None
    """A .creds file of such a user, instead of system_user and its password."""
    trust_servers: bool = False
    """Take the operator's word where the servers' own settings cannot be seen, or let anybody in."""
    publish_timeout_s: float = 1.0
    """An answer takes milliseconds; one that takes longer will mostly not come, as the leader is gone."""
    request_timeout_s: float = 2.0
    connect_timeout_s: float = 10.0
    heartbeat_s: float = 0.5
    """How often an idle stream proves to a tail that it is up."""
    tail_bytes_max: int = 64 << 20
    """What a tail may hold that nobody has taken. The servers' flow control keeps it below 32 MiB."""

    def __post_init__(self) -> None:
        if not self.servers:
            raise ConfigError("no NATS server is named; write servers = [ 'nats://host:4222', ... ]")
        if not re.fullmatch(r"[A-Za-z0-9_-]{1,64}", self.stream):
            raise ConfigError(f"stream {self.stream!r}: a name is made of letters, digits, '-' and '_'")
        if (self.user is None) != (self.password is None):
            raise ConfigError("user and password of NATS go together")
        if self.user is not None and self.credentials_file is not None:
            raise ConfigError("NATS takes a user with a password, or a credentials file, not both")
        if (self.system_user is None) != (self.system_password is None):
            raise ConfigError("system_user and its password go together")
        if self.system_user is not None and self.system_credentials_file is not None:
            raise ConfigError("NATS takes a system_user with a password, or a system_credentials_file, not both")
        if (self.tls_cert_file is None) != (self.tls_key_file is None):
            raise ConfigError("a TLS certificate and its key go together")

    @property
    def subject(self) -> str:
        """The one subject of the stream."""
        return f"{self.stream}.log"

    @property
    def system(self) -> str | None:
        """Who asks the servers about themselves, in the words of the configuration; None: nobody."""
        if self.system_credentials_file is not None:
            return f"system_credentials_file {self.system_credentials_file}"
        return None if self.system_user is None else f"system_user {self.system_user!r}"

    @property
    def inbox(self) -> str:
        """What all that we subscribe to begins with, so that one permission covers it and others can be kept out."""
        return f"_INBOX_{self.stream}"

    def tls(self) -> ssl.SSLContext | None:
        """None: no server is a tls:// one and no file is named. ConfigError: a file cannot be used."""
        secure = any(server.startswith("tls://") for server in self.servers)
        if not secure and self.tls_ca_file is None and self.tls_cert_file is None:
            return None
        try:
            context = ssl.create_default_context(cafile=self.tls_ca_file)
            if self.tls_cert_file is not None:
                context.load_cert_chain(self.tls_cert_file, self.tls_key_file)
        except OSError as error:  # SSLError is one
            named = [str(path) for path in (self.tls_ca_file, self.tls_cert_file, self.tls_key_file) if path]
            raise ConfigError(f"TLS for NATS: {error} ({', '.join(named)})") from error
        return context
