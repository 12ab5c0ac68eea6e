"""Servers of the race: started, frozen while others have their turn, their processor time, ended by process id.

Nothing outlives the race: each server is ended when its block ends, and killed by the kernel should this process die
without a word (truba.processes.tether).
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NamedTuple

import truba.processes
from truba.bench.machine import Cpu
from truba.errors import TrubaError

READY_S = 120.0
STOP_S = 20.0
POLL_S = 0.05
TETHER = Path(truba.processes.__file__).with_name("tether.py")
_TICK_S = 1 / os.sysconf("SC_CLK_TCK")


class Member(NamedTuple):
    """A process: its id alone may be another's by the time it is used."""

    pid: int
    started: int


class Usage(NamedTuple):
    """Processor time of some processes until now, by both of the system's clocks."""

    user_s: float  # in steps of 10 ms, rounded down for each process: hundreds of them may seem to have used none
    system_s: float
    exact_s: float  # user + system, by the scheduler's own clock; nothing of threads that have ended

    def since(self, before: Usage) -> Cpu:
        """What was used in between: as much as the exact clock says, shared out as the coarse one does."""
        user_s, system_s = self.user_s - before.user_s, self.system_s - before.system_s
        coarse_s = user_s + system_s
        total_s = max(coarse_s, self.exact_s - before.exact_s)
        share = user_s / coarse_s if coarse_s else 0.5
        return Cpu(total_s * share, total_s * (1 - share))


class _Stat(NamedTuple):
    parent: int
    member: Member
    cpu: Cpu
    ended: Cpu  # of those children that it has seen end


def _stats() -> dict[int, _Stat]:
    found = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with suppress(FileNotFoundError, ProcessLookupError):
                fields = (entry / "stat").read_text().rpartition(")")[2].split()
                times = [int(field) * _TICK_S for field in fields[11:15]]
                pid = int(entry.name)
                found[pid] = _Stat(int(fields[1]), Member(pid, int(fields[19])), Cpu(*times[:2]), Cpu(*times[2:]))
    return found


def _exact_s(pid: int) -> float:
    """By the scheduler's clock, of all threads that live; 0 where the system does not tell."""
    total_ns = 0
    with suppress(FileNotFoundError, ProcessLookupError):
        for thread in Path(f"/proc/{pid}/task").iterdir():
            with suppress(FileNotFoundError, ProcessLookupError):
                total_ns += int((thread / "schedstat").read_text().split()[0])
    return total_ns / 1e9


def _tree(roots: Sequence[int], stats: Mapping[int, _Stat]) -> list[_Stat]:
    """Those processes and all that came of them, parents first."""
    children: dict[int, list[int]] = {}
    for pid, stat in stats.items():
        children.setdefault(stat.parent, []).append(pid)
    found, next_ones = [], [root for root in roots if root in stats]
    while next_ones:
        pid = next_ones.pop(0)
        found.append(stats[pid])
        next_ones += children.get(pid, [])
    return found


def usage_of_trees(roots: Sequence[int]) -> Usage:
    """Of those processes and all that came of them, those that have ended too."""
    every = _tree(roots, _stats())
    user_s = sum(stat.cpu.user_s + stat.ended.user_s for stat in every)
    system_s = sum(stat.cpu.system_s + stat.ended.system_s for stat in every)
    return Usage(user_s, system_s, sum(_exact_s(stat.member.pid) + sum(stat.ended) for stat in every))


def send_to_trees(roots: Sequence[int], signum: signal.Signals) -> None:
    for stat in _tree(roots, _stats()):
        with suppress(ProcessLookupError):
            os.kill(stat.member.pid, signum)


@contextmanager
def server(
    command: Sequence[str],
    directory: Path,
    *,
    environment: Mapping[str, str] | None = None,
    user: str | None = None,
    stop: signal.Signals = signal.SIGTERM,
) -> Iterator[subprocess.Popen[bytes]]:
    """A running server; what it says goes to `directory/NAME.log`, NAME being its program's."""
    name = Path(command[0]).name
    as_user = [] if user is None else [
        "setpriv", f"--reuid={user}", f"--regid={user}", "--init-groups", "--pdeathsig=KILL"
    ]  # fmt: skip
    with (directory / f"{name}.log").open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-I", "-S", str(TETHER), str(os.getpid()), *as_user, *command],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            cwd=directory,
            env=None if environment is None else {**os.environ, **environment},
            start_new_session=True,  # Ctrl-C at the terminal is for the race, which then ends its servers
        )
    try:
        yield process
    finally:
        end(process, stop)


def end(process: subprocess.Popen[bytes], stop: signal.Signals = signal.SIGTERM) -> None:
    """Ask it to end; what is left of it after `STOP_S`, or after it has ended, is killed."""
    members = [stat.member for stat in _tree([process.pid], _stats())]
    process.send_signal(stop)
    send_to_trees([process.pid], signal.SIGCONT)
    try:
        with suppress(subprocess.TimeoutExpired):
            process.wait(STOP_S)
    finally:
        now = _stats()
        for member in members:
            if member.pid in now and now[member.pid].member == member:
                with suppress(ProcessLookupError):
                    os.kill(member.pid, signal.SIGKILL)
        process.wait()


def last_words(directory: Path, name: str, lines: int = 8) -> str:
    with suppress(FileNotFoundError):
        return "\n".join((directory / f"{name}.log").read_text(errors="replace").splitlines()[-lines:])
    return "nothing"


def wait_until_open(process: subprocess.Popen[bytes], port: int, directory: Path, name: str) -> None:
    """Until somebody listens there. TrubaError, with what it said, when it ends or does not come."""
    until = time.monotonic() + READY_S
    while time.monotonic() < until and process.poll() is None:
        with suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
            return
        time.sleep(POLL_S)
    how = "did not listen in time" if process.poll() is None else f"ended with code {process.returncode}"
    raise TrubaError(f"{name} {how}; it said: {last_words(directory, name)}")
