"""A pipe whose system calls fail: `truba serve` under strace, which gives an error instead of the N-th call.

Only calls on one sort of file count, so that N speaks of the log's commits, say, or of RocksDB's tables. strace counts
for each thread by itself: one fault may strike several threads, each once. A call that is made to fail is not made; one
that is made to return 0 has written nothing (a short write of some bytes cannot be made in this way).
"""

from __future__ import annotations

import errno
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import Literal, NamedTuple

from tests.service.process import PATIENCE_S, ROOT, Child
from truba.processes.tether import tethered

SHORT = "short"
"""Instead of an error: the call says that it has done nothing, as a write may."""

WRITES = ("pwritev", "pwritev2", "pwrite64", "write")
SYNCS = ("fdatasync", "fsync")
READS = ("pread64", "read", "getdents64")
NAMES = ("rename", "unlink", "mkdir")
OTHERS = ("openat", "ftruncate", "fallocate", "sync_file_range", "statfs", "link")
CALLS = (*WRITES, *SYNCS, *READS, *NAMES, *OTHERS)

SEGMENTS_MAX = 80
TABLES_MAX = 250


Place = Literal[
    "data", "log", "lock", "segment", "making", "store", "table", "manifest", "mark", "names", "wal", "diary"
]
_PLACES: tuple[tuple[Place, str], ...] = (
    ("data", r"data"),
    ("log", r"data/log"),
    ("lock", r"data/(log|store)/LOCK"),
    ("making", r"data/log/.*\.tmp"),  # a segment that has not its name yet
    ("segment", r"data/log/.*\.log"),
    ("store", r"data/store"),
    ("table", r"data/store/.*\.sst"),
    ("manifest", r"data/store/MANIFEST-\d+"),
    ("mark", r"data/store/APPLIED.*"),
    ("wal", r"data/store/\d+\.log"),  # RocksDB's own, empty here
    ("diary", r"data/store/LOG"),
    ("names", r"data/store/.*"),  # CURRENT, IDENTITY, OPTIONS, and how they come to be
)


def place_of(paths: Sequence[str]) -> Place:
    """What a call is about: the first path that says so, a file before the directory that it is in."""
    found = [place for path in paths for place, pattern in _PLACES if re.fullmatch(f"/.*/{pattern}", path) is not None]
    return min(found, key=lambda place: (place in ("data", "log", "store"), found.index(place)))


class Fault(NamedTuple):
    """The `number`-th `call` of a thread on files of that place gives `error` (a name of errno, or SHORT)."""

    call: str
    place: Place
    error: str
    number: int

    def __str__(self) -> str:
        return f"{self.call} number {self.number} of a thread on {self.place}: {self.error}"

    def options(self) -> list[str]:
        what = "retval=0" if self.error == SHORT else f"error={self.error}"
        return ["-e", f"inject={self.call}:{what}:when={self.number}"]


class Call(NamedTuple):
    """One line of strace."""

    at_s: float  # wall clock
    thread: int
    call: str
    paths: tuple[str, ...]  # that it names, by name or by descriptor
    injected: bool
    text: str

    @property
    def place(self) -> Place:
        return place_of(self.paths)


class TracedServer(Child):
    """`fault` None: only written down. strace runs beside the pipe, which is our own child and hears our signals."""

    def __init__(self, config: Path, data: Path, trace: Path, fault: Fault | None) -> None:
        self.trace = trace
        strace = ["strace", "-D", "-f", "--seccomp-bpf", "-y", "-ttt", "-s", "0", "-o", str(trace)]
        strace += ["-e", "trace=" + ",".join(CALLS)]
        for path in paths(data):
            if fault is None or place_of([path]) == fault.place:
                strace += ["-P", path]
        strace += [] if fault is None else fault.options()
        pipe = [sys.executable, "-m", "truba", "serve", "--config", str(config)]
        super().__init__(tethered(*strace, *pipe), stdin=subprocess.DEVNULL, cwd=config.parent)

    def ready(self) -> tuple[str, int] | None:
        """Where it listens, once it does; None: it ended before."""
        with self._news:
            assert self._news.wait_for(lambda: self._ready_line() or self._over, PATIENCE_S), "it hangs at the start"
            line = self._ready_line()
        if not line:
            return None
        host, _, port = str(json.loads(line)["listen"]).rpartition(":")
        return host, int(port)

    def _ready_line(self) -> str:
        return next((line for line in self.lines if '"event": "ready"' in line), "")

    def calls(self) -> list[Call]:
        """All of them, once it has ended."""
        return list(read_trace(self.trace.read_text()))


_LINE = re.compile(r"(\d+) +(\d+\.\d+) (.*)")
_RESUMED = re.compile(r"<\.\.\. (\w+) resumed>(.*)")
_PATH = re.compile(r'"(/[^"]*)"|<(/[^>]*)>')


def read_trace(text: str) -> Iterator[Call]:
    """A call that another thread interrupted is put together again."""
    begun: dict[int, str] = {}
    for line in text.splitlines():
        if (found := _LINE.match(line)) is None:
            continue
        thread, at_s, said = int(found[1]), float(found[2]), found[3]
        if said.endswith("<unfinished ...>"):
            begun[thread] = said.removesuffix("<unfinished ...>")
            continue
        if resumed := _RESUMED.match(said):
            said = begun.pop(thread, f"{resumed[1]}(") + resumed[2]
        name, bracket, _ = said.partition("(")
        if bracket and name in CALLS:
            arguments = said.rpartition(" = ")[0]
            named = tuple(first or second for first, second in _PATH.findall(arguments))
            yield Call(at_s, thread, name, named, said.endswith("(INJECTED)"), said)


def paths(data: Path) -> Iterator[str]:
    """All that a pipe may name there: strace knows files, not what is below a directory."""
    yield from map(str, (data, data / "log", data / "store", data / "log" / "LOCK"))
    for number in range(1, SEGMENTS_MAX):
        name = f"{data}/log/segment-{number:010}.log"
        yield from (name, f"{name}.tmp")
    for name in ("APPLIED", "APPLIED.tmp", "CURRENT", "LOCK", "LOG", "IDENTITY", "rocksdict-config.json"):
        yield f"{data}/store/{name}"
    for number in range(TABLES_MAX):
        for name in ("{:06}.sst", "{:06}.log", "{:06}.dbtmp", "MANIFEST-{:06}", "OPTIONS-{:06}", "OPTIONS-{:06}.dbtmp"):
            yield f"{data}/store/{name.format(number)}"


@cache
def why_not() -> str:
    """Why no pipe can be traced here; "" when it can."""
    if shutil.which("strace") is None:
        return "strace is not installed"
    command = ["strace", "-D", "-f", "--seccomp-bpf", "-e", "trace=mkdir", "-e", "inject=mkdir:error=EDQUOT:when=1"]
    ended = subprocess.run(
        [*command, "mkdir", str(ROOT / "never-made")], capture_output=True, text=True, timeout=PATIENCE_S, check=False
    )
    if os.strerror(errno.EDQUOT) not in ended.stderr:
        return f"strace cannot trace here: {ended.stderr.strip()[:300]}"
    return ""
