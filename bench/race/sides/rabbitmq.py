"""RabbitMQ: one quorum queue, which syncs what it confirms; each record is published and its confirm awaited.

Like the stream of NATS it keeps records in order and nothing else. One node, no plugins; but for paths and ports all
settings are the defaults. It wants a name server of Erlang nodes, epmd, which is ours too.
"""

from __future__ import annotations

import shutil
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from bench.race.processes import server, wait_until_open
from bench.race.script import REST, AnyBytes, Script, step
from bench.race.sides.side import RECORD, Scripted, Unit, said
from truba.testing.ports import free_ports

PROGRAM = Path("/usr/lib/rabbitmq/bin/rabbitmq-server")
"""Not the one on the PATH, which changes to a user of its own and knows its own directories only."""
QUEUE = b"race"
FRAME_END = b"\xce"


def frame(kind: int, channel: int, payload: bytes) -> bytes:
    return struct.pack("!BHI", kind, channel, len(payload)) + payload + FRAME_END


def method(channel: int, family: int, number: int, arguments: bytes = b"") -> bytes:
    return frame(1, channel, struct.pack("!HH", family, number) + arguments)


def short(text: bytes) -> bytes:
    return bytes([len(text)]) + text


def long(text: bytes) -> bytes:
    return struct.pack("!I", len(text)) + text


START_OK = method(0, 10, 11, long(b"") + short(b"PLAIN") + long(b"\0guest\0guest") + short(b"en_US"))
TUNE_OK = method(0, 10, 31, struct.pack("!HIH", 2047, 131072, 0))
OPEN = method(0, 10, 40, short(b"/") + short(b"") + b"\0")
QUORUM = long(short(b"x-queue-type") + b"S" + long(b"quorum"))
DURABLE = b"\x02"
DECLARE = method(1, 50, 10, b"\0\0" + short(QUEUE) + DURABLE + QUORUM)
PERSISTENT = struct.pack("!HHQHB", 60, 0, len(RECORD), 1 << 12, 2)
PUBLISH = method(1, 60, 40, b"\0\0" + short(b"") + short(QUEUE) + b"\0") + frame(2, 1, PERSISTENT) + frame(3, 1, RECORD)
SCRIPT = Script(
    hello=(
        step(b"AMQP\0\0\x09\x01", (b"\x01\0\0", REST, FRAME_END)),
        step(START_OK, (b"\x01\0\0\0\0\0\x0c\0\x0a\0\x1e", AnyBytes(8), FRAME_END)),
        step(TUNE_OK + OPEN, method(0, 10, 41, short(b""))),
        step(method(1, 20, 10, short(b"")), method(1, 20, 11, long(b""))),
        step(DECLARE, (b"\x01\0\x01", AnyBytes(4), b"\0\x32\0\x0b" + short(QUEUE), AnyBytes(8), FRAME_END)),
        step(method(1, 85, 10, b"\0"), method(1, 85, 11)),
    ),
    cycle=(step(PUBLISH, (b"\x01\0\x01\0\0\0\x0d\0\x3c\0\x50", AnyBytes(9), FRAME_END)),),
)

CONFIG = """\
listeners.tcp.1 = 127.0.0.1:{port}
heartbeat = 0
"""


class RabbitMq:
    name = "rabbitmq"
    unit: Unit = "operations"
    install = "apt-get install --no-install-recommends rabbitmq-server"

    def missing(self) -> str | None:
        absent = [str(PROGRAM)] if not PROGRAM.exists() else []
        absent += [] if shutil.which("epmd") else ["epmd"]
        return ", ".join(absent) or None

    def version(self) -> str:
        package = said("dpkg-query", "--showformat", "${Version}", "--show", "rabbitmq-server")
        return f"RabbitMQ {package.partition('-')[0]}"

    @contextmanager
    def running(self, directory: Path, clients_max: int) -> Iterator[Scripted]:
        port, names, distribution = free_ports(3)
        (directory / "rabbitmq.conf").write_text(CONFIG.format(port=port))
        (directory / "enabled_plugins").write_text("[].\n")
        (directory / "rabbitmq-env.conf").touch()
        environment = {
            "HOME": str(directory),
            "ERL_EPMD_ADDRESS": "127.0.0.1",
            "ERL_EPMD_PORT": f"{names}",
            "RABBITMQ_NODENAME": "race@localhost",
            "RABBITMQ_DIST_PORT": f"{distribution}",
            "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": "-kernel inet_dist_use_interface {127,0,0,1}",
            "RABBITMQ_CONF_ENV_FILE": str(directory / "rabbitmq-env.conf"),
            "RABBITMQ_CONFIG_FILE": str(directory / "rabbitmq.conf"),
            "RABBITMQ_ENABLED_PLUGINS_FILE": str(directory / "enabled_plugins"),
            "RABBITMQ_MNESIA_BASE": str(directory / "mnesia"),
            "RABBITMQ_LOG_BASE": str(directory / "log"),
            "RABBITMQ_PID_FILE": str(directory / "pid"),
        }
        with (
            server([str(shutil.which("epmd"))], directory, environment=environment) as epmd,
            server([str(PROGRAM)], directory, environment=environment) as process,
        ):
            wait_until_open(epmd, names, directory, "epmd")
            wait_until_open(process, port, directory, PROGRAM.name)
            yield Scripted((process.pid, epmd.pid), port, SCRIPT)
