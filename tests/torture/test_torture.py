"""`truba torture` as a user runs it, and what it makes of pipes that are broken on purpose."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from tests.cli.conftest import environment
from truba.cli.main import main
from truba.errors import DataUnwritable
from truba.torture import run as runs

TORTURE = [sys.executable, "-m", "truba", "torture"]
PATIENCE_S = 30.0


def torture(*args: object) -> subprocess.CompletedProcess[str]:
    command = [*TORTURE, *map(str, args)]
    return subprocess.run(command, capture_output=True, text=True, timeout=110, check=False, env=environment())


def processes_that_name(directory: Path) -> list[int]:
    """Ids of running processes that work in that directory."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            line = path.read_bytes()
        except (FileNotFoundError, ProcessLookupError):
            continue
        if os.fsencode(directory) in line:
            found.append(int(path.parent.name))
    return found


def until_no_process_names(directory: Path) -> None:
    until_s = time.monotonic() + PATIENCE_S
    while left := processes_that_name(directory):
        assert time.monotonic() < until_s, left
        time.sleep(0.01)


def test_g1_to_g5_a_round_of_kills(tmp_path: Path) -> None:
    (tmp_path / "of-somebody-else").write_text("stays")
    done = torture(tmp_path, "--time", "1s", "--seed", "3", "--json")
    assert (done.returncode, done.stderr) == (0, ""), done.stdout + done.stderr
    (document,) = done.stdout.splitlines()
    report = json.loads(document)
    assert (report["seed"], report["rounds"], report["failed_seed"], report["findings"]) == (3, 1, None, [])
    assert report["kills"]["pipe"] > 0
    assert sum(report["kills"].values()) >= 6  # each at least once, at the end
    assert report["calls"]["ok"] > 100
    assert report["calls"]["unknown"] > 0
    assert report["deliveries"] > 0
    assert report["sessions_checked"] > 20
    assert [path.name for path in tmp_path.iterdir()] == ["of-somebody-else"]
    assert not processes_that_name(tmp_path)


def broken(directory: Path, how: str) -> runs.Report:
    """Rounds against that pipe until it is found out, or for long enough."""
    command = (sys.executable, "-m", "tests.torture.broken", how)
    return asyncio.run(runs.run(directory, 60.0, 1, pipe_command=command, harmed_s=4.0))


@pytest.mark.parametrize(
    ("how", "says"),
    [
        ("replays_appends_twice", "no order of its calls explains all answers"),
        ("is_early", "no order of its calls explains all answers"),
    ],
)
def test_a_broken_pipe_is_found_out(how: str, says: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", environment()["PYTHONPATH"])
    report = broken(tmp_path, how)
    assert report.findings
    assert report.failed_seed is not None
    story = "\n".join(report.story())
    assert says in story
    assert "seconds since its first call" in story
    assert report.kept is not None
    assert (report.kept / "story.txt").read_text().strip() == story
    assert list((report.kept / "journals").iterdir())
    assert f"--seed {report.failed_seed} " in report.command
    assert not processes_that_name(tmp_path)


def test_a_pipe_that_does_not_start_is_a_finding(tmp_path: Path) -> None:
    report = asyncio.run(runs.run(tmp_path, 1.0, 1, pipe_command=(sys.executable, "-c", "import sys; sys.exit('no')")))
    (finding,) = report.findings
    assert finding.what == "the pipe pipe ended by itself with 1: no"


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGINT, signal.SIGKILL])
def test_an_interrupted_run_leaves_no_process(how: signal.Signals, tmp_path: Path) -> None:
    with subprocess.Popen([*TORTURE, str(tmp_path)], env=environment()) as process:
        try:
            until_s = time.monotonic() + PATIENCE_S
            while len(processes_that_name(tmp_path)) < 1 + 6:
                assert process.poll() is None
                assert time.monotonic() < until_s
                time.sleep(0.01)
        finally:
            process.send_signal(how)
            code = process.wait(PATIENCE_S)
    until_no_process_names(tmp_path)
    if how is signal.SIGKILL:
        assert code == -signal.SIGKILL
    else:
        assert code == 130
        assert not list(tmp_path.iterdir())


def test_no_space(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runs, "FREE_BYTES_MIN", 1 << 60)
    with pytest.raises(DataUnwritable, match="MiB are needed"):
        asyncio.run(runs.run(tmp_path, 1.0, 1))
    refused: Any = CliRunner().invoke(main, ["torture", str(tmp_path)])
    assert refused.exit_code == 7
    assert "MiB are free there" in refused.stderr
    assert not list(tmp_path.iterdir())


def test_what_cannot_be(tmp_path: Path) -> None:
    for args, code, says in (
        ([str(tmp_path / "none")], 4, "there is no such directory"),
        ([str(tmp_path), "--time", "soon"], 2, "is not a time"),
        ([str(tmp_path), "--time", "0s"], 2, "above zero"),
        ([], 2, "DIRECTORY"),
    ):
        refused = CliRunner().invoke(main, ["torture", *args])
        assert refused.exit_code == code
        assert says in refused.stderr
        assert not list(tmp_path.iterdir())
