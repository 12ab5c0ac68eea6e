"""What differs between two configurations, and what a running pipe can take of it."""

from __future__ import annotations

from pathlib import Path
from textwrap import dedent

import pytest

from truba.config import load
from truba.config.changes import Change, changes
from truba.passwords import make

BEFORE = """
    [node]
    grace_max = "1m"
    [kinds.transfer]
    number = 7
    handler = "truba://127.0.0.1:7434"
    [users.ann]
    password_hash_env = "ANN"
    rights = [{ kinds = ["*"], verbs = ["write"] }]
"""


@pytest.fixture(autouse=True)
def hashes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ANN", str(make(b"hush", b"salt", slow=False)))


def between(tmp_path: Path, after: str) -> list[Change]:
    pages = []
    for number, text in enumerate((BEFORE, after)):
        path = tmp_path / f"{number}.toml"
        path.write_text(dedent(text))
        pages.append(load(path))
    return changes(*pages)


def test_nothing(tmp_path: Path) -> None:
    assert between(tmp_path, BEFORE) == []


@pytest.mark.parametrize(
    ("old", "new", "key", "live"),
    [
        ("1m", "2m", "node.grace_max", True),
        ("grace_max", "stop_timeout", "node.stop_timeout", False),
        ("[node]", '[node]\n    listen = "127.0.0.1:1"', "node.listen", False),
        ("[node]", '[node]\n    data = "other"', "node.data", False),
        ("[node]", '[node]\n    log_level = "debug"', "node.log_level", True),
        ("[node]", '[admin]\n    [node]', "admin", False),
        ("7434", "7435", "kinds.transfer.handler", True),
        ("number = 7", 'number = 7\n    backoff = { cap = "1m" }', "kinds.transfer.backoff.cap", True),
        ("[kinds.transfer]", '[kinds.mail]\n    number = 8\n    handler = "truba://127.0.0.1:1"\n    [kinds.transfer]',
         "kinds.mail", True),
        ("number = 7", 'number = 7\n    codec = "a.b:C"', "kinds.transfer.codec", True),
        ('"write"', '"read"', "users.ann.rights", True),
    ],
)  # fmt: skip
def test_each_is_named_and_judged(tmp_path: Path, old: str, new: str, key: str, live: bool) -> None:
    found = {change.key: change.live for change in between(tmp_path, BEFORE.replace(old, new))}
    assert found.pop(key) is live
    assert set(found) <= {"node.grace_max"}  # of the one that became another key


def test_both_values_are_told_and_what_is_secret_in_them_is_not(tmp_path: Path) -> None:
    [change] = between(tmp_path, BEFORE.replace("1m", "90s"))
    assert (change.path, change.before, change.after) == (("node", "grace_max"), 60.0, 90.0)
    hashed = str(make(b"other", b"salt", slow=False))
    found = between(tmp_path, BEFORE.replace('password_hash_env = "ANN"', f'password_hash = "{hashed}"'))
    assert {change.key for change in found} == {"users.ann.password_hash", "users.ann.password_hash_env"}
    assert hashed not in str(found)


@pytest.mark.parametrize(
    ("table", "value", "other", "key", "live"),
    [
        ("[admin.tokens.grafana]\nsha256 = ", "0" * 64, "1" * 64, "admin.tokens.grafana.sha256", False),
        ('[[node.frontends]]\nfactory = "a.b:C"\noptions.key = ', "one", "two", "node.frontends", False),
        ("[users.bob]\npassword_hash = ", str(make(b"one", b"salt", slow=False)),
         str(make(b"two", b"salt", slow=False)), "users.bob.password_hash", True),
    ],
)  # fmt: skip
def test_another_secret_is_a_change_that_is_not_told(
    tmp_path: Path, table: str, value: str, other: str, key: str, live: bool
) -> None:
    pages = []
    for number, written in enumerate((value, other)):
        path = tmp_path / f"{number}.toml"
        path.write_text(f'{dedent(BEFORE)}{table}"{written}"\n')
        pages.append(load(path))
    assert changes(pages[0], pages[0]) == []
    [change] = changes(*pages)
    assert (change.key, change.live) == (key, live)
    assert "(hidden)" in str(change.before)
    assert value not in str(change)
    assert other not in str(change)
