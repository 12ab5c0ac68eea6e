"""PostgreSQL: a table of sessions with an index on the due time, a table of records; an operation is one transaction.

Requests are prepared statements of the extended protocol, all of a transaction in one write with one Sync at its end,
which is what makes them one transaction: the shortest way there is. No foreign key, no trigger. `synchronous_commit`
and fsync are on; memory and the size of its log are what a small server would be given. It refuses to run as root:
where the race does, it is the user `postgres`.
"""

from __future__ import annotations

import os
import shutil
import signal
import struct
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from bench.race.processes import POLL_S, READY_S, server, wait_until_open
from bench.race.script import DUE, DUE_BYTES, ID, ID_BYTES, REST, Script, Step, Token, step
from bench.race.sides.side import RECORD, Scripted, Unit, said
from truba.errors import TrubaError
from truba.testing.ports import free_ports

USER, DATABASE = "race", "postgres"
SETTINGS = {
    "listen_addresses": "'127.0.0.1'",
    "unix_socket_directories": "''",
    "synchronous_commit": "on",
    "fsync": "on",
    "shared_buffers": "'512MB'",
    "max_wal_size": "'4GB'",
}
SCHEMA = """\
CREATE TABLE session (id bigint PRIMARY KEY, due bigint NOT NULL);
CREATE INDEX session_due ON session (due);
CREATE TABLE record (session bigint, number int, body bytea NOT NULL, PRIMARY KEY (session, number));
"""
STATEMENTS = {
    b"open": b"INSERT INTO session (id, due) VALUES ($1::bigint, $2::bigint)",
    b"write": b"INSERT INTO record (session, number, body) VALUES ($1::bigint, $2::int, $3::bytea)",
    b"touch": b"UPDATE session SET due = $2::bigint WHERE id = $1::bigint",
    b"clear": b"DELETE FROM record WHERE session = $1::bigint",
    b"close": b"DELETE FROM session WHERE id = $1::bigint",
}
INSTALL = "apt-get install postgresql"
READY = b"Z" + struct.pack("!ic", 5, b"I")
"""ReadyForQuery, no transaction under way."""


def message(kind: bytes, body: bytes) -> bytes:
    return kind + struct.pack("!i", 4 + len(body)) + body


def bind(statement: bytes, *values: Token) -> list[Token]:
    """Bind and Execute: all values as text, but for the bytes of a record."""
    sizes = [ID_BYTES if value is ID else DUE_BYTES if value is DUE else len(_bytes(value)) for value in values]
    formats = [int(value == RECORD) for value in values]
    head = b"\0" + statement + b"\0" + struct.pack(f"!h{len(values)}hh", len(values), *formats, len(values))
    tail = struct.pack("!h", 0)
    length = 4 + len(head) + sum(4 + size for size in sizes) + len(tail)
    tokens: list[Token] = [b"B" + struct.pack("!i", length) + head]
    for size, value in zip(sizes, values, strict=True):
        tokens += [struct.pack("!i", size), value]
    return [*tokens, tail, message(b"E", b"\0" + struct.pack("!i", 0))]


def _bytes(value: Token) -> bytes:
    assert isinstance(value, bytes)
    return value


def transaction(*statements: tuple[list[Token], bytes]) -> Step:
    """Each bound statement with the tag that says what it did; one Sync."""
    say = [token for bound, _ in statements for token in bound]
    hear = b"".join(message(b"2", b"") + message(b"C", tag + b"\0") for _, tag in statements)
    return step([*say, message(b"S", b"")], hear + READY)


def write(number: int) -> tuple[list[Token], bytes]:
    return bind(b"write", ID, b"%d" % number, RECORD), b"INSERT 0 1"


TOUCH = (bind(b"touch", ID, DUE), b"UPDATE 1")
STARTUP = message(b"", struct.pack("!i", 196608) + f"user\0{USER}\0database\0{DATABASE}\0\0".encode())
PREPARE = b"".join(message(b"P", name + b"\0" + sql + b"\0\0\0") for name, sql in STATEMENTS.items())
SCRIPT = Script(
    hello=(
        step(STARTUP, (REST, READY)),
        step(PREPARE + message(b"S", b""), message(b"1", b"") * len(STATEMENTS) + READY),
    ),
    cycle=(
        transaction((bind(b"open", ID, DUE), b"INSERT 0 1"), write(1)),
        transaction(write(2), TOUCH),
        transaction(write(3), TOUCH),
        transaction((bind(b"clear", ID), b"DELETE 3"), (bind(b"close", ID), b"DELETE 1")),
    ),
)


def program(name: str) -> str | None:
    """Debian keeps the server's programs off the PATH, a directory for each version."""
    kept = sorted(Path("/usr/lib/postgresql").glob(f"*/bin/{name}"), key=lambda path: int(path.parts[-3]))
    return str(kept[-1]) if kept else shutil.which(name)


def missing() -> str | None:
    absent = [name for name in ("postgres", "initdb", "psql", "pg_isready") if program(name) is None]
    return ", ".join(absent) or None


def version() -> str:
    return "PostgreSQL " + said(str(program("postgres")), "--version").split()[2]


@contextmanager
def cluster(directory: Path, clients_max: int, schema: str = "") -> Iterator[tuple[int, int]]:
    """A running server: its process and its port."""
    (port,) = free_ports(1)
    data, user = directory / "data", "postgres" if os.geteuid() == 0 else None
    data.mkdir(mode=0o700)
    if user is not None:
        shutil.chown(data, user, user)
    _run([str(program("initdb")), "-D", str(data), "-U", USER, "-A", "trust", "-E", "UTF8", "--locale=C"], user)
    settings = {**SETTINGS, "port": f"{port}", "max_connections": f"{clients_max + 50}"}
    with (data / "postgresql.conf").open("a") as config:
        config.writelines(f"{name} = {value}\n" for name, value in settings.items())
    fast = signal.SIGINT  # sessions are not waited for
    with server([str(program("postgres")), "-D", str(data)], directory, user=user, stop=fast) as process:
        wait_until_open(process, port, directory, "postgres")
        _until_it_takes_clients(port)
        psql = [str(program("psql")), f"postgresql://{USER}@127.0.0.1:{port}/{DATABASE}", "-qv", "ON_ERROR_STOP=1"]
        if schema:
            _run([*psql, "-c", schema], None)
        yield process.pid, port


def _until_it_takes_clients(port: int) -> None:
    """It listens before it is ready, and refuses whoever comes meanwhile."""
    ask = [str(program("pg_isready")), "-q", "-h", "127.0.0.1", "-p", f"{port}"]
    until = time.monotonic() + READY_S
    while subprocess.run(ask, check=False).returncode:
        if time.monotonic() > until:
            raise TrubaError(f"PostgreSQL took no clients within {READY_S:g} s")
        time.sleep(POLL_S)


def _run(command: Sequence[str], user: str | None) -> None:
    ended = subprocess.run(
        command, capture_output=True, text=True, check=False, user=user, group=user, cwd="/", timeout=300
    )
    if ended.returncode:
        raise TrubaError(f"{command[0]}: {ended.stderr.strip() or ended.stdout.strip()}")


class PostgreSql:
    name = "postgresql"
    unit: Unit = "operations"
    install = INSTALL

    def missing(self) -> str | None:
        return missing()

    def version(self) -> str:
        return version()

    @contextmanager
    def running(self, directory: Path, clients_max: int) -> Iterator[Scripted]:
        with cluster(directory, clients_max, SCHEMA) as (pid, port):
            yield Scripted((pid,), port, SCRIPT)
