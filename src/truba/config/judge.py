"""What is wrong with a configuration as a whole, though each of its tables is well formed by itself.

Each function looks for one thing and yields place, what is wrong, what to do. Reads the files that the configuration
names (secrets, certificates) and nothing else.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import suppress
from difflib import get_close_matches
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from truba.address import Address, is_local, parse_handler, without_user
from truba.config.cluster import REQUEST_BYTES_MAX, SECRET_BYTES_MAX
from truba.config.locate import Lines
from truba.config.locate import Path as Place
from truba.config.model import ROUTES, WEBHOOKS, Config, KindTable, WebhookTable
from truba.config.secret import Secret
from truba.config.security import ALL_KINDS
from truba.config.table import NAME, Table
from truba.config.units import size_text
from truba.config.webhooks import read_webhook
from truba.errors import ConfigError
from truba.tls import Tls
from truba.tls.files import make_context

Found = tuple[Place, str, str]


def whole(config: Config) -> Iterator[Found]:
    """All of the following but `across`, which can be asked of a file that is not well formed too."""
    for judge in (
        unreadable, certificates, backed_up, users, routes, unencrypted, clustered, administered, unsendable, webhooks,
    ):  # fmt: skip
        yield from judge(config)


def across(document: Mapping[str, Any], lines: Lines) -> Iterator[Found]:
    """Problems that show only when the whole file is seen; what is malformed by itself is passed over here."""
    kinds = document.get("kinds")
    tables = (
        {name: table for name, table in kinds.items() if isinstance(table, dict)} if isinstance(kinds, dict) else {}
    )
    cluster = document.get("cluster")
    if isinstance(cluster, dict) and not {"secret_file", "secret_env"} & cluster.keys():
        what, instead = "secret_file is missing", "a file with the same secret on every node"
        yield ("cluster",), what, f'write secret_file = "cluster.secret", {instead}'
    transports = document.get("transports")
    schemes = {*ROUTES, *WEBHOOKS, *(transports if isinstance(transports, dict) else {})}
    holders: dict[int, str] = {}
    for name, table in tables.items():
        place = ("kinds", name)
        if not name or name.isdecimal() or not all(c.isalnum() or c in "-_." for c in name):
            yield place, f"{name!r} is no name for a kind", "use letters, digits, '-', '_' and '.', not only digits"
        number, route = table.get("number"), table.get("handler")
        if isinstance(number, int) and not isinstance(number, bool):
            first = holders.setdefault(number, name)
            if first != name:
                other = f"kind {first} on line {lines.of(('kinds', first, 'number'))} has it"
                yield (*place, "number"), f"{number} is taken: {other}", "write another number"
        scheme = route.partition(":")[0] if isinstance(route, str) and ":" in route else None
        if scheme and scheme not in schemes:
            known = " or ".join(f'"{route}"' for route in ROUTES.values())
            instead = f'write {known}, or name a transport: [transports] {scheme} = "package.module:factory"'
            yield (*place, "handler"), f"{scheme!r} is not a scheme of routes", instead
        for key in ("handler_secret_file", "handler_secret_env"):
            if scheme == "local" and key in table:
                yield (*place, key), "a local handler is shown no secret", "remove this key"
        if scheme != "trubas" and "tls" in table:
            yield (
                (*place, "tls"),
                "TLS is for routes that say so",
                'write handler = "trubas://host:port", or remove tls',
            )


def unreadable(config: Config) -> Iterator[Found]:
    """Secrets that cannot be read."""

    def of(place: Place, table: Table, name: str) -> None:
        if (secret := table.secret(name)) is not None:
            places[*place, f"{name}_env" if secret.env else f"{name}_file"] = secret

    places: dict[Place, Secret] = {}
    of(("node",), config.node, "password")
    for name, table in config.kind_tables.items():
        of(("kinds", name), table, "handler_secret")
    if config.admin is not None:
        of(("admin",), config.admin, "token")
    if config.cluster is not None:
        places |= {("cluster", key): secret for key, secret in config.cluster.secret_places.items()}
    for place, secret in places.items():
        try:
            secret.read()
        except ConfigError as bad:
            yield place, str(bad), ""


def certificates(config: Config) -> Iterator[Found]:
    """Files of TLS that cannot be used."""
    wanted: list[tuple[Place, Tls, bool]] = []
    if config.node.tls is not None:
        wanted.append((("node", "tls"), config.node.tls.files, True))
    if config.admin is not None and config.admin.tls is not None:
        wanted.append((("admin", "tls"), config.admin.tls.files, True))
    if config.cluster is not None and config.cluster.tls is not None:
        wanted.append((("cluster", "tls"), config.cluster.tls.files, True))
    wanted += [(("kinds", name, "tls"), t.tls.files, False) for name, t in config.kind_tables.items() if t.tls]
    for place, tls, server_side in wanted:
        try:
            make_context(tls, server_side=server_side)
        except ConfigError as bad:
            yield place, str(bad), ""


def backed_up(config: Config) -> Iterator[Found]:
    """Backups among what they are of: whoever prunes the ones would meet the other."""
    if config.node.backups is not None:
        data, backups = (Path(os.path.realpath(path)) for path in (config.node.data, config.node.backups))
        if data.is_relative_to(backups) or backups.is_relative_to(data):
            what = f"{backups} and the data directory {data} lie in each other"
            yield ("node", "backups"), what, "name a directory beside it, best on another disk"


def users(config: Config) -> Iterator[Found]:
    node, users = config.node, config.users
    for key in ("authenticator", "password_file", "password_env"):
        if users and getattr(node, key) is not None:
            yield ("node", key), "there are [users] too", "keep one of the two"
    named: dict[str, str] = {}
    for name, user in users.items():
        place = ("users", name)
        if not NAME.fullmatch(name):
            yield place, f"{name!r} is no name for a user", 'use letters, digits, "-", "_" and "."'
        try:
            user.read_hash()
        except ConfigError as bad:
            key = "password_hash_env" if user.password_hash_env else "password_hash_file"
            yield (*place, key), str(bad), ""
        if user.certificate is not None:
            first = named.setdefault(user.certificate, name)
            if first != name:
                yield (*place, "certificate"), f"user {first} has it too", "write another name"
            if node.tls is None or node.tls.client_ca is None:
                what, instead = "nobody asks clients for certificates", "write client_ca in [node.tls]"
                yield (*place, "certificate"), what, instead
        for at, right in enumerate(user.rights):
            for kind in right.kinds:
                if kind != ALL_KINDS and kind not in config.kind_tables:
                    close = get_close_matches(kind, config.kind_tables, n=1)
                    instead = f'write "{close[0]}"' if close else f"the kinds are: {', '.join(config.kind_tables)}"
                    yield (*place, "rights", at, "kinds"), f"there is no kind {kind!r}", f'{instead}; "*" is all kinds'


def routes(config: Config) -> Iterator[Found]:
    """Kinds that share a handler's address share one connection to it, and so what is shown on it."""
    first: dict[str, tuple[str, KindTable]] = {}
    for name, table in config.kind_tables.items():
        other, before = first.setdefault(table.handler, (name, table))
        if before.secret("handler_secret") != table.secret("handler_secret"):
            what = f"kind {other} has the same handler with another handler_secret_file, or with none"
            yield ("kinds", name), what, "give both kinds the same one"
        if before.tls != table.tls:
            what = f"kind {other} has the same handler with another tls, or with none"
            yield ("kinds", name), what, "give both kinds the same one"


def plain_places(config: Config) -> Iterator[tuple[Place, str]]:
    """Where plain text leaves this machine: the key, and the address."""
    node, cluster = config.node, config.cluster
    if node.listen is not None and node.tls is None and not is_local(node.listen.host):
        yield ("node", "listen"), str(node.listen)
    for name, table in config.kind_tables.items():
        if table.handler.startswith("truba:"):
            where = parse_handler(table.handler)
            if isinstance(where, Address) and not is_local(where.host):
                yield ("kinds", name, "handler"), table.handler
    if config.admin is not None and config.admin.tls is None and not is_local(config.admin.listen.host):
        yield ("admin", "listen"), str(config.admin.listen)
    if cluster is None:
        return
    if cluster.tls is None:
        doors = [each.peers for each in cluster.nodes.values()]
        doors += [cluster.peers_listen] if cluster.peers_listen is not None else []
        if far := [f"{door}" for door in doors if not is_local(door.host)]:
            yield ("cluster",), f"peers at {', '.join(far)}"
    if not (cluster.tls_ca_file or cluster.tls_cert_file):
        for at, server in enumerate(cluster.servers):
            parts = urlsplit(server)
            if parts.scheme == "nats" and not is_local(parts.hostname or ""):
                yield ("cluster", "servers", at), server


_TLS_INSTEAD = {
    "node": "write [node.tls] with certificate and key",
    "kinds": 'write handler = "trubas://..."',
    "admin": "write [admin.tls] with certificate and key",
    "cluster": 'write [cluster.tls] with ca, certificate and key; servers = ["tls://..."]',
}


def unencrypted(config: Config) -> Iterator[Found]:
    if not config.node.insecure:
        for place, where in plain_places(config):
            what = f"{where}: plain text beyond this machine, for everybody on the way to read"
            instead = f"{_TLS_INSTEAD[str(place[0])]}; or, on a network that you trust, insecure = true in [node]"
            yield place, what, instead


def clustered(config: Config) -> Iterator[Found]:
    """What [cluster] asks of the rest of the file, and of the files that it names."""
    cluster, node = config.cluster, config.node
    if cluster is None:
        return
    if node.backups is not None:
        what = "a node of a cluster makes no backups while it runs"
        yield ("node", "backups"), what, "remove this key: stop a node, and use truba backup --data"
    if node.name not in cluster.nodes:
        known = " or ".join(f'name = "{name}"' for name in cluster.nodes)
        yield ("node", "name"), f"[cluster.nodes] has no {node.name!r}", f"write {known} in [node]"
    elif cluster.door(node.name) == node.listen:
        what = f"{node.listen} is what clients are served on"
        yield ("cluster", "peers_listen"), what, "give the peers an address of their own"
    if node.listen is None:
        what = "the other nodes relay clients to this one over TCP"
        yield ("node", "listen"), what, 'give it an address, such as "0.0.0.0:7433"'
    if node.tls is not None and cluster.tls is None:
        what = "the nodes relay clients to each other in TLS, and none of them knows whom to believe"
        yield ("cluster",), what, "write [cluster.tls] with ca, certificate and key"
    if "request_bytes_max" in node.model_fields_set and node.request_bytes_max > REQUEST_BYTES_MAX:
        what = f"a request of {size_text(node.request_bytes_max)} does not fit into a message of the stream"
        yield ("node", "request_bytes_max"), what, f'write "{size_text(REQUEST_BYTES_MAX)}" or less'
    for key, path in cluster.files.items():
        if key not in cluster.secret_places:
            try:
                with path.open("rb") as file:
                    file.read(1)
            except OSError as bad:
                yield ("cluster", key), f"{path} cannot be read: {bad.strerror}", ""
    with suppress(ConfigError):  # a secret that cannot be read was told of already
        if (size := len(cluster.peers_secret.read())) > SECRET_BYTES_MAX:
            key = "secret_env" if cluster.secret_env else "secret_file"
            what = f"{cluster.peers_secret} has {size} bytes"
            yield ("cluster", key), what, f"write a secret of at most {SECRET_BYTES_MAX}"


ADMIN_TOKEN_BYTES_MIN = 16
"""It is compared with a plain hash, so it must be random and long, not a password."""


def administered(config: Config) -> Iterator[Found]:
    """An address of operators that something else has, and tokens that can be guessed."""
    admin = config.admin
    if admin is None:
        return
    if admin.listen.port and admin.listen == config.node.listen:
        what = f"{admin.listen} is what clients are served on"
        yield ("admin", "listen"), what, "give operators an address of their own"
    if (token := admin.secret("token")) is not None:
        with suppress(ConfigError):  # told of already
            if len(token.read()) < ADMIN_TOKEN_BYTES_MIN:
                what = f"the token in {token} has fewer than {ADMIN_TOKEN_BYTES_MIN} characters"
                key = "token_env" if token.env else "token_file"
                yield ("admin", key), what, "make one: openssl rand -hex 32"


def unsendable(config: Config) -> Iterator[Found]:
    """Kinds whose largest record no request could carry."""
    most, instead = config.node.request_bytes_max, "lower it, or raise request_bytes_max of [node]"
    if config.cluster is not None and most >= REQUEST_BYTES_MAX:
        most, instead = REQUEST_BYTES_MAX, "lower it: in a cluster no request is larger"
    for name, table in config.kind_tables.items():
        if table.record_max > most:
            what = f"a record of {size_text(table.record_max)} does not fit in a request of {size_text(most)}"
            yield ("kinds", name, "record_max"), what, instead


def webhooks(config: Config) -> Iterator[Found]:
    """Kinds whose sessions are posted: whether everything for it is there, and the same where the address is."""
    first: dict[str, tuple[str, WebhookTable | None]] = {}
    for name, table in config.kind_tables.items():
        place = ("kinds", name)
        posting = config.webhooks.get(table.handler)
        parked_url = table.on_parked if isinstance(table.on_parked, str) else None
        if posting is None and parked_url is None:
            if table.webhook is not None:
                yield (*place, "webhook"), f"{without_user(table.handler)} is not posted to", "remove this table"
            continue
        if posting is not None and (shown := table.secret("handler_secret")) is not None:
            what = "a webhook is shown no secret: what is posted is signed"
            key = "handler_secret_env" if shown.env else "handler_secret_file"
            yield (*place, key), what, 'write webhook = { secret_file = "..." }'
        other, webhook = first.setdefault(table.handler, (name, table.webhook))
        if posting is not None and webhook != table.webhook:
            yield place, f"kind {other} has the same handler with another webhook table", "give both kinds the same one"
            continue
        try:
            for url in (table.handler if posting is not None else None, parked_url):
                if url is not None:
                    read_webhook(url, table.webhook or WebhookTable())
            if (table.webhook or WebhookTable()).key_file and not (table.webhook or WebhookTable()).certificate_file:
                yield (*place, "webhook", "key_file"), "there is no certificate_file beside it", "write both"
            for key in ("ca_file", "certificate_file", "key_file"):
                if (path := getattr(table.webhook, key, None)) is not None:
                    with path.open("rb") as file:
                        file.read(1)
        except ConfigError as bad:
            yield (*place, "webhook") if table.webhook else place, str(bad), ""
        except OSError as bad:
            yield (*place, "webhook", key), f"{path} cannot be read: {bad.strerror}", ""
