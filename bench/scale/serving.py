"""`truba serve` on a directory that holds sessions already, as a process of its own."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from bench.scale.pipes import ASLEEP, LOCAL, SERVICE, WORK
from truba.bench.worker import end, quiet_environment
from truba.errors import TrubaError
from truba.processes.tether import tethered

NOBODY = 'handler = "truba://127.0.0.1:1"\nrecovery_delay = "1h"\n'
"""Nothing listens there: what is due stays so."""

CONFIG = """\
[node]
listen = "127.0.0.1:0"
data = {data}
connections_max = 100_000
""" + "".join(
    f"[kinds.{name}]\nnumber = {number}\n{NOBODY}"
    for name, number in (("asleep", ASLEEP), ("local", LOCAL), ("service", SERVICE), ("work", WORK))
)


class Served(NamedTuple):
    pid: int
    port: int
    ready_s: float  # from the start of its process until it said so; 20 ms of it are the tether's


@contextmanager
def served(data: Path) -> Iterator[Served]:
    """Ended by SIGTERM. TrubaError when it does not come to be ready."""
    config = data.with_suffix(".toml")
    config.write_text(CONFIG.format(data=json.dumps(str(data))))
    began_s = time.perf_counter()
    process = subprocess.Popen(
        tethered(sys.executable, "-m", "truba", "serve", "--config", str(config), "--json"),
        stdin=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        env=quiet_environment(),
        process_group=0,
    )
    assert process.stderr is not None
    try:
        said: deque[str] = deque(maxlen=5)
        for line in process.stderr:
            said.append(line.decode("utf-8", "replace"))
            if said[-1].startswith("{") and (event := json.loads(said[-1]))["event"] == "ready":
                break
        else:
            raise TrubaError(f"truba serve ended before it was ready: {' | '.join(said)}")
        ready_s = time.perf_counter() - began_s
        threading.Thread(target=deque, args=(process.stderr, 0), daemon=True).start()  # else it would wait for a reader
        yield Served(process.pid, int(event["listen"].rpartition(":")[2]), ready_s)
    finally:
        end(process)
        process.stderr.close()
