"""truba over TCP: a real `truba serve`, with the load in C or with truba's own Python client."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from bench.race.script import DIGITS, ID, NAME, Script, resp, step
from bench.race.sides.side import RECORD, RECORD_BYTES, Scripted, Unit, Worked, team
from truba import __version__
from truba.bench.served import served

KIND = 7
OK = b"+OK\r\n"
APPEND = step(resp(b"APPEND", ID, RECORD), OK)
SCRIPT = Script(
    (
        step(resp(b"NEW", b"%d" % KIND, RECORD), (b"$", DIGITS, b"\r\n", NAME, b"\r\n")),
        APPEND,
        APPEND,
        step(resp(b"DELETE", ID), OK),
    )
)


class Truba:
    name = "truba"
    unit: Unit = "operations"
    install = "make test"

    def missing(self) -> str | None:
        return None

    def version(self) -> str:
        return f"truba {__version__}"

    @contextmanager
    def running(self, directory: Path, clients_max: int) -> Iterator[Scripted]:
        with served(directory, KIND, RECORD_BYTES, clients_max) as pipe:
            yield Scripted((pipe.pid,), pipe.port, SCRIPT)


class TrubaPython:
    name = "truba-python"
    unit: Unit = "sessions"
    install = "make test"

    def missing(self) -> str | None:
        return None

    def version(self) -> str:
        return f"truba {__version__}"

    @contextmanager
    def running(self, directory: Path, clients_max: int) -> Iterator[Worked]:
        with served(directory, KIND, RECORD_BYTES, clients_max) as pipe:
            worker = (sys.executable, "-m", "bench.race.workers.truba_client")
            yield Worked((pipe.pid,), team(worker, f"truba://{pipe.host}:{pipe.port}", f"{KIND}"))
