"""Facts about this machine and its processes, read from the system."""

from __future__ import annotations

import os
import platform
import resource
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import NamedTuple

PACKAGES = ("truba", "uvloop", "msgspec", "hiredis", "rocksdict")
IN_MEMORY = frozenset({"tmpfs", "ramfs", "devtmpfs"})
_TICK_S = 1 / os.sysconf("SC_CLK_TCK")


class Cpu(NamedTuple):
    """Time of a processor that a process has used, all its threads together."""

    user_s: float
    system_s: float

    def since(self, before: Cpu) -> Cpu:
        return Cpu(self.user_s - before.user_s, self.system_s - before.system_s)


def cpu_of(pid: int) -> Cpu:
    """From /proc, in steps of 10 ms. FileNotFoundError when there is no such process."""
    # The name of the program, in parentheses, may hold anything: what is wanted comes after it.
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return Cpu(int(fields[11]) * _TICK_S, int(fields[12]) * _TICK_S)


def busy_s() -> float:
    """Time of all processors together that somebody used, since the start of the system."""
    user, nice, system, _idle, _iowait, *rest = map(int, Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:9])
    return (user + nice + system + sum(rest)) * _TICK_S


def own_cpu() -> Cpu:
    """Of this process, to the microsecond."""
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return Cpu(usage.ru_utime, usage.ru_stime)


def facts() -> dict[str, str | int]:
    """What a figure means little without."""
    found: dict[str, str | int] = {
        "cores": len(os.sched_getaffinity(0)),
        "processor": _processor(),
        "kernel": f"{platform.system()} {platform.release()}",
        "python": f"{platform.python_implementation()} {platform.python_version()}",
    }
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:  # truba itself, run from a checkout that is not installed
            from truba import __version__

            found[name] = __version__
    return found


def _processor() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except FileNotFoundError:
        pass
    return platform.machine()


def filesystem(directory: Path) -> str:
    """Type of the file system that holds a directory, `unknown` where the system does not say."""
    found = ("", "unknown")
    for line in Path("/proc/self/mounts").read_text().splitlines():
        _, mounted, kind, *_ = line.split(" ")
        mounted = mounted.replace("\\040", " ")
        if directory.resolve().is_relative_to(mounted) and len(mounted) >= len(found[0]):
            found = (mounted, kind)
    return found[1]
