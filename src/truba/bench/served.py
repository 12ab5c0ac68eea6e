"""A pipe as a process of its own: `truba serve` on a free port of the loopback address, while it is measured."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, NamedTuple

from truba.bench.worker import end, how, quiet_environment
from truba.errors import TrubaError

LINES_KEPT = 20

CONFIG = """\
[node]
data = "served"
listen = "127.0.0.1:0"
connections_max = {connections_max}

[kinds.bench]
number = {kind}
handler = "local:truba.bench.embedded:finish"
record_max = {record_bytes}
session_max = {session_bytes}
"""


class Served(NamedTuple):
    host: str
    port: int
    pid: int


@contextmanager
def served(directory: Path, kind: int, record_bytes: int, clients_max: int) -> Iterator[Served]:
    """A fresh pipe in that directory. TrubaError when it does not start, or does not stop as it should."""
    config = directory / "truba.toml"
    config.write_text(
        CONFIG.format(
            kind=kind,
            connections_max=clients_max + 16,
            record_bytes=max(record_bytes, 1 << 20),
            session_bytes=max(4 * record_bytes, 64 << 20),
        )
    )
    process = subprocess.Popen(
        [sys.executable, "-m", "truba", "serve", "--config", str(config), "--json"],
        stdin=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        env=quiet_environment(),
        process_group=0,
    )
    assert process.stderr is not None
    try:
        host, port = _ready(process, process.stderr)
        yield Served(host, port, process.pid)
        if code := end(process):
            raise TrubaError(f"truba serve was told to stop and ended with {how(code)}, not with exit code 0")
    finally:
        if process.poll() is None:
            end(process)
        process.stderr.close()


def _ready(process: subprocess.Popen[bytes], stderr: IO[bytes]) -> tuple[str, int]:
    said: deque[str] = deque(maxlen=LINES_KEPT)
    for line in stderr:
        text = line.decode("utf-8", "replace").rstrip()
        said.append(text)
        try:
            event = json.loads(text)
        except ValueError:
            continue
        if event.get("event") == "ready":
            # It may go on to log: nobody reading would stop it once the pipe between us is full.
            threading.Thread(target=deque, args=(stderr, 0), daemon=True).start()
            host, _, port = event["listen"].rpartition(":")
            return host, int(port)
    raise TrubaError(f"truba serve ended with exit code {process.wait()} before it was ready: " + " | ".join(said))
