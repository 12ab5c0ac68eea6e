"""Compiles and runs the load, and measures what it and the servers use meanwhile.

Whatever makes the load (load.c, or a worker of a workflow engine) speaks one small language: it writes `begin` when
warm, then one line of JSON (`seconds`, `user_s`, `system_s`, `counts`: pairs of microseconds and how many took that
long), and keeps its connections until its stdin ends.
"""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import tempfile
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from bench.race.processes import usage_of_trees
from bench.race.script import Script
from truba.bench.latency import Counts
from truba.bench.machine import Cpu, busy_s
from truba.errors import TrubaError

HERE = Path(__file__).parent
PATIENCE_S = 180.0
"""How much longer than ordered a measurement may take, greetings and last sessions included."""


@dataclass(frozen=True, slots=True)
class Measure:
    """One turn."""

    seconds: float
    counts: Counts
    load: Cpu
    servers: Cpu
    workers: Cpu
    others_s: float  # processor time of everything else on the machine

    @property
    def operations(self) -> int:
        return sum(self.counts.values())

    @property
    def rate_per_s(self) -> float:
        return self.operations / self.seconds


@dataclass(frozen=True, slots=True)
class Programs:
    """The compiled ones, and where scripts are put."""

    directory: Path

    def command(self, script: Script, port: int, clients: int, warm_s: float, measure_s: float) -> list[str]:
        """Of the load that says this script to that port."""
        text = script.text()
        path = self.directory / f"{abs(hash(text)):x}.script"
        path.write_text(text)
        return [
            str(self.directory / "load"),
            str(path),
            "127.0.0.1",
            f"{port}",
            f"{clients}",
            f"{warm_s}",
            f"{measure_s}",
        ]

    @contextmanager
    def null(self, script: Script) -> Iterator[int]:
        """A server that answers whatever comes with `script`'s example: its port."""
        process = subprocess.Popen(
            [self.directory / "null", script.example().hex()],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            start_new_session=True,
        )
        with process:
            assert process.stdout is not None
            try:
                yield int(process.stdout.readline())
            finally:
                process.kill()


def compiler() -> str | None:
    return shutil.which("cc")


def compiled(directory: Path) -> Programs:
    """TrubaError when there is no compiler, or it refuses."""
    cc = compiler()
    if cc is None:
        raise TrubaError("the load is a program in C, and there is no compiler: apt-get install gcc libc6-dev")
    for name in ("load", "null"):
        command = [cc, "-O2", "-Wall", "-Wextra", "-Werror", "-o", str(directory / name), str(HERE / f"{name}.c")]
        ended = subprocess.run(command, capture_output=True, text=True, check=False)
        if ended.returncode:
            raise TrubaError(f"{' '.join(command)}: {ended.stderr}")
    return Programs(directory)


def measured(
    command: Sequence[str], seconds: float, servers: Sequence[int] = (), workers: Sequence[int] = ()
) -> Measure:
    """Run a load to its end. `seconds`: about how long that takes. TrubaError, with what it said, when it fails."""
    with tempfile.TemporaryFile() as said:
        process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=said, start_new_session=True
        )
        watchdog = threading.Timer(seconds + PATIENCE_S, process.kill)
        watchdog.start()
        try:
            assert process.stdin is not None
            assert process.stdout is not None
            result = b""
            if process.stdout.readline() == b"begin\n":
                before, workers_before, busy = usage_of_trees(servers), usage_of_trees(workers), busy_s()
                result = process.stdout.readline()
                used = usage_of_trees(servers).since(before)
                workers_used = usage_of_trees(workers).since(workers_before)
                busy = busy_s() - busy
            process.stdin.close()
            code = process.wait()
        finally:
            watchdog.cancel()
            if process.poll() is None:
                process.kill()
                process.wait()
            for stream in (process.stdin, process.stdout):
                if stream is not None:
                    stream.close()
        if code or not result:
            said.seek(0)
            words = said.read().decode(errors="replace").strip()[-2000:]
            how = f"signal {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"
            raise TrubaError(f"{Path(command[0]).name} ended with {how}: {words}")
    found = json.loads(result)
    load = Cpu(found["user_s"], found["system_s"])
    return Measure(
        seconds=found["seconds"],
        counts=dict(map(tuple, found["counts"])),
        load=load,
        servers=used,
        workers=workers_used,
        others_s=max(0.0, busy - sum(load) - sum(used) - sum(workers_used)),
    )
