"""NATS JetStream: one server, one stream in files, one replica, every write synced; each record is published and its
acknowledgement awaited.

It keeps records in order and nothing else: no state of a session, nothing due, nothing deleted. So opening, appending
and finishing are a message each.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from bench.race.processes import server, wait_until_open
from bench.race.script import DIGITS, REST, WHO, AnyBytes, Script, step
from bench.race.sides.side import RECORD, Scripted, Unit, said
from truba.errors import TrubaError
from truba.testing.nats import ServersFailed, find_server
from truba.testing.ports import free_ports

CONFIG = """\
listen: "127.0.0.1:{port}"
max_connections: {clients_max}
jetstream {{ store_dir: "{directory}", max_file_store: 16GB, sync_interval: "always" }}
"""
STREAM = "race"
CONNECT = b'CONNECT {"verbose":false,"pedantic":false,"lang":"c","version":"1","protocol":0}\r\n'
SCRIPT = Script(
    hello=(
        step((), (b"INFO ", REST, b"\r\n")),
        step((CONNECT + b"SUB answer.", WHO, b" 1\r\nPING\r\n"), (REST, b"PONG\r\n")),
    ),
    cycle=(
        step(
            (b"PUB race.log answer.", WHO, b" %d\r\n%b\r\n" % (len(RECORD), RECORD)),
            (b"MSG answer.", AnyBytes(6), b" 1 ", DIGITS, b'\r\n{"stream":"race","seq":', DIGITS, b"}\r\n"),
        ),
    ),
    aside=b"PING\r\n",
)


class Nats:
    name = "nats"
    unit: Unit = "operations"
    install = "make test"

    def missing(self) -> str | None:
        try:
            find_server()
        except ServersFailed:
            return "nats-server"
        return None

    def version(self) -> str:
        return "NATS JetStream " + said(find_server(), "--version").split()[-1].lstrip("v")

    @contextmanager
    def running(self, directory: Path, clients_max: int) -> Iterator[Scripted]:
        (port,) = free_ports(1)
        config = directory / "nats.conf"
        config.write_text(CONFIG.format(port=port, directory=directory, clients_max=clients_max + 16))
        with server([find_server(), "-c", str(config)], directory) as process:
            wait_until_open(process, port, directory, "nats-server")
            asyncio.run(_make_stream(port))
            yield Scripted((process.pid,), port, SCRIPT)


async def _make_stream(port: int) -> None:
    import nats

    client = await nats.connect(f"nats://127.0.0.1:{port}", allow_reconnect=False)
    try:
        wanted = {"name": STREAM, "subjects": [f"{STREAM}.log"], "storage": "file", "num_replicas": 1}
        answer = await client.request(f"$JS.API.STREAM.CREATE.{STREAM}", json.dumps(wanted).encode(), timeout=30)
        if error := json.loads(answer.data).get("error"):
            raise TrubaError(f"nats-server makes no stream: {error}")
    finally:
        await client.close()
