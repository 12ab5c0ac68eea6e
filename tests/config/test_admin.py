"""`[admin]`: who may be let in from where."""

from __future__ import annotations

from pathlib import Path

import pytest

from truba.config import Address, ConfigProblems, load

KIND = '[kinds.transfer]\nnumber = 7\nhandler = "truba://127.0.0.1:7434"\n'
HASH = "0" * 64


def problems(directory: Path, text: str, *, insecure: bool = False) -> list[str]:
    path = directory / "truba.toml"
    path.write_text(f"[admin]\n{text}\n{KIND}")
    try:
        load(path, insecure=insecure)
    except ConfigProblems as bad:
        return [str(problem).removeprefix(f"{path}:") for problem in bad.problems]
    return []


def test_off_unless_the_table_is_there(tmp_path: Path) -> None:
    path = tmp_path / "truba.toml"
    path.write_text(KIND)
    assert load(path).admin is None
    path.write_text("[admin]\n" + KIND)
    admin = load(path).admin
    assert admin is not None
    assert admin.listen == Address("127.0.0.1", 7480)
    assert not admin.guarded


@pytest.mark.parametrize("listen", ["127.0.0.1:1", "[::1]:1", "localhost:1", "127.8.8.8:0"])
def test_this_machine_needs_no_token(tmp_path: Path, listen: str) -> None:
    assert problems(tmp_path, f'listen = "{listen}"') == []


@pytest.mark.parametrize("listen", ["0.0.0.0:1", "[::]:1", "10.0.0.1:1", "example.org:1", "localhost.evil:1"])
def test_beyond_it_needs_one(tmp_path: Path, listen: str) -> None:
    (problem,) = problems(tmp_path, f'listen = "{listen}"')
    assert "there is no token" in problem
    assert "2: admin.listen" in problem
    (tmp_path / "token").write_text("x" * 16)
    (problem,) = problems(tmp_path, f'listen = "{listen}"\ntoken_file = "token"')
    assert "admin.listen: " in problem
    assert "plain text beyond this machine" in problem
    assert problems(tmp_path, f'listen = "{listen}"\ntoken_file = "token"', insecure=True) == []
    assert problems(tmp_path, f'listen = "{listen}"\n[admin.tokens.a]\nsha256 = "{HASH}"', insecure=True) == []


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('listen = "127.0.0.1:7433"', "is what clients are served on"),
        ('token_file = "missing"', "cannot be read"),
        ('token_file = "short"', "fewer than 16"),
        ('[admin.tokens.a]\nsha256 = "12"', "64 hexadecimal digits"),
        (f'[admin.tokens.a]\nsha256 = "{HASH}"\nmay = "all"', "admin.tokens.a.may"),
        (f'[admin.tokens."a b"]\nsha256 = "{HASH}"', "no name for a token"),
        (f'token_file = "good"\n[admin.tokens.operator]\nsha256 = "{HASH}"', "another name"),
        ("tokn = 1", "unknown key"),
        (f'[admin.tokens.a]\nsha265 = "{HASH}"', 'write "sha256"'),
    ],
)
def test_refusals(tmp_path: Path, text: str, said: str) -> None:
    (tmp_path / "short").write_text("hush")
    (tmp_path / "good").write_text("h" * 32)
    assert said in " ".join(problems(tmp_path, text))


@pytest.mark.parametrize("written", ['"the token itself"', '"%s"' % ("F" * 64), "5", '["the token itself"]'])
def test_a_token_in_the_place_of_its_hash_is_not_shown(tmp_path: Path, written: str) -> None:
    (problem,) = problems(tmp_path, f"[admin.tokens.a]\nsha256 = {written}")
    key, what, instead = "admin.tokens.a.sha256", "this is no sha256", "64 hexadecimal digits, never the token itself"
    assert problem == f"3: {key}: {what}; write that of the token, {instead}"
