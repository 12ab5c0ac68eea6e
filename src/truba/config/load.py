"""Reads a configuration file and says everything that is wrong with it at once.

Opens the file itself and the files of secrets that it names, and nothing else: handlers are not tried here, the data
directory is not touched.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterable, Iterator, Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError

from truba.config import judge
from truba.config.admin import Admin, AdminToken
from truba.config.cluster import Cluster, ClusterNode
from truba.config.locate import STRING, Lines
from truba.config.locate import Path as Place
from truba.config.model import ROUTES, Config, Frontend, KindTable, Node, WebhookTable
from truba.config.problems import ConfigProblems, Problem
from truba.config.security import ClusterTls, Right, RouteTls, ServerTls, User
from truba.config.table import Table, shown

_SECRET_KEY = re.compile(r"pass|secret|token|hash|cred", re.IGNORECASE)
"""What stands under such a key may be a secret, whether it should or not, and is not shown."""

FILE_BYTES_MAX = 1 << 20
"""A configuration is written by hand, and whatever is larger was named by mistake."""

DEPTH_MAX = 16
"""Of tables and lists in each other, and of parts in a dotted key. The reader of TOML stands some hundreds of the ones,
but keeps every beginning of the others: a key of 20,000 parts, in 40 kB, takes 1.6 GB."""

_PART = rf"(?>[\w-]+|{STRING.pattern})"
_DOTTED = re.compile(rf"#[^\n]*|(?P<long>{_PART}(?:[ \t]*\.[ \t]*{_PART}){{{DEPTH_MAX}}})|{_PART}", re.DOTALL)
"""Comments, strings and words, one after the other; `long` where dots join more of them than a key may have."""

_UNQUOTED = {
    "Cannot declare": "this table was declared before",
    "Cannot mutate immutable namespace": "this table is complete, and takes no more keys",
    "Cannot redefine namespace": "this table was defined before",
    "Duplicate inline table key": "this key was written before",
    "Illegal character": "a character that may not stand here",
    "Found invalid character": "a character that may not stand here",
}
"""What the reader of TOML says with a part of the file in it, and what to say instead: a file that was named by mistake
may be a secret as a whole."""

_QUOTES = 'sizes, times and addresses are written in quotes: "64MiB", "30s", "127.0.0.1:7433"'
_CLUSTER_NODES = 'write [cluster.nodes] with a = { clients = "host:7433", peers = "host:7434" } for each'
_FIRST_KIND = """write a table such as [kinds.transfer] with number = 7 and handler = "truba://127.0.0.1:7434\""""


def load(path: Path, *, listen: str | None = None, data: Path | None = None, insecure: bool = False) -> Config:
    """The configuration in a file; `listen`, `data` (against the working directory) and `insecure` overrule it.

    Raises ConfigProblems with all that is wrong. Relative paths in the result are against the file's directory.
    """
    text = _read(path)
    if any(found["long"] for found in _DOTTED.finditer(text)):
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
        overrules = {
            "listen": listen, "data": None if data is None else str(data.absolute()), "insecure": insecure or None,
        }  # fmt: skip
        document["node"] = document.get("node", {}) | {k: v for k, v in overrules.items() if v is not None}
    lines = Lines(text)
    config: Config | None = None
    found: list[tuple[Place, str, str]] = []
    try:
        config = _resolved(Config.model_validate(document), path.absolute().parent)
    except ValidationError as bad:
        found += map(_explained, bad.errors(include_url=False))
    found += judge.across(document, lines)
    if config is not None:
        found += judge.whole(config)
    if found or config is None:
        raise ConfigProblems(
            Problem(path, lines.of(place), ".".join(map(str, place)), what, instead) for place, what, instead in found
        )
    return config


def _read(path: Path) -> str:
    try:
        with path.open("rb") as file:
            content = file.read(FILE_BYTES_MAX + 1)  # of a pipe or a device nothing tells the size beforehand
        if len(content) > FILE_BYTES_MAX:
            raise ConfigProblems([Problem(path, 0, "", f"larger than {FILE_BYTES_MAX} bytes", "name a TOML file")])
        return content.decode("utf-8").replace("\r\n", "\n")
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
    """`message`: of the reader of TOML."""
    told = re.fullmatch(r"(.*) \(at (?:line (\d+), column (\d+)|end of document)\)", message, re.DOTALL)
    if told is None:  # Python's own, of a number with thousands of digits
        return Problem(path, 0, "", "not TOML: a number that is too long", "no value here is so large")
    what = told[1]
    written = text.rstrip("\n").split("\n")
    line, column = (int(told[2]), int(told[3])) if told[2] else (len(written), len(written[-1]) + 1)
    what = next((said for begins, said in _UNQUOTED.items() if what.startswith(begins)), what[:1].lower() + what[1:])
    unquoted = line <= len(written) and re.match(r"\s*[\w.-]+\s*=\s*[^\s\"'\[{#][^\"']*$", written[line - 1])
    return Problem(path, line, "", f"not TOML: {what}", _QUOTES if unquoted else "", column)


def _resolved(config: Config, directory: Path) -> Config:
    def against(value: Any) -> Any:
        match value:
            case Path():
                return directory / value
            case Table():
                changed = {name: against(inner) for name, inner in value if isinstance(inner, Path | Table)}
                return value.model_copy(update=changed)
            case _:
                return value

    tables = {
        "node": against(config.node),
        "cluster": against(config.cluster),
        "admin": against(config.admin),
        "kind_tables": {name: against(table) for name, table in config.kind_tables.items()},
        "users": {name: against(user) for name, user in config.users.items()},
    }
    return config.model_copy(update=tables)


def _explained(error: Mapping[str, Any]) -> tuple[Place, str, str]:
    """One of pydantic's errors in our words: place, what is wrong, what to do."""
    place: Place = error["loc"]
    context: dict[str, Any] = error.get("ctx", {})
    written = str(error["input"]).lower() if isinstance(error["input"], bool) else shown(error["input"])
    if _SECRET_KEY.search(".".join(map(str, place))):
        written = "this"
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
        case "missing" if place == ("cluster", "nodes"):
            return place[:-1], "there are no nodes", _CLUSTER_NODES
        case "missing" if place == ("cluster", "servers"):
            return place[:-1], "there are no servers", 'write servers = ["nats://host:4222", ...]'
        case "missing" if place[-1] == "handler":
            routes = " or ".join(f'handler = "{route}"' for route in ROUTES.values())
            return place[:-1], "this kind has no handler", f"write {routes}"
        case "missing" if place[-1] in ("kinds", "verbs"):
            return place[:-1], f"{place[-1]} is missing", 'write { kinds = ["transfer"], verbs = ["write"] }'
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
        case "list_type" if place[0] == "users" and place[-1] != "rights":
            return place, f"{written} is not a list", f'write {place[-1]} = ["..."]'
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
        case ("kinds", _, "tls"):
            model = RouteTls
        case ("kinds", _):
            model = KindTable
        case ("node",):
            model = Node
        case ("node" | "admin", "tls"):
            model = ServerTls
        case ("cluster", "tls"):
            model = ClusterTls
        case ("users", _):
            model = User
        case ("users", _, "rights", _):
            model = Right
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
