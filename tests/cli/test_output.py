"""Where the output goes may be full, or closed: said in a line, never a traceback."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import pytest

from tests.cli.conftest import TRUBA, environment
from truba.log.file import FileLog


@pytest.mark.parametrize(("redirect", "code"), [(">/dev/full", 1), (">&-", 0)])
def test_output_that_cannot_be_written(tmp_path: Path, redirect: str, code: int) -> None:
    FileLog.open(tmp_path / "log", segment_bytes=65_536).close()
    line = f'exec "$@" {redirect}'
    command = ["sh", "-c", line, "sh", *TRUBA, "log", "verify", os.fspath(tmp_path)]
    done = subprocess.run(command, env=environment(), stderr=subprocess.PIPE, text=True, timeout=60, check=False)
    assert done.returncode == code
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("command", "redirect", "code", "said"),
    [
        (["log", "repair", "DIR"], "<&-", 2, "nobody is there to ask"),
        (["delete", "3-117"], "<&-", 2, "nobody is there to ask"),
        (["user", "hash"], "<&-", 2, "a password has 1 to 1024 bytes"),
        (["log", "verify", "DIR"], "2>&-", 0, ""),
        (["log", "verify", "DIR"], "<&- 2>&-", 0, ""),
        (["serve", "--config", "DIR/none.toml"], "2>&-", 2, ""),
    ],
)
def test_nobody_to_ask_and_nobody_to_tell(
    tmp_path: Path, command: list[str], redirect: str, code: int, said: str
) -> None:
    FileLog.open(tmp_path / "log", segment_bytes=65_536).close()
    words = [word.replace("DIR", os.fspath(tmp_path)) for word in command]
    shell = ["sh", "-c", f'exec "$@" {redirect}', "sh", *TRUBA, *words]
    done = subprocess.run(shell, env=environment(), capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, "Traceback" in done.stderr) == (code, False), done.stderr
    assert said in done.stderr


@pytest.mark.parametrize(
    "words",
    [
        ["ls", "--kind", "NAME"],
        ["resume", "--all-parked", "--kind", "NAME"],
        ["pause", "7", "NAME"],
        ["continue", "NAME"],
        ["ls", "--user", "NAME", "--password-file", "none"],
        ["handlers", "tests.cli.doomed:HANDLERS", "--user", "NAME", "--password-file", "none"],
    ],
)
def test_a_name_for_the_pipe_is_text(words: list[str]) -> None:
    command = [*TRUBA, *(word.replace("NAME", os.fsdecode(b"n\xff")) for word in words)]
    done = subprocess.run(command, env=environment(), capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, "Traceback" in done.stderr) == (2, False), done.stderr
    assert "is not UTF-8" in done.stderr


@pytest.mark.parametrize("errors", ["strict", "surrogateescape"])
def test_a_name_that_is_no_text_is_told_as_its_bytes(tmp_path: Path, errors: str) -> None:
    """`errors`: of stdout, by the locale: en_US.UTF-8 has the one, C.UTF-8 the other."""

    def run(*args: str) -> subprocess.CompletedProcess[bytes]:
        env = environment() | {"PYTHONIOENCODING": f"utf-8:{errors}"}
        return subprocess.run([*TRUBA, *args], env=env, capture_output=True, timeout=60, check=False)

    directory = tmp_path / os.fsdecode(b"d\xff")
    FileLog.open(directory / "log", segment_bytes=65_536).close()
    done = run("log", "verify", os.fspath(directory))
    assert (done.returncode, done.stderr) == (0, b"")
    assert b"d\\udcff" in done.stdout
    done = run("check", "--json", "--config", os.fspath(directory / "none.toml"))
    assert (done.returncode, done.stderr) == (1, b"")
    assert os.fsencode(json.loads(done.stdout)["problems"][0]["file"]) == os.fsencode(directory / "none.toml")
