"""The configuration as values: what a file may say, in which units, and what holds where it says nothing.

Every key has a default but a kind's number and handler, and a few of `[cluster]` (`truba.config.cluster`). The models
are strict and frozen and judge one key, or one table, at a time; what needs the whole file (two kinds with one number,
the schemes of routes) is judged in `truba.config.load`, which also resolves paths against the file's directory. Nothing
here does I/O.
"""

from __future__ import annotations

from dataclasses import fields
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from truba.address import Address, address, parse_handler, unix_path
from truba.config.admin import Admin
from truba.config.cluster import Cluster
from truba.config.secret import Secret
from truba.config.security import RouteTls, ServerTls, User
from truba.config.table import (
    MODULE_OBJECT,
    BufferSize,
    Count,
    EnvName,
    FilePath,
    LogSize,
    NodeName,
    ObjectPath,
    Rate,
    SegmentSize,
    Size,
    Table,
    Time,
    TimeAboveZero,
    reader,
    refusal,
    shown,
)
from truba.config.units import size_bytes, size_text
from truba.errors import ConfigError
from truba.kinds import KIND_MAX, Backoff, Breaker, Kind
from truba.tls import Tls
from truba.webhook.settings import Format, wrong_url

MIB = 2**20
ROUTES = {
    "local": "local:package.module:function",
    "truba": "truba://host:port",
    "trubas": "trubas://host:port",
    "unix": "unix:/path/to/socket",
    "https": "https://host/path",
}
"""Schemes of handler routes that need no entry in [transports], each with how it is written."""

WEBHOOKS = ("https", "http")
"""Schemes of routes that are posted to, unless [transports] says otherwise."""


def _address_or_none(value: object) -> Address | None:
    return None if value == "" else address(value)


def _route(value: object) -> str:
    scheme, colon, rest = value.partition(":") if isinstance(value, str) else ("", "", "")
    match scheme:
        case "truba" | "trubas":
            try:
                if rest.startswith("//") and address(rest[2:].rstrip("/")).port:
                    route = f"{scheme}://{address(rest[2:].rstrip('/'))}"
                    parse_handler(route)  # as everybody who goes there will
                    return route
            except (ValueError, ConfigError):
                pass
        case "unix":
            assert isinstance(value, str)  # it has a scheme
            try:
                return f"unix:{unix_path(value)}"
            except ConfigError:
                pass
        case "https" | "http":
            assert isinstance(value, str)  # it has a scheme
            if wrong := wrong_url(value):
                raise ValueError(f"{shown(value)} is not the route of a webhook: {wrong}", 'it as "https://host/path"')
            return value
        case "local":
            if MODULE_OBJECT.fullmatch(rest):
                return f"local:{rest}"
        case _ if colon and rest:
            return f"{scheme}:{rest}"
    raise ValueError(f"{shown(value)} is not the route of a handler", " or ".join(f'"{ROUTES[s]}"' for s in ROUTES))


def _hook(value: object) -> tuple[str, ...] | str:
    if isinstance(value, str) and value.partition(":")[0] in WEBHOOKS:
        return _route(value)
    words = value if isinstance(value, list) else []
    if words and all(isinstance(word, str) and "\0" not in word for word in words) and words[0].startswith("/"):
        return tuple(words)
    raise ValueError(
        f"{value!r} is not a command",
        'its whole path and its arguments: ["/path/to/command", "argument"], or "https://host/path"',
    )


class Frontend(Table):
    """A client protocol of the user's own."""

    factory: ObjectPath
    """`factory(options)` makes a `truba.ports.frontend.Frontend`."""
    options: dict[str, Any] = Field(default={})
    """Handed to the factory as they are."""


class Node(Table):
    data: FilePath = Path("data")
    listen: Annotated[Address | None, reader(_address_or_none)] = Address("127.0.0.1", 7433)
    """None (written ""): no TCP port; then `unix` must be given."""
    unix: FilePath | None = None
    tls: ServerTls | None = None
    """None: the TCP port speaks plain text."""
    insecure: bool = False
    password_file: FilePath | None = None
    password_env: EnvName | None = None
    name: NodeName = "truba"
    grace_max: Time = 300.0
    checkpoint: LogSize = 64 * MIB
    segment: SegmentSize = 32 * MIB
    reserve: Annotated[int, reader(size_bytes)] = 256 * MIB
    backups: FilePath | None = None
    """Where `truba backup` may write while the pipe runs; None: nowhere."""
    connections_max: Count = 10_000
    request_bytes_max: LogSize = 64 * MIB
    output_bytes_max: BufferSize = MIB
    stop_timeout: Time = 10.0
    log_level: Literal["debug", "info", "warning", "error"] = "info"
    log_format: Literal["auto", "console", "json"] = "auto"
    authenticator: ObjectPath | None = None
    frontends: list[Frontend] = Field(default=[])

    @model_validator(mode="after")
    def _reachable(self) -> Node:
        if self.listen is None and self.unix is None and not self.frontends:
            raise refusal("nothing to listen on", "give listen an address, or give unix a path", "listen")
        return self

    @model_validator(mode="after")
    def _one_authentication(self) -> Node:
        if self.authenticator and (password := self.secret("password")):
            key = "password_env" if password.env else "password_file"
            raise refusal(f"there is a {key} too", "keep one of the two", "authenticator")
        return self


_KIND: dict[str, Any] = {field.name: field.default for field in fields(Kind)}
_BACKOFF: dict[str, Any] = {field.name: field.default for field in fields(Backoff)}
_BREAKER: dict[str, Any] = {field.name: field.default for field in fields(Breaker)}


class BackoffTable(Table):
    base: Time = _BACKOFF["base_s"]
    factor: Annotated[float, Field(ge=1, allow_inf_nan=False)] = _BACKOFF["factor"]
    cap: Time = _BACKOFF["cap_s"]


class BreakerTable(Table):
    failures: Annotated[int, Field(ge=0)] = _BREAKER["failures"]
    open_for: Time = _BREAKER["open_for_s"]
    cap: Time = _BREAKER["cap_s"]


class WebhookTable(Table):
    """How to post to a kind's handler; see `truba.webhook.Webhook`."""

    secret_file: FilePath | None = None
    secret_env: EnvName | None = None
    format: Format = "json"
    ca_file: FilePath | None = None
    certificate_file: FilePath | None = None
    key_file: FilePath | None = None
    insecure: bool = False


class KindTable(Table):
    """`[kinds.NAME]`; the defaults are those of `truba.Kind`."""

    number: Annotated[int, Field(ge=0, le=KIND_MAX)]
    handler: Annotated[str, reader(_route)]
    handler_secret_file: FilePath | None = None
    handler_secret_env: EnvName | None = None
    tls: RouteTls | None = None
    webhook: WebhookTable | None = None
    recovery_delay: Time = _KIND["recovery_delay_s"]
    jitter: Time = _KIND["jitter_s"]
    backoff: BackoffTable = BackoffTable()
    max_attempts: Annotated[int, Field(ge=0)] = _KIND["max_attempts"]
    max_age: Time = _KIND["max_age_s"]
    handler_timeout: TimeAboveZero = _KIND["handler_timeout_s"]
    idle_timeout: TimeAboveZero = _KIND["idle_timeout_s"]
    concurrency: Count = _KIND["concurrency"]
    rate: Rate | None = _KIND["rate_per_s"]
    breaker: BreakerTable = BreakerTable()
    on_parked: Annotated[tuple[str, ...] | str | None, reader(_hook)] = _KIND["on_parked"]
    record_max: Size = _KIND["record_bytes_max"]
    session_max: Size = _KIND["session_bytes_max"]
    records_max: Count = _KIND["session_records_max"]
    codec: ObjectPath | None = None
    """A `truba.ports.records.Codec`, loaded by `truba.configured.kinds_of`."""

    @model_validator(mode="after")
    def _fits(self) -> KindTable:
        if self.record_max > self.session_max:
            what = (
                f"a record of {size_text(self.record_max)} does not fit in a session of {size_text(self.session_max)}"
            )
            raise refusal(what, "raise session_max or lower record_max", "record_max")
        return self

    def kind(self, name: str) -> Kind:
        """Without its codec: to have that is I/O."""
        return Kind(
            number=self.number,
            name=name,
            handler=self.handler,
            recovery_delay_s=self.recovery_delay,
            jitter_s=self.jitter,
            backoff=Backoff(self.backoff.base, self.backoff.factor, self.backoff.cap),
            max_attempts=self.max_attempts,
            max_age_s=self.max_age,
            handler_timeout_s=self.handler_timeout,
            idle_timeout_s=self.idle_timeout,
            concurrency=self.concurrency,
            record_bytes_max=self.record_max,
            session_bytes_max=self.session_max,
            session_records_max=self.records_max,
            rate_per_s=self.rate,
            on_parked=self.on_parked,
            breaker=Breaker(self.breaker.failures, self.breaker.open_for, self.breaker.cap),
        )


class Config(Table):
    """A whole configuration, ready for `truba.service.serve`."""

    node: Node = Node()
    cluster: Cluster | None = None
    """None: a single node."""
    admin: Admin | None = None
    """None: no address of operators."""
    transports: dict[str, ObjectPath] = Field(default={})
    """Scheme of a route -> `truba.ports.transport.Transport`."""
    users: dict[str, User] = Field(default={})
    """None: who may do what is not asked, or another authenticator says it."""
    kind_tables: dict[str, KindTable] = Field(alias="kinds", min_length=1)

    @cached_property
    def kinds(self) -> tuple[Kind, ...]:
        """In order of number, without their codecs."""
        return tuple(sorted((table.kind(name) for name, table in self.kind_tables.items()), key=lambda k: k.number))

    @property
    def audit_path(self) -> Path:
        """Of the audit log."""
        return (self.admin and self.admin.audit) or self.node.data / "audit.jsonl"

    @property
    def handler_secrets(self) -> dict[str, Secret]:
        """Route, as in `Kind.handler` -> where the secret is that the pipe shows to the handler."""
        found = {table.handler: table.secret("handler_secret") for table in self.kind_tables.values()}
        return {route: secret for route, secret in found.items() if secret is not None}

    @property
    def handler_tls(self) -> dict[str, Tls]:
        """`trubas://` route -> its files."""
        return {
            table.handler: (table.tls or RouteTls()).files
            for table in self.kind_tables.values()
            if table.handler.startswith("trubas:")
        }

    @property
    def webhooks(self) -> dict[str, WebhookTable]:
        """Route -> how to post to it, of the kinds whose handler is a webhook; see `read_webhook`."""
        return {
            table.handler: table.webhook or WebhookTable()
            for table in self.kind_tables.values()
            if (scheme := table.handler.partition(":")[0]) in WEBHOOKS and scheme not in self.transports
        }

    @property
    def parked_webhooks(self) -> dict[str, tuple[str, WebhookTable]]:
        """Kind's name -> where it is posted that a session was parked, and how."""
        return {
            name: (table.on_parked, table.webhook or WebhookTable())
            for name, table in self.kind_tables.items()
            if isinstance(table.on_parked, str)
        }
