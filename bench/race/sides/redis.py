"""Redis with `appendfsync always`: a list for each session, and a sorted set of the unfinished ones by due time.

Each operation is one MULTI, in one write: without it another client could see a record whose session is not due. The
automatic rewrite of the append-only file keeps its defaults. No snapshots, which the file makes needless.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from bench.race.processes import server, wait_until_open
from bench.race.script import DUE, ID, Script, Step, Token, resp, step
from bench.race.sides.side import RECORD, Scripted, Unit, said
from truba.testing.ports import free_ports

CONFIG = """\
bind 127.0.0.1
port {port}
dir {directory}
save ""
appendonly yes
appendfsync always
maxclients {clients_max}
"""
LIST: tuple[Token, ...] = (b"s:", ID)


def transaction(*commands: tuple[Token, ...], answers: tuple[int, ...]) -> Step:
    say = [*resp(b"MULTI"), *(token for command in commands for token in command), *resp(b"EXEC")]
    results = b"".join(b":%d\r\n" % answer for answer in answers)
    return step(say, b"+OK\r\n" + b"+QUEUED\r\n" * len(commands) + b"*%d\r\n" % len(commands) + results)


def write(number: int) -> Step:
    """Record `number` of a session, from 1; the first one makes the list and the entry in the set."""
    push, due = resp(b"RPUSH", LIST, RECORD), resp(b"ZADD", b"due", DUE, (ID, b""))
    return transaction(push, due, answers=(number, int(number == 1)))


SCRIPT = Script(
    (
        write(1),
        write(2),
        write(3),
        transaction(resp(b"DEL", LIST), resp(b"ZREM", b"due", (ID, b"")), answers=(1, 1)),
    )
)


class Redis:
    name = "redis"
    unit: Unit = "operations"
    install = "apt-get install redis-server"

    def missing(self) -> str | None:
        return None if shutil.which("redis-server") else "redis-server"

    def version(self) -> str:
        return "Redis " + said("redis-server", "--version").split("v=")[1].split()[0]

    @contextmanager
    def running(self, directory: Path, clients_max: int) -> Iterator[Scripted]:
        (port,) = free_ports(1)
        config = directory / "redis.conf"
        config.write_text(CONFIG.format(port=port, directory=directory, clients_max=clients_max + 16))
        with server(["redis-server", str(config)], directory) as process:
            wait_until_open(process, port, directory, "redis-server")
            yield Scripted((process.pid,), port, SCRIPT)
