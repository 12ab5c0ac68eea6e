"""From a configuration to what it names: what `truba serve` has in common for one node, for a cluster's, and for a node
that takes another configuration while it goes on.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from truba.auth import SharedPassword
from truba.compose import default_transports, posting_hooks
from truba.config import Config, read_webhook
from truba.config.security import ALL_KINDS
from truba.errors import ConfigError
from truba.frontends.listening import Listen
from truba.kinds import Kind
from truba.ports.audit import AuditLog
from truba.ports.auth import Authenticator
from truba.ports.parked import HookMaker
from truba.ports.records import Codec, is_codec
from truba.ports.transport import Transport
from truba.protocols import resp
from truba.rights import expand
from truba.tls import Contexts
from truba.transports.local import load_object
from truba.users import User, Users
from truba.wire.connection import WireSettings


def settings_of(config: Config, audit: AuditLog) -> WireSettings:
    authenticator: Authenticator | None = None
    if config.node.authenticator is not None:
        authenticator = load_object(config.node.authenticator)
    elif config.users:
        authenticator = Users(users_of(config))
    elif (password := config.node.secret("password")) is not None:
        authenticator = SharedPassword(password.text())
    return WireSettings(
        parser=resp.Limits(request_bytes_max=config.node.request_bytes_max),
        output_bytes_max=config.node.output_bytes_max,
        authenticator=authenticator,
        audit=audit,
    )


def kinds_of(config: Config) -> tuple[Kind, ...]:
    """In order of number, with the codecs that the file names. ConfigError: one cannot be had, or is none."""

    def whole(kind: Kind) -> Kind:
        path = config.kind_tables[kind.name].codec
        try:
            return kind if path is None else replace(kind, codec=load_codec(path))
        except ConfigError as error:
            raise ConfigError(f"kind {kind.name!r}: codec {error}") from error

    return tuple(map(whole, config.kinds))


def load_codec(path: str) -> Codec[Any]:
    """`package.module:name`. ConfigError."""
    found = load_object(path)
    if isinstance(found, type):
        raise ConfigError(f"{path!r} is a class: name an object of it")
    if not is_codec(found):
        raise ConfigError(f"{path!r} is no codec: it lacks encode, decode or shown (truba.ports.records)")
    codec: Codec[Any] = found
    return codec


def listen_of(config: Config) -> Listen:
    return Listen(
        tcp=None if config.node.listen is None else str(config.node.listen),
        unix=config.node.unix,
        connections_max=config.node.connections_max,
        tls=None if config.node.tls is None else Contexts(config.node.tls.files, server_side=True),
    )


def users_of(config: Config) -> list[User]:
    numbers = {name: table.number for name, table in config.kind_tables.items()}
    users: list[User] = []
    for name, table in config.users.items():
        rights: dict[str, set[int] | None] = {}
        for right in table.rights:
            everywhere = ALL_KINDS in right.kinds
            for verb in expand(right.verbs):
                before = rights.setdefault(verb, set())
                if everywhere:
                    rights[verb] = None
                elif before is not None:
                    before.update(numbers[kind] for kind in right.kinds)
        users.append(User(name, rights, password_hash=table.read_hash(), certificate=table.certificate))
    return users


def transports_of(config: Config, settings: WireSettings) -> Mapping[str, Transport]:
    shown = {route: secret.text() for route, secret in config.handler_secrets.items()}
    contexts = {route: Contexts(tls, server_side=False) for route, tls in config.handler_tls.items()}
    own: dict[str, Transport] = {scheme: load_object(path) for scheme, path in config.transports.items()}
    webhooks = {route: read_webhook(route, table) for route, table in config.webhooks.items()}
    return default_transports(shown, settings, contexts, webhooks) | own


def hook_makers_of(config: Config) -> Mapping[str, HookMaker]:
    numbers = {kind.name: kind.number for kind in config.kinds}
    return posting_hooks(
        {numbers[name]: read_webhook(url, table) for name, (url, table) in config.parked_webhooks.items()}
    )


def ways_of(config: Config, kinds: Sequence[Kind]) -> Mapping[int, object]:
    """By kind: all that decides how its handler is reached, secrets included. Equal: the same route will do. `kinds`:
    as `kinds_of` has them."""
    shown = {route: secret.text() for route, secret in config.handler_secrets.items()}
    webhooks = {route: read_webhook(route, table) for route, table in config.webhooks.items()}
    found: dict[int, object] = {}
    for kind in kinds:
        route = str(kind.handler)
        scheme = route.partition(":")[0]
        together = tuple(other for other in kinds if other.handler == kind.handler)
        known = scheme in ("local", "truba", "trubas", "unix") and scheme not in config.transports
        # A route that is posted to, or of the user's own, was made for these kinds as they were.
        made_for = tuple(other.number for other in together) if known else together
        found[kind.number] = (
            route,
            shown.get(route),
            config.handler_tls.get(route),
            webhooks.get(route),
            config.transports.get(scheme),
            made_for,
        )
    return found
