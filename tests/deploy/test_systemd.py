"""The unit of systemd: read by systemd itself, and true of the command that it starts."""

from __future__ import annotations

import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from truba.cli.failure import EXIT_CODES
from truba.cli.main import main
from truba.config.model import Node
from truba.config.units import seconds

UNIT = Path(__file__).parents[2] / "deploy" / "systemd" / "truba.service"
INSTALLED = "/opt/truba/bin/truba"

EXPOSURE_MAX = 1.5
"""What `systemd-analyze security` may say, of 10; only the open network and few system calls are left of it."""

analyzed = pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd-analyze is not installed")


def setting(name: str) -> str:
    return next(line.split("=", 1)[1] for line in UNIT.read_text().splitlines() if line.startswith(f"{name}="))


def analyze(tmp_path: Path, *args: str, text: str = "") -> subprocess.CompletedProcess[str]:
    """By systemd, of the unit with this installation's command in the place of the one that it names."""
    here = tmp_path / UNIT.name
    here.write_text((text or UNIT.read_text()).replace(INSTALLED, str(Path(sys.executable).with_name("truba"))))
    command = ["systemd-analyze", *args, str(here)]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


@analyzed
def test_systemd_takes_every_line(tmp_path: Path) -> None:
    done = analyze(tmp_path, "verify")
    assert (done.returncode, done.stdout + done.stderr) == (0, "")
    wrong = analyze(tmp_path, "verify", text=UNIT.read_text().replace("RestartSec=", "RestartSecs="))
    assert "RestartSecs" in wrong.stderr


@analyzed
def test_little_of_the_machine_is_within_its_reach(tmp_path: Path) -> None:
    threshold = f"--threshold={EXPOSURE_MAX * 10:.0f}"
    done = analyze(tmp_path, "security", "--offline=yes", threshold)
    assert done.returncode == 0, done.stdout
    assert analyze(tmp_path, "security", "--offline=yes", threshold, text="[Service]\nExecStart=x\n").returncode != 0


def test_the_command_is_one_of_truba() -> None:
    program, command, *arguments = shlex.split(setting("ExecStart"))
    assert program == INSTALLED
    usage = CliRunner().invoke(main, [command, "--help"]).output
    assert all(argument in usage for argument in arguments if argument.startswith("--"))


def test_it_is_not_started_again_where_a_person_is_needed() -> None:
    told = {code: EXIT_CODES[int(code)] for code in setting("RestartPreventExitStatus").split()}
    assert told == {
        "2": "the command line or the configuration is wrong",
        "7": "the data directory cannot be used",
        "70": "the pipe stopped itself because its log failed; what it acknowledged is stored",
    }
    assert setting("Restart") == "on-failure"


def test_a_stop_has_the_time_that_it_may_take() -> None:
    assert seconds(setting("TimeoutStopSec")) > 2 * Node().stop_timeout


def test_it_may_open_as_many_files_as_it_takes_connections() -> None:
    assert int(setting("LimitNOFILE")) > 2 * Node().connections_max
