"""The command as a whole: help, usage errors, quick starts, and docs/cli.md telling the truth."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from truba.cli.failure import EXIT_CODES
from truba.cli.main import COMMANDS, main

DOCS = Path(__file__).parents[2] / "docs" / "cli.md"


def commands(group: click.Group) -> list[tuple[list[str], click.Command]]:
    found: list[tuple[list[str], click.Command]] = []
    context = click.Context(group)
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        assert command is not None
        if isinstance(command, click.Group):
            found += [([name, *path], inner) for path, inner in commands(command)]
        else:
            found.append(([name], command))
    return found


ALL = commands(main)  # type: ignore[arg-type]


@pytest.mark.parametrize("path", [path for path, _ in ALL], ids=" ".join)
def test_every_command_has_examples_and_json(path: list[str]) -> None:
    result = CliRunner().invoke(main, [*path, "--help"])
    assert result.exit_code == 0
    assert "Example" in result.output
    assert f"truba {' '.join(path)}" in result.output
    assert "--json" in result.output


def test_help_names_every_command_and_exit_code() -> None:
    result = CliRunner().invoke(main, ["--help"])
    assert all(re.search(rf"^  {name} ", result.output, re.MULTILINE) for name in COMMANDS)
    words = " ".join(result.output.split())
    assert all(f"{code} {meaning}" in words for code, meaning in EXIT_CODES.items())


def test_the_page_names_every_command_and_exit_code() -> None:
    page = DOCS.read_text()
    assert {
        int(code): meaning for code, meaning in re.findall(r"^\| (\d+) \| (.*?) \|$", page, re.MULTILINE)
    } == EXIT_CODES
    assert all(f"truba {' '.join(path)}" in page for path, _ in ALL)


@pytest.mark.parametrize("args", [["nope"], ["ls", "--nope"], ["show"], ["show", "x"], ["ls", "--limit", "0"]])
def test_usage_errors(args: list[str]) -> None:
    result = CliRunner().invoke(main, args)
    assert result.exit_code == 2
    assert result.stdout == ""
    assert "Error: " in result.stderr


def test_no_pipe_there() -> None:
    result = CliRunner().invoke(main, ["ls", "--url", "truba://127.0.0.1:1"])
    assert result.exit_code == 3
    assert result.stdout == ""
    assert "no pipe at 127.0.0.1:1" in result.stderr
    assert "next: " in result.stderr


def test_version() -> None:
    assert re.fullmatch(r"truba \d+\.\d+\.\d+\n", CliRunner().invoke(main, ["--version"]).stdout)


def test_help_imports_no_command_and_nothing_slow() -> None:
    code = (
        "import sys\nfrom truba.cli.main import main\n"
        "try: main(['--help'])\nexcept SystemExit: pass\n"
        "print(*[m for m in sys.modules if m.split('.')[0] in ('rich', 'pydantic', 'uvloop', 'rocksdict', 'asyncio')])"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True).stdout
    assert out.splitlines()[-1] == ""
