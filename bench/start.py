"""How long until a pipe is of use: from the command to `ready`, and `import truba`.

    python bench/start.py

Medians of five, each in a process of its own, after one that warms the caches of files. `ready` counts from the start
of the process until its log line is read, on an empty directory and on one whose log must be replayed; aims: 1 s and
150 ms for the import, of which Python's own start is not part.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

TIMES = 5
SESSIONS = 20_000
CONFIG = """\
[node]
listen = "127.0.0.1:0"
[kinds.a]
number = 7
handler = "truba://127.0.0.1:1"
recovery_delay = "1h"
"""


def import_ms() -> float:
    code = "import time; t = time.perf_counter(); import truba; print((time.perf_counter() - t) * 1000)"
    return float(subprocess.run([sys.executable, "-c", code], capture_output=True, check=True).stdout)


def start(directory: Path) -> tuple[subprocess.Popen[str], float, int]:
    """A pipe in that directory, milliseconds until it said that it is ready, and its port."""
    (directory / "truba.toml").write_text(CONFIG)
    began = time.perf_counter()
    process = subprocess.Popen(
        [sys.executable, "-m", "truba", "serve"], cwd=directory, stderr=subprocess.PIPE, text=True
    )
    assert process.stderr is not None
    for line in process.stderr:
        if line.startswith("{") and (said := json.loads(line))["event"] == "ready":
            return process, (time.perf_counter() - began) * 1000, int(said["listen"].rpartition(":")[2])
    raise SystemExit("the pipe did not start")


def end(process: subprocess.Popen[str], signum: int) -> None:
    process.send_signal(signum)
    process.communicate()


def fill(port: int) -> None:
    """Sessions of one record each, which the next start finds in the log."""
    request = b"*3\r\n$3\r\nNEW\r\n$1\r\n7\r\n$256\r\n" + bytes(256) + b"\r\n"
    with socket.create_connection(("127.0.0.1", port)) as client:
        for _ in range(SESSIONS // 1_000):
            client.sendall(request * 1_000)
            answers = 0
            while answers < 2 * 1_000:  # two lines each
                answers += client.recv(1 << 16).count(b"\n")


def empty_ms() -> float:
    with tempfile.TemporaryDirectory(dir=os.environ.get("BENCH_DIR")) as name:
        process, took_ms, _ = start(Path(name))
        end(process, signal.SIGTERM)
        return took_ms


def replay_ms() -> float:
    with tempfile.TemporaryDirectory(dir=os.environ.get("BENCH_DIR")) as name:
        process, _, port = start(Path(name))
        fill(port)
        end(process, signal.SIGKILL)
        process, took_ms, _ = start(Path(name))
        end(process, signal.SIGTERM)
        return took_ms


def main() -> None:
    for what, measure in (
        ("import truba", import_ms),
        ("ready, empty directory", empty_ms),
        (f"ready, {SESSIONS} sessions to replay after kill -9", replay_ms),
    ):
        measure()
        print(f"{what:50} {statistics.median(measure() for _ in range(TIMES)):8.0f} ms")  # noqa: T201 - its result


if __name__ == "__main__":
    main()
