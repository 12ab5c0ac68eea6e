"""`[cluster]`: how a node finds its stream and its peers. Values only, one table at a time; nothing here does I/O.

What needs the whole file (this node's own name, what it listens on) is judged in `truba.config.load`; what the servers
say of themselves is judged at the start.
"""

from __future__ import annotations

from collections.abc import Iterator
from ipaddress import ip_address
from pathlib import Path
from typing import Annotated
from urllib.parse import urlsplit

from pydantic import Field, model_validator

from truba.address import Address, address, can_be_looked_up
from truba.config.secret import Secret
from truba.config.security import ClusterTls
from truba.config.table import NAME, EnvName, FilePath, LogSize, Table, reader, refusal, shown, text

NATS_PORT = 4222
SECRET_BYTES_MAX = 1024
"""Of the secret that nodes show each other: the door reads no more from a stranger."""
REQUEST_BYTES_MAX = 16 << 20
"""Of a client, in a cluster: with a batch before it, it must fit into one message, and servers take 64 MB at most."""
NODES_MAX = 7
"""More copies make nothing safer: the stream itself has `replicas`."""


def _server(value: object) -> str:
    wanted = '"nats://host:4222" or "tls://host:4222"'
    try:
        parts = urlsplit(value) if isinstance(value, str) else None
        port = parts.port if parts else None
    except ValueError:
        parts = port = None
    if (
        parts is None
        or parts.scheme not in ("nats", "tls")
        or not parts.hostname
        or not can_be_looked_up(parts.hostname)
    ):
        raise ValueError(f"{shown(value)} is not the address of a NATS server", wanted)
    if parts.username is not None:
        raise ValueError("a server's address holds no user", f"{wanted}, and give user and password_file")
    if parts.path not in ("", "/") or parts.query or parts.fragment or port == 0:
        raise ValueError(f"{shown(value)} is not the address of a NATS server", wanted)
    return f"{parts.scheme}://{Address(parts.hostname, port or NATS_PORT)}"


def _dialled(value: object) -> Address:
    """An address that others can connect to."""
    found = address(value)
    if not found.port:
        raise ValueError(f"{value!r} has no port that others could connect to", "the port that is really used")
    try:
        wildcard = ip_address(found.host).is_unspecified
    except ValueError:  # a name
        wildcard = found.host == "*"
    if wildcard:
        what = f"{value!r} is where to listen, not where others can connect"
        raise ValueError(what, "the address that the other nodes reach; what to bind is said by listen, peers_listen")
    return found


def _bound(value: object) -> Address:
    found = address(value)
    if not found.port:
        raise ValueError(f"{value!r} has no port", "the port that the other nodes connect to")
    return found


Reached = Annotated[Address, reader(_dialled)]


class ClusterNode(Table):
    """One node, as the others reach it."""

    clients: Reached
    """Its ordinary address of clients: the others relay to it while it leads."""
    peers: Reached
    """Its peer door."""


class Cluster(Table):
    servers: Annotated[list[Annotated[str, reader(_server)]], Field(min_length=1)]
    stream: Annotated[str, reader(text('a name of letters, digits, "-" and "_"', r"[A-Za-z0-9_-]{1,64}"))] = "truba"
    replicas: Annotated[int, Field(ge=1, le=5)] = 3
    user: Annotated[str | None, reader(text("a name without white space", r"\S+"))] = None
    password_file: FilePath | None = None
    password_env: EnvName | None = None
    credentials_file: FilePath | None = None
    tls_ca_file: FilePath | None = None
    tls_cert_file: FilePath | None = None
    tls_key_file: FilePath | None = None
    system_user: Annotated[str | None, reader(text("a name without white space", r"\S+"))] = None
    system_password_file: FilePath | None = None
    system_password_env: EnvName | None = None
    system_credentials_file: FilePath | None = None
    trust_servers: bool = False
    secret_file: FilePath | None = None
    secret_env: EnvName | None = None
    tls: ClusterTls | None = None
    peers_listen: Annotated[Address | None, reader(_bound)] = None
    keep: LogSize = 2**30
    nodes: Annotated[dict[str, ClusterNode], Field(min_length=1, max_length=NODES_MAX)]

    def door(self, name: str) -> Address:
        """What node `name` binds for its peers."""
        return self.peers_listen or self.nodes[name].peers

    @property
    def subject(self) -> str:
        """The one subject of the stream."""
        return f"{self.stream}.log"

    @model_validator(mode="after")
    def _pairs(self) -> Cluster:
        for user, secret in (("user", "password"), ("system_user", "system_password")):
            where = self.secret(secret)
            if getattr(self, user) is not None and where is None:
                what, instead = f"there is no {secret}_file beside it", f"write {secret}_file too, or remove {user}"
                raise refusal(what, instead, user)
            if getattr(self, user) is None and where is not None:
                given = f"{secret}_env" if where.env else f"{secret}_file"
                raise refusal(f"there is no {user} beside it", f"write {user} too, or remove {given}", given)
        one, other = "tls_cert_file", "tls_key_file"
        for given, missing in ((one, other), (other, one)):
            if getattr(self, given) is not None and getattr(self, missing) is None:
                raise refusal(f"there is no {missing} beside it", f"write {missing} too, or remove {given}", given)
        for user, credentials in (("user", "credentials_file"), ("system_user", "system_credentials_file")):
            if getattr(self, user) is not None and getattr(self, credentials) is not None:
                raise refusal(f"there is a {user} too", "keep one of the two", credentials)
        return self

    @property
    def peers_secret(self) -> Secret:
        """What the nodes show each other."""
        secret = self.secret("secret")
        assert secret is not None  # or the file would have been refused
        return secret

    @model_validator(mode="after")
    def _distinct(self) -> Cluster:
        if len(set(self.servers)) < len(self.servers):
            raise refusal("one server is named twice", "name each once", "servers")
        taken: dict[Address, str] = {}
        for whose, where in self._addresses():
            first = taken.setdefault(where, whose)
            if first != whose:
                raise refusal(f"{where} is both {first} and {whose}", "give each an address of its own", "nodes")
        return self

    def _addresses(self) -> Iterator[tuple[str, Address]]:
        for name, node in self.nodes.items():
            yield f"{name}.clients", node.clients
            yield f"{name}.peers", node.peers

    @model_validator(mode="after")
    def _named(self) -> Cluster:
        for name in self.nodes:
            if not NAME.fullmatch(name):
                raise refusal(f"{name!r} is no name for a node", 'use letters, digits, "-", "_" and "."', "nodes")
        return self

    @property
    def files(self) -> dict[str, Path]:
        """Key -> file, of those that are given."""
        return {key: value for key, value in self if isinstance(value, Path)}

    @property
    def secret_places(self) -> dict[str, Secret]:
        """Key -> where that secret is, of those that are given."""
        found = {name: self.secret(name) for name in ("password", "system_password", "secret")}
        return {f"{name}_env" if one.env else f"{name}_file": one for name, one in found.items() if one is not None}
