"""The whole demo, short: real processes, real kills, two real databases."""

from __future__ import annotations

import json
import os
import pty
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from truba.demo.proof import prove
from truba.demo.transfers import bundled
from truba.demo.worker import POINTS

DEMO = [sys.executable, "-m", "truba", "demo"]


def ran(*args: str) -> dict[str, Any]:
    done = subprocess.run([*DEMO, "--json", *args], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    (document,) = done.stdout.splitlines()
    answer: dict[str, Any] = json.loads(document)
    return answer


def test_work_of_killed_processes_is_finished_exactly_once(tmp_path: Path) -> None:
    """G1, G3, G4 as a user meets them."""
    outcome = ran("--transfers", "150", "--seed", "5", "--keep", str(tmp_path / "kept"))
    proof, kills = outcome["proof"], outcome["kills"]
    assert proof["holds"]
    assert (proof["debited"], proof["credited"], proof["missing_cents"]) == (150, 150, 0)
    assert proof["touched_by_handler"] > 0
    assert (kills["handler"], kills["pipe"], kills["pauses"]) == (1, 1, 3)
    assert kills["from_outside"] > 0
    assert kills["workers"] >= len(POINTS)
    assert prove(tmp_path / "kept", bundled(150)).holds  # anybody may look


def test_without_a_pipe_the_same_kills_lose_money() -> None:
    outcome = ran("--without-pipe", "--transfers", "150", "--seed", "5")
    proof, kills = outcome["proof"], outcome["kills"]
    assert not proof["holds"]
    assert proof["debited_never_credited"] > 0
    assert proof["missing_cents"] > 0
    assert proof["credited_never_debited"] == proof["touched_by_handler"] == 0
    assert kills["workers"] >= len(POINTS)


def test_it_says_what_the_damage_is() -> None:
    done = subprocess.run([*DEMO, "--without-pipe", "--transfers", "50"], capture_output=True, text=True, check=False)
    assert done.returncode == 0
    assert "transfers lost" in done.stdout
    assert "Nobody knows of them" in done.stdout
    assert "killed after debit" in done.stdout


def test_it_changes_in_place_on_a_terminal() -> None:
    terminal, theirs = pty.openpty()
    command = [*DEMO, "--without-pipe", "--transfers", "50"]
    with subprocess.Popen(command, stdout=theirs, stderr=theirs, env={**os.environ, "TERM": "xterm"}) as process:
        os.close(theirs)
        shown = b""
        try:
            while chunk := os.read(terminal, 65536):
                shown += chunk
        except OSError:  # so Linux says that the other end is closed
            pass
        os.close(terminal)
    assert process.returncode == 0
    assert "transfers begun" in shown.decode()
    assert "killed after debit" in shown.decode()
    assert "Nobody knows of them" in shown.decode()


def test_a_directory_in_use_is_refused(tmp_path: Path) -> None:
    (tmp_path / "mine").touch()
    done = subprocess.run([*DEMO, "--keep", str(tmp_path)], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "is not empty" in done.stderr


@contextmanager
def under_way(directory: Path) -> Iterator[tuple[subprocess.Popen[str], list[int]]]:
    """A demo in the middle of its work, and the ids of its children."""
    command = [*DEMO, "--transfers", "2000"]
    environment = {**os.environ, "TMPDIR": str(directory)}
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as process:
        assert process.stdout is not None
        try:
            for line in process.stdout:
                if "worker" in line:
                    break
            yield process, children(process.pid)
        finally:
            process.kill()


def children(pid: int) -> list[int]:
    tasks = Path(f"/proc/{pid}/task").glob("*/children")
    return [int(child) for task in tasks for child in task.read_text().split()]


@pytest.mark.parametrize("signum", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_nothing_outlives_it(tmp_path: Path, signum: signal.Signals) -> None:
    with under_way(tmp_path) as (process, its_children):
        assert len(its_children) >= 3
        process.send_signal(signum)
        code = process.wait(20)
        until_s = time.monotonic() + 10
        while alive := [pid for pid in its_children if Path(f"/proc/{pid}").exists() and not zombie(pid)]:
            assert time.monotonic() < until_s, alive
            time.sleep(0.01)
    if signum is not signal.SIGKILL:
        assert code == 130
        assert not list(tmp_path.iterdir())


def zombie(pid: int) -> bool:
    """Dead, and only waiting to be reaped by whoever inherited it."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] == "Z"
    except (FileNotFoundError, ProcessLookupError):
        return True
