"""`truba user`: hashes of passwords, tokens in files."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from truba.cli.main import main
from truba.passwords import parse


@pytest.mark.parametrize("text", ["open sesame", "open sesame\n", "open sesame\r\n"])
def test_a_password_of_stdin_becomes_its_hash(text: str) -> None:
    done = CliRunner().invoke(main, ["user", "hash"], input=text)
    assert done.exit_code == 0, done.output
    made = parse(done.stdout.strip())
    assert made.slow is not None
    assert made.matches(b"open sesame")
    assert "sesame" not in done.output


def test_two_hashes_of_one_password_differ() -> None:
    first, second = (CliRunner().invoke(main, ["user", "hash", "--json"], input="x").stdout for _ in range(2))
    assert json.loads(first).keys() == {"password_hash"}
    assert first != second


@pytest.mark.parametrize("text", ["", "\n", "x" * 1025])
def test_no_password_and_one_without_end(text: str) -> None:
    done = CliRunner().invoke(main, ["user", "hash"], input=text)
    assert done.exit_code == 2
    assert "a password has 1 to 1024 bytes" in done.output


def test_a_password_that_nobody_could_log_in_with() -> None:
    """AUTH takes UTF-8, and so do the files of passwords."""
    done = CliRunner().invoke(main, ["user", "hash"], input=b"gr\xfcn\n")
    assert done.exit_code == 2
    assert "this password is not UTF-8" in done.output
    assert not done.stdout


def test_a_token_goes_into_a_file_that_only_its_user_reads(tmp_path: Path) -> None:
    file = tmp_path / "ann.token"
    done = CliRunner().invoke(main, ["user", "token", str(file)])
    assert done.exit_code == 0, done.output
    assert file.stat().st_mode & 0o777 == 0o600
    token = file.read_text()
    assert len(token.strip()) >= 43
    made = parse(done.stdout.strip())
    assert made.slow is None
    assert made.matches(token.strip().encode())
    assert token.strip() not in done.output
    again = CliRunner().invoke(main, ["user", "token", str(file)])
    assert again.exit_code == 1
    assert "is there already, and stays as it is" in again.output
    assert file.read_text() == token
