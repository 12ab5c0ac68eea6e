"""Reads a configuration file and says everything that is wrong with it at once.

Opens the file itself and the files of secrets that it names, and nothing else: handlers are not tried here, the data
directory is not touched.
"""

from __future__ import annotations

import os
import re
import tomllib
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError

from truba.config.admin import Admin, AdminToken
from truba.config.cluster import REQUEST_BYTES_MAX, SECRET_BYTES_MAX, Cluster, ClusterNode
from truba.config.locate import Lines
from truba.config.locate import Path as Place
from truba.config.model import ROUTES, WEBHOOKS, Config, Frontend, KindTable, Node, WebhookTable
from truba.config.problems import ConfigProblems, Problem
from truba.config.table import Table
from truba.config.units import size_text
from truba.errors import ConfigError
from truba.webhook import Webhook

FILE_BYTES_MAX = 4 << 20  # a configuration is written by hand; whatever is larger was named by mistake
DEPTH_MAX = 32  # the reader of TOML stands some hundreds, and whoever prints a value fewer
# Of dotted keys the reader of TOML keeps every beginning: one of 20,000 parts, in 40 kB, takes 1.6 GB.
_LONG_KEY = re.compile(rf"""^[ \t]*\[*(?:[ \t]*(?:[\w-]+|"[^"\n]*"|'[^'\n]*')[ \t]*\.){{{DEPTH_MAX}}}""", re.MULTILINE)

ADMIN_TOKEN_BYTES_MIN = 16
"""It is compared with a plain hash, so it must be random and long, not a password."""

_QUOTES = 'sizes, times and addresses are written in quotes: "64MiB", "30s", "127.0.0.1:7433"'
_CLUSTER_SECRET = 'write secret_file = "cluster.secret", a file with the same secret on every node'
_CLUSTER_NODES = 'write [cluster.nodes] with a = { clients = "host:7433", peers = "host:7434" } for each'
_FIRST_KIND = """write a table such as [kinds.transfer] with number = 7 and handler = "truba://127.0.0.1:7434\""""


def load(path: Path, *, listen: str | None = None, data: Path | None = None) -> Config:
    """The configuration in a file; `listen` and `data` (against the working directory) overrule it.

    Raises ConfigProblems with all that is wrong. Relative paths in the result are against the file's directory.
    """
    text = _read(path)
    if _LONG_KEY.search(text):
        raise ConfigProblems([_too_deep(path)])
    try:
        document = tomllib.loads(text)
    except ValueError as bad:  # TOMLDecodeError is one; another comes from a number of thousands of digits
        raise ConfigProblems([_syntax(path, text, str(bad))]) from bad
    except RecursionError as bad:
        raise ConfigProblems([_too_deep(path)]) from bad
    if _deeper(document, DEPTH_MAX):
        raise ConfigProblems([_too_deep(path)])
    if isinstance(document.get("node", {}), dict):
        overrules = {"listen": listen, "data": None if data is None else str(data.absolute())}
        document["node"] = document.get("node", {}) | {k: v for k, v in overrules.items() if v is not None}
    lines = Lines(text)
    config: Config | None = None
    found: list[tuple[Place, str, str]] = []
    try:
        config = _resolved(Config.model_validate(document), path.absolute().parent)
    except ValidationError as bad:
        found += map(_explained, bad.errors(include_url=False))
    found += _across(document, lines)
    if config is not None:
        found += _secrets(config)
        found += _clustered(config)
        found += _administered(config)
        found += _unsendable(config)
        found += _torn_secrets(config)
        found += _webhooks(config)
    if found or config is None:
        raise ConfigProblems(
            Problem(path, lines.of(place), ".".join(map(str, place)), what, instead) for place, what, instead in found
        )
    return config


def read_secret(path: Path) -> bytes:
    """The secret in a file: its bytes without the newline at the end. Raises ConfigError when there is none."""
    try:
        secret = path.read_bytes().removesuffix(b"\n").removesuffix(b"\r")
    except OSError as bad:
        raise ConfigError(f"{path} cannot be read: {bad.strerror}") from bad
    if not secret:
        raise ConfigError(f"{path} is empty; write the secret into it")
    return secret


def read_webhook(url: str, table: WebhookTable) -> Webhook:
    """What to post to and to sign with. Raises ConfigError, which shows no secret."""
    match table.secret_file, table.secret_env:
        case None, None:
            raise ConfigError('there is no secret to sign with; write webhook = { secret_file = "transfer.whsec" }')
        case Path() as path, None:
            where, written = str(path), read_secret(path).decode("ascii", "replace")
        case None, str() as name:
            where, written = f"the variable {name}", os.environ.get(name, "")
            if not written.strip():
                raise ConfigError(f"{where} is not set; it holds the secret, whsec_...")
        case _:
            raise ConfigError("there are both secret_file and secret_env; keep one of the two")
    try:
        return Webhook(url, written.split(), table.format, table.ca_file, table.insecure)
    except ConfigError as bad:
        raise ConfigError(f"{bad} ({where})") from None


def _read(path: Path) -> str:
    try:
        if path.stat().st_size > FILE_BYTES_MAX:
            raise ConfigProblems([Problem(path, 0, "", f"larger than {FILE_BYTES_MAX} bytes", "name a TOML file")])
        return path.read_text("utf-8").replace("\r\n", "\n")
    except FileNotFoundError as bad:
        raise ConfigProblems([Problem(path, 0, "", "there is no such file", "name one with --config")]) from bad
    except IsADirectoryError as bad:
        raise ConfigProblems([Problem(path, 0, "", "this is a directory", "name the file inside it")]) from bad
    except PermissionError as bad:
        raise ConfigProblems([Problem(path, 0, "", "this user may not read the file", "")]) from bad
    except OSError as bad:
        raise ConfigProblems([Problem(path, 0, "", f"cannot be read: {bad.strerror}", "")]) from bad
    except UnicodeDecodeError as bad:
        line = bad.object.count(b"\n", 0, bad.start) + 1
        raise ConfigProblems([Problem(path, line, "", "these bytes are not UTF-8", "save the file as UTF-8")]) from bad


def _too_deep(path: Path) -> Problem:
    return Problem(path, 0, "", f"tables and lists are more than {DEPTH_MAX} deep", "no key is deeper than five")


def _deeper(value: object, depth_max: int) -> bool:
    """Whether tables and lists lie in each other more than so deep. In a loop: what is to be found out is too deep."""
    level = [value]
    for _ in range(depth_max + 1):
        level = [inner for outer in level if isinstance(outer, dict | list) for inner in _inside(outer)]
    return bool(level)


def _inside(outer: dict[str, Any] | list[Any]) -> Iterable[object]:
    return outer.values() if isinstance(outer, dict) else outer


def _syntax(path: Path, text: str, message: str) -> Problem:
    what, _, _ = message.partition(" (at ")
    at = re.search(r"at line (\d+)", message)
    written = text.rstrip("\n").split("\n")
    line = int(at[1]) if at else len(written)
    quoted = written[line - 1].strip() if line <= len(written) else ""
    unquoted = re.match(r"[\w.-]+\s*=\s*[^\s\"'\[{#][^\"']*$", quoted)
    return Problem(path, line, "", f"not TOML: {what[:1].lower()}{what[1:]}: {quoted}", _QUOTES if unquoted else "")


def _resolved(config: Config, directory: Path) -> Config:
    def paths(table: Table) -> dict[str, Path]:
        return {name: directory / value for name, value in table if isinstance(value, Path)}

    def kind(table: KindTable) -> KindTable:
        webhook = table.webhook and table.webhook.model_copy(update=paths(table.webhook))
        return table.model_copy(update=paths(table) | {"webhook": webhook})

    kinds = {name: kind(table) for name, table in config.kind_tables.items()}
    node = config.node.model_copy(update=paths(config.node))
    cluster = config.cluster and config.cluster.model_copy(update=paths(config.cluster))
    admin = config.admin and config.admin.model_copy(update=paths(config.admin))
    return config.model_copy(update={"node": node, "cluster": cluster, "admin": admin, "kind_tables": kinds})


def _explained(error: Mapping[str, Any]) -> tuple[Place, str, str]:
    """One of pydantic's errors in our words: place, what is wrong, what to do."""
    place: Place = error["loc"]
    context: dict[str, Any] = error.get("ctx", {})
    written = str(error["input"]).lower() if isinstance(error["input"], bool) else repr(error["input"])
    match error["type"]:
        case "truba":
            return (*place, context["key"]) if context["key"] else place, context["what"], context["instead"]
        case "extra_forbidden":
            known = list(_keys_of(place[:-1]))
            close = get_close_matches(str(place[-1]), known, n=1)
            return place, "unknown key", f'write "{close[0]}"' if close else f"the keys here are: {', '.join(known)}"
        case "missing" if place == ("kinds",):
            return place, "there is no kind", _FIRST_KIND
        case "too_short" if place == ("kinds",):
            return place, "there is no kind", _FIRST_KIND
        case "too_short":
            return place, f"there are no {place[-1]}", "name at least one"
        case "too_long":
            return (
                place,
                f"there are too many {place[-1]}",
                f"name at most {context['max_length']}",
            )
        case "missing" if place == ("cluster", "secret_file"):
            return place[:-1], "secret_file is missing", _CLUSTER_SECRET
        case "missing" if place == ("cluster", "nodes"):
            return place[:-1], "there are no nodes", _CLUSTER_NODES
        case "missing" if place == ("cluster", "servers"):
            return place[:-1], "there are no servers", 'write servers = ["nats://host:4222", ...]'
        case "missing" if place[-1] == "handler":
            routes = " or ".join(f'handler = "{route}"' for route in ROUTES.values())
            return place[:-1], "this kind has no handler", f"write {routes}"
        case "missing" if place[-1] == "number":
            return place[:-1], "this kind has no number", "write number = 7, or any other from 0 to 4294967295"
        case "missing":
            return place[:-1], f"{place[-1]} is missing", f"write {place[-1]} = ..."
        case "greater_than_equal":
            return place, f"{written} is too small", f"write {context['ge']:g} or more"
        case "less_than_equal":
            return place, f"{written} is too large", f"write {context['le']} or less"
        case "int_type" | "int_from_float":
            return place, f"{written} is not a whole number", "write one, without quotes"
        case "float_type" | "finite_number":
            return place, f"{written} is not a number", "write one, without quotes"
        case "literal_error":
            return place, f"{written} will not do", f"write {context['expected'].replace(chr(39), chr(34))}"
        case "model_type" | "dict_type":
            return place, f"{written} is not a table", f"write a table: [{'.'.join(map(str, place))}]"
        case "bool_type":
            return place, f"{written} is neither true nor false", "write one of them, without quotes"
        case "list_type" if place == ("cluster", "servers"):
            return place, f"{written} is not a list", 'write servers = ["nats://host:4222", ...]'
        case "list_type":
            return place, f"{written} is not a list of tables", f"write [[{'.'.join(map(str, place))}]] for each"
        case _:
            return place, str(error["msg"]), ""


def _keys_of(place: Place) -> Iterator[str]:
    """Keys that the table at `place` may have."""
    model: type[BaseModel] = Config
    match place:
        case ("kinds", _, "backoff" | "breaker" as key):
            model = type(KindTable.model_fields[key].default)
        case ("kinds", _, "webhook"):
            model = WebhookTable
        case ("kinds", _):
            model = KindTable
        case ("node",):
            model = Node
        case ("node", "frontends", _):
            model = Frontend
        case ("cluster",):
            model = Cluster
        case ("cluster", "nodes", _):
            model = ClusterNode
        case ("admin",):
            model = Admin
        case ("admin", "tokens", _):
            model = AdminToken
    return (field.alias or name for name, field in model.model_fields.items())


def _across(document: Mapping[str, Any], lines: Lines) -> Iterator[tuple[Place, str, str]]:
    """Problems that show only when the whole file is seen; what is malformed by itself is passed over here."""
    kinds = document.get("kinds")
    tables = (
        {name: table for name, table in kinds.items() if isinstance(table, dict)} if isinstance(kinds, dict) else {}
    )
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
        if scheme == "local" and "handler_secret_file" in table:
            yield (*place, "handler_secret_file"), "a local handler is shown no secret", "remove this key"


def _secrets(config: Config) -> Iterator[tuple[Place, str, str]]:
    files: dict[Place, Path | None] = {("node", "password_file"): config.node.password_file}
    for name, table in config.kind_tables.items():
        files["kinds", name, "handler_secret_file"] = table.handler_secret_file
    if config.cluster is not None:
        files |= {("cluster", key): path for key, path in config.cluster.secret_files.items()}
    if config.admin is not None:
        files["admin", "token_file"] = config.admin.token_file
    for place, path in files.items():
        if path is not None:
            try:
                read_secret(path)
            except ConfigError as bad:
                yield place, str(bad), ""


def _clustered(config: Config) -> Iterator[tuple[Place, str, str]]:
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
    if "request_bytes_max" in node.model_fields_set and node.request_bytes_max > REQUEST_BYTES_MAX:
        what = f"a request of {size_text(node.request_bytes_max)} does not fit into a message of the stream"
        yield ("node", "request_bytes_max"), what, f'write "{size_text(REQUEST_BYTES_MAX)}" or less'
    for key, path in cluster.files.items():
        if key not in cluster.secret_files:
            try:
                with path.open("rb") as file:
                    file.read(1)
            except OSError as bad:
                yield ("cluster", key), f"{path} cannot be read: {bad.strerror}", ""
    with suppress(ConfigError):  # a secret that cannot be read was told of already
        if (size := len(read_secret(cluster.secret_file))) > SECRET_BYTES_MAX:
            what = f"{cluster.secret_file} has {size} bytes"
            yield ("cluster", "secret_file"), what, f"write a secret of at most {SECRET_BYTES_MAX}"


def _administered(config: Config) -> Iterator[tuple[Place, str, str]]:
    """An address of operators that something else has, and tokens that can be guessed."""
    admin = config.admin
    if admin is None:
        return
    if admin.listen.port and admin.listen == config.node.listen:
        yield (
            ("admin", "listen"),
            f"{admin.listen} is what clients are served on",
            "give operators an address of their own",
        )
    if admin.token_file is not None:
        with suppress(ConfigError):  # told of already
            if len(read_secret(admin.token_file)) < ADMIN_TOKEN_BYTES_MIN:
                what = f"the token in {admin.token_file} has fewer than {ADMIN_TOKEN_BYTES_MIN} characters"
                yield ("admin", "token_file"), what, "make one: openssl rand -hex 32"


def _unsendable(config: Config) -> Iterator[tuple[Place, str, str]]:
    """Kinds whose largest record no request could carry."""
    most = config.node.request_bytes_max
    for name, table in config.kind_tables.items():
        if table.record_max > most:
            what = f"a record of {size_text(table.record_max)} does not fit in a request of {size_text(most)}"
            yield ("kinds", name, "record_max"), what, "lower it, or raise request_bytes_max of [node]"


def _torn_secrets(config: Config) -> Iterator[tuple[Place, str, str]]:
    """Kinds that share a handler's address share one connection to it, and so its one secret."""
    first: dict[str, tuple[str, Path | None]] = {}
    for name, table in config.kind_tables.items():
        other, secret = first.setdefault(table.handler, (name, table.handler_secret_file))
        if secret != table.handler_secret_file:
            what = f"kind {other} has the same handler with another handler_secret_file, or with none"
            yield ("kinds", name), what, "give both kinds the same one"


def _webhooks(config: Config) -> Iterator[tuple[Place, str, str]]:
    """Kinds whose sessions are posted: whether everything for it is there, and the same where the address is."""
    first: dict[str, tuple[str, WebhookTable | None]] = {}
    for name, table in config.kind_tables.items():
        place = ("kinds", name)
        posting = config.webhooks.get(table.handler)
        parked_url = table.on_parked if isinstance(table.on_parked, str) else None
        if posting is None and parked_url is None:
            if table.webhook is not None:
                yield (*place, "webhook"), f"{table.handler} is not posted to", "remove this table"
            continue
        if posting is not None and table.handler_secret_file is not None:
            what = "a webhook is shown no secret: what is posted is signed"
            yield (*place, "handler_secret_file"), what, 'write webhook = { secret_file = "..." }'
        other, webhook = first.setdefault(table.handler, (name, table.webhook))
        if posting is not None and webhook != table.webhook:
            yield place, f"kind {other} has the same handler with another webhook table", "give both kinds the same one"
            continue
        try:
            for url in (table.handler if posting is not None else None, parked_url):
                if url is not None:
                    read_webhook(url, table.webhook or WebhookTable())
            if table.webhook is not None and (path := table.webhook.ca_file) is not None:
                with path.open("rb") as file:
                    file.read(1)
        except ConfigError as bad:
            yield (*place, "webhook") if table.webhook else place, str(bad), ""
        except OSError as bad:
            yield (*place, "webhook", "ca_file"), f"{path} cannot be read: {bad.strerror}", ""
