"""A real pipe for the commands to talk to: `truba serve` as a process of its own, ended by its id."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

TRUBA = [sys.executable, "-c", "from truba.cli.main import main; main(prog_name='truba')"]


@dataclass
class Served:
    """A running `truba serve`. `ready` is its log line of that name."""

    process: subprocess.Popen[str]
    directory: Path
    ready: dict[str, Any]
    logged: list[dict[str, Any]] = field(default_factory=list)

    @property
    def address(self) -> str:
        return str(self.ready["listen"])

    @property
    def url(self) -> str:
        return f"truba://{self.address}"

    def stop(self, signum: int = signal.SIGTERM) -> int:
        if self.process.poll() is None:
            self.process.send_signal(signum)
        _, err = self.process.communicate(timeout=30)
        self.logged += [json.loads(line) for line in err.splitlines() if line.startswith("{")]
        return self.process.returncode


Serve = Callable[[str], Served]


@pytest.fixture
def serve(tmp_path: Path) -> Iterator[Serve]:
    """Starts a pipe with these lines of configuration, listening on a free port of the loopback address."""
    running: list[Served] = []

    def start(text: str) -> Served:
        (tmp_path / "truba.toml").write_text(text)
        command = [*TRUBA, "serve", "--listen", "127.0.0.1:0"]
        process = subprocess.Popen(command, cwd=tmp_path, stderr=subprocess.PIPE, text=True, env=environment())
        assert process.stderr is not None
        logged = []
        for line in process.stderr:
            logged.append(json.loads(line))
            if logged[-1]["event"] == "ready":
                break
        else:
            raise AssertionError(f"it did not start: {logged}")
        running.append(Served(process, tmp_path, logged[-1], logged))
        return running[-1]

    yield start
    for served in running:
        served.stop(signal.SIGKILL)


def environment() -> dict[str, str]:
    """Ours without settings of the commands; `tests.cli.doomed` can be imported from anywhere."""
    plain = {name: value for name, value in os.environ.items() if not name.startswith("TRUBA_")}
    root = str(Path(__file__).parents[2])
    return plain | {"PYTHONPATH": os.pathsep.join(filter(None, (root, plain.get("PYTHONPATH"))))}
