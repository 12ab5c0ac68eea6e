"""Runs the rounds, sides and concurrencies taking turns, and puts medians together.

Starts and ends every process that takes part, by its id. Says what it does through `tell`; prints nothing itself.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from truba.bench.disk import raw_sync_s
from truba.bench.figures import Round, Row, median_row
from truba.errors import TrubaError

START_TIMEOUT_S = 20.0


class BenchError(TrubaError):
    """A round could not be run."""


@dataclass(frozen=True, slots=True)
class Plan:
    sides: tuple[str, ...]  # of "embedded", "tcp"
    clients: tuple[int, ...]
    seconds: float
    rounds: int
    record_bytes: int
    directory: Path | None = None  # where the data goes; None: a temporary one
    url: str | None = None  # a pipe that runs already; tcp only
    kind: int = 7


@dataclass(frozen=True, slots=True)
class Result:
    rows: list[Row]
    raw_sync_us: float  # median of 4 KiB write + fdatasync, before, between and after

    def as_document(self) -> dict[str, Any]:
        return {
            "rows": [row.as_document() for row in self.rows],
            "raw_sync_us": self.raw_sync_us,
            "raw_syncs_per_second": round(1e6 / self.raw_sync_us),
            "machine": {"cores": os.cpu_count(), "kernel": os.uname().release, "python": sys.version.split()[0]},
        }


def race(plan: Plan, tell: Callable[[int, int, str], None]) -> Result:
    """Run the plan; `tell(done, of, what)` before each round. BenchError, OSError."""
    rounds: dict[tuple[str, int], list[Round]] = {}
    syncs_s: list[float] = []
    turns = [(side, clients) for _ in range(plan.rounds) for side in plan.sides for clients in plan.clients]
    with _directory(plan.directory) as directory, contextlib.ExitStack() as stack:
        server = None
        if "tcp" in plan.sides:
            server = Remote(plan.url, plan.kind) if plan.url else stack.enter_context(serving(directory))
        for at, (side, clients) in enumerate(turns):
            tell(at, len(turns), f"{side}, {clients} at once")
            syncs_s.append(raw_sync_s(directory))
            if side == "tcp":
                assert server is not None
                figures = server.round(clients, plan.seconds, plan.record_bytes)
            else:
                figures = _embedded(directory, clients, plan.seconds, plan.record_bytes)
            rounds.setdefault((side, clients), []).append(figures)
        syncs_s.append(raw_sync_s(directory))
        tell(len(turns), len(turns), "done")
    rows = [median_row(side, clients, rounds[side, clients]) for side in plan.sides for clients in plan.clients]
    return Result(rows, round(statistics.median(syncs_s) * 1e6, 1))


@dataclass(frozen=True, slots=True)
class Remote:
    """A pipe to put load on."""

    url: str
    kind: int
    pid: int = 0  # of a pipe of our own, whose CPU time can be read

    def round(self, clients: int, seconds: float, record_bytes: int) -> Round:
        parts = urlsplit(self.url)
        if parts.scheme != "truba" or not parts.hostname or not parts.port:
            raise BenchError(f"{self.url!r} is no address to put load on: write truba://host:port")
        target = [parts.hostname, str(parts.port), str(self.kind), str(clients)]
        _child("truba.bench.load", *target, str(min(0.3, seconds / 4)), str(record_bytes))  # warm-up
        before = self._cpu_s()
        figures = _child("truba.bench.load", *target, str(seconds), str(record_bytes))
        after = self._cpu_s()
        each = 1e6 / max(figures["operations"], 1)
        figures["server_user_us"] = (after[0] - before[0]) * each
        figures["server_system_us"] = (after[1] - before[1]) * each
        return Round(**figures)

    def _cpu_s(self) -> tuple[float, float]:
        if not self.pid:
            return 0.0, 0.0
        fields = Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()
        tick_s = 1 / os.sysconf("SC_CLK_TCK")
        return int(fields[11]) * tick_s, int(fields[12]) * tick_s


@contextlib.contextmanager
def serving(directory: Path) -> Iterator[Remote]:
    """A freshly started pipe of our own, ended by its id."""
    config = directory / "bench.toml"
    config.write_text(
        '[node]\ndata = "served"\nlisten = "127.0.0.1:0"\nlog_format = "json"\n'
        '[kinds.bench]\nnumber = 7\nhandler = "local:truba.bench.embedded:_nobody"\n'
    )
    process = subprocess.Popen(
        [sys.executable, "-m", "truba", "serve", "--config", str(config)], stderr=subprocess.PIPE, text=True
    )
    try:
        assert process.stderr is not None
        said = []
        for line in process.stderr:
            said.append(line)
            if '"ready"' in line:
                yield Remote(f"truba://{json.loads(line)['listen']}", 7, process.pid)
                break
        else:
            raise BenchError(f"the pipe did not start: {''.join(said)[-2000:].strip()}")
    finally:
        process.terminate()
        try:
            process.communicate(timeout=START_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.communicate()


def _embedded(directory: Path, tasks: int, seconds: float, record_bytes: int) -> Round:
    data = Path(tempfile.mkdtemp(prefix="embedded-", dir=directory))
    try:
        return Round(**_child("truba.bench.embedded", str(data), str(tasks), str(seconds), str(record_bytes)))
    finally:
        shutil.rmtree(data)


def _child(module: str, *arguments: str) -> dict[str, Any]:
    """Run a module to its end and read its JSON; it is ended with us. BenchError with what it said."""
    done = subprocess.run([sys.executable, "-m", module, *arguments], capture_output=True, text=True, check=False)
    if done.returncode:
        lines = done.stderr.strip().splitlines()
        raise BenchError(f"a round failed: {lines[-1] if lines else f'exit {done.returncode}'}")
    figures: dict[str, Any] = json.loads(done.stdout)
    return figures


@contextlib.contextmanager
def _directory(wanted: Path | None) -> Iterator[Path]:
    """A directory of our own, inside the wanted one if any, which goes when we go."""
    with tempfile.TemporaryDirectory(prefix="truba-bench-", dir=wanted) as name:
        yield Path(name)
