"""Pages that a reader types along with: everything in them happens, in order, and shows what they say it shows."""

from __future__ import annotations

import os
import sysconfig
from collections.abc import Mapping
from pathlib import Path

import pytest

from tests.docs.walk import Command, File, Shell, steps
from tests.service.process import environment
from truba.testing.ports import free_ports

ROOT = Path(__file__).parents[2]


def replaced(text: str, by: Mapping[str, str]) -> str:
    for old, new in by.items():
        text = text.replace(f":{old}", f":{new}")
    return text


def reader(directory: Path, ports: Mapping[str, str]) -> dict[str, str]:
    """The environment of somebody who has a checkout and knows nothing of ours.

    `pip install` is a real one, but for what truba depends on: that is taken from here, not from the network.
    """
    here = sysconfig.get_paths()["purelib"]
    plain = {name: value for name, value in environment().items() if not name.startswith("PIP_")}
    return plain | {
        "HOME": str(directory),
        "PATH": f"{sysconfig.get_path('scripts')}{os.pathsep}{os.environ['PATH']}",
        "PIP_IGNORE_INSTALLED": "1",
        "PIP_NO_BUILD_ISOLATION": "0",  # pip's way to say: no isolation
        "PIP_NO_DEPS": "1",
        "PIP_NO_INDEX": "1",
        "PYTHONPATH": here,
        "TRUBA_URL": f"truba://127.0.0.1:{ports['7433']}",
    }


@pytest.mark.timeout(300)
def test_the_tutorial(tmp_path: Path) -> None:
    ports = dict(zip(("7433", "7434"), map(str, free_ports(2)), strict=True))
    (tmp_path / "truba").symlink_to(ROOT)
    shell = Shell(tmp_path, reader(tmp_path, ports))
    try:
        for step in steps((ROOT / "docs" / "tutorial.md").read_text()):
            match step:
                case File(name, text):
                    (tmp_path / "tutorial" / name).write_text(replaced(text, ports))
                case Command(line, shown):
                    listen = f" --listen 127.0.0.1:{ports['7434']}" if line.startswith("truba handlers") else ""
                    line = line.replace(":HANDLERS", f":HANDLERS{listen}")
                    shell.type(Command(line, tuple(replaced(text, ports) for text in shown)))
    finally:
        shell.close()


@pytest.mark.parametrize(
    ("shown", "output", "same"),
    [
        ((), [], True),
        (("due 5s",), ["due 5s  ", ""], True),
        (("due ...",), ["due in 5s"], True),
        (("at 2026-01-02 03:04:05",), ["at 2031-12-24 23:59:59"], True),
        (("a.b",), ["axb"], False),
        (("one",), ["one", "two"], False),
        (("one", "two"), ["one"], False),
        ((), ["a warning"], False),
    ],
)
def test_what_counts_as_shown(shown: tuple[str, ...], output: list[str], same: bool) -> None:
    assert Command("x", shown).is_shown_by(output) is same


def test_what_is_not_on_the_page_is_seen(tmp_path: Path) -> None:
    shell = Shell(tmp_path, environment())
    try:
        shell.type(Command("(sleep 0.1; echo later) &", ("later",)))
        with pytest.raises(AssertionError, match="but the page shows"):
            shell.type(Command("echo one", ("two",)))
        with pytest.raises(AssertionError, match="exit code 1"):
            shell.type(Command("false", ()))
    finally:
        shell.close()
