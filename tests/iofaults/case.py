"""`case(n)`: a real pipe, one system call of which fails, while clients work; then a start without faults.

Whatever fails: the pipe refuses to start, or stops itself, or goes on, and says so; it never hangs, and everything
that it acknowledged is there afterwards. n walks over all calls of the workload and all errors, far apart first.
"""

from __future__ import annotations

import asyncio
import re
import shutil
import signal
import time
from collections import Counter
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Literal

from tests.iofaults.client import Client
from tests.iofaults.ledger import Records, compare
from tests.iofaults.spread import spread
from tests.iofaults.traced import NAMES, READS, SHORT, SYNCS, WRITES, Call, Fault, Place, TracedServer, why_not
from tests.service.process import kind
from truba.compose import build
from truba.kinds import Kind

SEGMENT_BYTES = 64 << 10
NODE = 'listen = "127.0.0.1:0"\nsegment = "64KiB"\nreserve = "0B"\nstop_timeout = "5s"\n'
ROUNDS = 25
"""Sessions of each connection: a dozen segments, and as many checkpoints."""


def config(*, checkpoint: str = "64KiB") -> str:
    return f'[node]\n{NODE}checkpoint = "{checkpoint}"\n{kind(recovery_delay="1h")}'


FULL = ("ENOSPC", "EDQUOT")
ERRORS: dict[str, tuple[str, ...]] = (
    dict.fromkeys(WRITES, ("EIO", "ENOSPC", "EDQUOT", "EROFS", "EINTR", SHORT))
    | dict.fromkeys(SYNCS, ("EIO", "ENOSPC", "EDQUOT", "EROFS", "EINTR"))
    | dict.fromkeys(READS, ("EIO", "EINTR"))
    | dict.fromkeys(NAMES, ("EIO", "ENOSPC", "EDQUOT", "EROFS"))
    | {
        "getdents64": ("EIO",),
        "unlink": ("EIO", "EROFS"),
        "openat": ("EIO", "ENOSPC", "EDQUOT", "EROFS", "EMFILE", "EINTR"),
        "ftruncate": ("EIO", "EROFS", "EINTR"),
        "fallocate": ("EIO", "ENOSPC", "EDQUOT", "EINTR"),
        "sync_file_range": ("EIO", "ENOSPC"),
        "statfs": ("EIO", "EINTR"),
        "link": ("EIO", "ENOSPC", "EROFS"),
    }
)
"""What the system may answer each call."""

EXIT_OK, EXIT_PROBLEM, EXIT_DATA, EXIT_STOPPED = 0, 1, 7, 70  # as docs/cli.md tells them
End = Literal["refused to start", "stopped itself", "went on"]


@dataclass
class Trial:
    """One fault, and what came of it."""

    fault: Fault | None
    begun: bool  # whether the directory held a log and a store before
    seed: int
    killed: bool = False  # without checkpoints, and at the end killed: all that clients wrote is in the log alone
    end: End = "went on"
    struck: list[Call] = field(default_factory=list)  # the calls that failed
    calls: list[Call] = field(default_factory=list)
    said: str = ""
    asked_to_stop_s: float = float("inf")

    def run(self) -> Trial:
        """AssertionError with the story when something is wrong."""
        with TemporaryDirectory(prefix="truba-iofaults-") as directory:
            try:
                self._run(Path(directory))
            except (AssertionError, TimeoutError) as error:
                raise AssertionError(f"{error}\n{self.story()}") from error
        return self

    def story(self) -> str:
        where = "a directory with data" if self.begun else "an empty directory"
        struck = "\n".join(f"  {call.thread} {call.text}" for call in self.struck) or "  (not reached)"
        return f"{self.fault}, seed {self.seed}, in {where}: {self.end}\n{struck}\nit said:\n{self.said}"

    def _run(self, directory: Path) -> None:
        data, file, client = directory / "data", directory / "truba.toml", Client(self.seed)
        file.write_text(config(checkpoint="64MiB") if self.killed else config())
        if self.begun:
            kept, before = _begun()
            shutil.copytree(Path(kept.name) / "data", data)
            client.jobs |= before.jobs
        server = TracedServer(file, data, directory / "trace", self.fault)
        try:
            alive = (address := server.ready()) is not None and client.work(address, ROUNDS)
            if alive:
                self.asked_to_stop_s = time.time()
                server.send(signal.SIGKILL if self.killed else signal.SIGTERM)
            code = server.wait()
        finally:
            server.kill()
            self.said = "".join(server.lines)
            if server.trace.exists():
                self.calls = server.calls()
                self.struck = [call for call in self.calls if call.injected]
        if alive and code == -signal.SIGKILL:
            code = EXIT_OK  # it would have gone on
        self._judge(code, ready=address is not None)
        compare(client.jobs, asyncio.run(_found(data)))

    def _judge(self, code: int, *, ready: bool) -> None:
        """Whether it ended as it should, and told why."""
        assert "Traceback" not in self.said, "a traceback is no message"
        if code == EXIT_OK:
            assert ready, "exit 0 without a start"
        elif ready:
            self.end = "stopped itself"
            assert code == EXIT_STOPPED, f"exit {code}"
            assert re.search('"event": "the (pipe has stopped|store has failed)"', self.said), "it does not say why"
            assert self.struck, "stopped without a fault"
        else:
            self.end = "refused to start"
            assert code in (EXIT_PROBLEM, EXIT_DATA, EXIT_STOPPED), f"exit {code}"
            assert re.search(r"^truba: .+|the pipe has stopped", self.said, re.MULTILINE), "it does not say why"
            assert self.struck, "refused without a fault"
        if self.fault is not None:
            for call in self.struck:
                self._judge_call(call, code, self.fault)

    def _judge_call(self, call: Call, code: int, fault: Fault) -> None:
        """Calls on the log itself, and on the store's mark: which failures must end the pipe, and which must not."""
        if fault.place == "mark" and fault.error not in ("EINTR", SHORT) and call.at_s < self.asked_to_stop_s:
            assert code != EXIT_OK, f"{call.text} failed, and nobody was told"
        if fault.place not in ("log", "segment", "making"):
            return
        if fault.error == "EINTR" or (fault.error, fault.place) == (SHORT, "segment"):
            # What makes a segment, or mends one at the start, takes a write of nothing for an error: loud, but right.
            assert code == EXIT_OK or self.end == "refused to start", f"{call.text} is to be survived"
        elif call.at_s < self.asked_to_stop_s and not (
            fault.error in FULL and (fault.place == "making" or fault.call == "rename")
        ):
            # A full disk may keep segments from being made or recycled: growth is refused then. And after the stop was
            # asked for, a segment that nobody will use may fail in silence.
            assert code != EXIT_OK, f"{call.text} failed, and nobody was told"


async def _handle(repeat: object) -> None:
    raise AssertionError("handed over before its time")


async def _found(data: Path) -> dict[str, Records]:
    """All records by id, after a start without faults; and once more after another."""
    kinds = [Kind(7, "transfer", handler=_handle, recovery_delay_s=3600)]
    found: list[dict[str, Records]] = []
    for _ in range(2):
        parts = build(data, kinds, segment_bytes=SEGMENT_BYTES, reserve_bytes=0)
        try:
            await parts.node.start()
            machine = parts.node.machine
            found.append({str(head.id): machine.records(head.number) for head in machine.scan()})
        finally:
            await parts.close()
        assert not parts.node.failed.done(), parts.node.failed.result()
    assert found[0] == found[1]
    return found[0]


@cache
def _begun() -> tuple[TemporaryDirectory[str], Client]:
    """A directory that a pipe worked in until it was killed, and what its clients were told."""
    kept = TemporaryDirectory(prefix="truba-iofaults-begun-")
    directory, client = Path(kept.name), Client(0, b"begun")
    (directory / "truba.toml").write_text(config())
    server = TracedServer(directory / "truba.toml", directory / "data", directory / "trace", None)
    try:
        address = server.ready()
        assert address is not None, "".join(server.lines)
        assert client.work(address, ROUNDS)
    finally:
        server.kill()
    return kept, client


@cache
def reached(*, begun: bool) -> dict[tuple[str, Place], int]:
    """How often one thread makes each call on each sort of file, in the workload without faults."""
    counts = Counter((call.thread, call.call, call.place) for call in Trial(None, begun, 1).run().calls)
    most: dict[tuple[str, Place], int] = {}
    for (_, call, place), count in sorted(counts.items()):
        most[call, place] = max(most.get((call, place), 0), count)
    return dict(sorted(most.items()))


def sorts() -> list[tuple[str, Place]]:
    """Each call on each sort of file, that the workload reaches in an empty directory or in one with data."""
    return sorted(reached(begun=False).keys() | reached(begun=True).keys())


def trial(n: int) -> Trial:
    """The n-th fault of all: each sort of call one after the other, in turn; and of each, far from those before."""
    cycle, at = divmod(n, len(sorts()))
    sort = call, place = sorts()[at]
    begun = sort not in reached(begun=False) or (sort in reached(begun=True) and (cycle + at) % 2 == 1)
    errors = ERRORS[call]
    count = reached(begun=begun)[sort] * len(errors)
    seed, turn = divmod(cycle // 2, count)
    number, error = divmod(spread((turn + at) % count, count), len(errors))
    fault = Fault(call, place, errors[error], 1 + number)
    return Trial(fault, begun, 1 + seed, killed=place == "segment" and fault.error in ("EINTR", SHORT))


def case(n: int) -> None:
    """AssertionError with the story when something is wrong; RuntimeError when nothing can be traced here."""
    if why := why_not():
        raise RuntimeError(f"no system call can be made to fail here: {why}")
    trial(n).run()
