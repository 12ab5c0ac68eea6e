"""DBOS on a PostgreSQL of its own, configured as in sides/postgresql.py: a workflow of three steps is a session.

DBOS is a library: the workflow runs in the process that calls it, so that process is both the load and the engine.
There is one such process for each processor.
"""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from bench.race.sides import postgresql
from bench.race.sides.side import BUILD, SETUP, Unit, Worked, said, team

PYTHON = BUILD / "venv" / "bin" / "python"
ASK = "from importlib.metadata import version; print(version('dbos'))"


class Dbos:
    name = "dbos"
    unit: Unit = "sessions"

    @property
    def install(self) -> str:
        return f"{postgresql.INSTALL} && {SETUP}" if postgresql.missing() else SETUP

    def missing(self) -> str | None:
        absent = [] if postgresql.missing() is None else [str(postgresql.missing())]
        if not PYTHON.exists() or subprocess.run([PYTHON, "-c", ASK], capture_output=True, check=False).returncode:
            absent.append("dbos")
        return ", ".join(absent) or None

    def version(self) -> str:
        return f"DBOS {said(str(PYTHON), '-c', ASK)} on {postgresql.version()}"

    @contextmanager
    def running(self, directory: Path, clients_max: int) -> Iterator[Worked]:
        with postgresql.cluster(directory, clients_max) as (pid, port):
            url = f"postgresql://{postgresql.USER}@127.0.0.1:{port}/{postgresql.DATABASE}"
            worker = (str(PYTHON), "-m", "bench.race.workers.dbos_client")
            yield Worked((pid,), team(worker, url))
