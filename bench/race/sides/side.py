"""What a side is, and the job that all of them do.

The job is one session: open it with a first record, append two more, delete it. Each of these four operations is
acknowledged, and durable before it is. Records are `RECORD_BYTES` long.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol

from bench.race.load import Programs
from bench.race.script import Script
from truba.errors import TrubaError

RECORD_BYTES = 100
RECORD = bytes(97 + at % 26 for at in range(RECORD_BYTES))
"""Letters, which say nothing to JSON, SQL or RESP."""
OPERATIONS = 4
"""Of one session."""

ROOT = Path(__file__).parents[3]
BUILD = ROOT / "build" / "race"
SETUP = "make race-setup"

Unit = Literal["operations", "sessions"]
"""What a side's load counts."""


class Running(Protocol):
    """A side whose server runs."""

    @property
    def servers(self) -> tuple[int, ...]:
        """Roots of the process trees that do the side's work."""

    @property
    def workers(self) -> tuple[int, ...]:
        """Of processes that run the user's code, and belong neither to the server nor to the load."""

    @property
    def script(self) -> Script | None:
        """What load.c says; None: the load is another program."""

    def command(self, programs: Programs, clients: int, warm_s: float, measure_s: float) -> list[str]:
        """The load."""


@dataclass(frozen=True, slots=True)
class Scripted:
    """A running side whose load is load.c."""

    servers: tuple[int, ...]
    port: int
    script: Script
    workers: tuple[int, ...] = ()

    def command(self, programs: Programs, clients: int, warm_s: float, measure_s: float) -> list[str]:
        return programs.command(self.script, self.port, clients, warm_s, measure_s)


@dataclass(frozen=True, slots=True)
class Worked:
    """A running side whose load is a program of its own."""

    servers: tuple[int, ...]
    program: tuple[str, ...]
    workers: tuple[int, ...] = ()
    script: Script | None = None

    def command(self, programs: Programs, clients: int, warm_s: float, measure_s: float) -> list[str]:
        return [*self.program, f"{clients}", f"{warm_s}", f"{measure_s}"]


def team(command: Sequence[str], *arguments: str) -> tuple[str, ...]:
    """That Python program, once for each processor: see workers/team.py."""
    processes = len(os.sched_getaffinity(0))
    path = ("env", f"PYTHONPATH={ROOT}:{ROOT / 'src'}")
    return (*path, sys.executable, "-m", "bench.race.workers.team", f"{processes}", *command, *arguments)


class Side(Protocol):
    @property
    def name(self) -> str: ...

    @property
    def unit(self) -> Unit: ...

    @property
    def install(self) -> str:
        """The command that installs what it needs."""

    def missing(self) -> str | None:
        """What of it is not installed; None: nothing."""

    def version(self) -> str:
        """Asked only when nothing is missing."""

    def running(self, directory: Path, clients_max: int) -> AbstractContextManager[Running]:
        """Started, in an empty directory of its own. TrubaError when it does not start."""


def said(*command: str) -> str:
    """What a program prints when it is asked for its version. TrubaError when it does not say."""
    ended = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    if ended.returncode:
        raise TrubaError(f"{' '.join(command)}: {ended.stderr.strip()}")
    return ended.stdout.strip()
