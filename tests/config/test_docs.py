"""docs/configuration.md tells the truth: its tables have every key with its default, and its example loads."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest
from pydantic import BaseModel

from truba.config import Admin, AdminToken, Cluster, ClusterNode, Frontend, KindTable, Node, WebhookTable, load
from truba.config.security import ClusterTls, Right, RouteTls, ServerTls, User
from truba.config.table import Table

PAGE = (Path(__file__).parents[2] / "docs" / "configuration.md").read_text()


def section(title: str) -> str:
    _, _, rest = PAGE.partition(f"# `{title}`\n")
    return re.split(r"^#+ ", rest, maxsplit=1, flags=re.MULTILINE)[0]


def documented(title: str) -> dict[str, str]:
    rows = re.findall(r"^\| `(\w+)` \|(?: `(.*?)`)? \|", section(title), re.MULTILINE)
    return dict(rows)


@pytest.mark.parametrize(
    ("title", "model"),
    [
        ("[node]", Node),
        ("[[node.frontends]]", Frontend),
        ("[cluster]", Cluster),
        ("[cluster.nodes]", ClusterNode),
        ("[admin]", Admin),
        ("[admin.tokens.NAME]", AdminToken),
        ("[kinds.NAME]", KindTable),
        ("[node.tls]", ServerTls),
        ("[cluster.tls]", ClusterTls),
        ("[kinds.NAME.tls]", RouteTls),
        ("[users.NAME]", User),
        ("[[users.NAME.rights]]", Right),
        ("[kinds.NAME.webhook]", WebhookTable),
    ],
)
def test_the_tables_have_every_key_and_its_default(title: str, model: type[Table]) -> None:
    table = documented(title)
    assert list(table) == list(model.model_fields)
    must = {name: field for name, field in model.model_fields.items() if field.is_required()}
    given = {
        "number": 1,
        "handler": "local:a:b",
        "factory": "a:b",
        "servers": ["nats://h"],
        "secret_file": "s",
        "sha256": "0" * 64,
        "nodes": {"a": {"clients": "h:1", "peers": "h:2"}},
        "clients": "h:1",
        "peers": "h:2",
        "certificate": "c",
        "ca": "a",
        "kinds": ["*"],
        "verbs": ["read"],
    }
    least = {"certificate": "name"} if model is User else {}  # one thing that proves who that is
    by_default: BaseModel = model.model_validate(least | {name: given[name] for name in must})
    said = tomllib.loads("\n".join(f"{key} = {text}" for key, text in table.items() if text))
    by_page = model.model_validate(least | {name: given[name] for name in must} | said)
    assert by_page == by_default
    silent = {key for key, text in table.items() if not text}
    assert silent == {name for name in table if name in must or model.model_fields[name].default is None}
    for name in must:
        assert re.search(rf"^\| `{name}` \|.*must be given", section(title), re.MULTILINE)


def test_the_examples_load(tmp_path: Path) -> None:
    example, transports = re.findall(r"```toml\n(.*?)```", PAGE, re.DOTALL)
    path = tmp_path / "truba.toml"
    path.write_text(example + transports)
    (kind,) = load(path).kinds
    assert (kind.number, kind.name) == (7, "transfer")
