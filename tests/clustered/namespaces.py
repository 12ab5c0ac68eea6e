"""Hosts of their own on one machine: network namespaces, with links that can be cut. Nothing outlives the process.

                   hub: this process, 10.9.0.254
          clients bridge |                      cluster bridge
      10.9.0.1   10.9.0.2   10.9.0.3     10.9.1.1   10.9.1.2   10.9.1.3
         \\__ host 1: 10.9.2.1, host 2: 10.9.2.2, host 3: 10.9.2.3 __/

What runs on a host listens on its 10.9.2.x. The hub reaches that over the clients bridge, the other hosts over the
cluster bridge only: a host whose cluster link is cut is alone, and the hub still talks to it.

No namespace has a name. Each lives as long as a process in it: the hub's is this process's main thread, a host's is a
`sleep` that the kernel kills when this process dies.
"""

from __future__ import annotations

import ctypes
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterable
from pathlib import Path
from types import TracebackType
from typing import Self

from truba.processes.tether import tethered

CLONE_NEWNET = 0x40000000
NOWHERE = "02:00:00:00:00:99"
"""A hardware address that nobody has: what is sent there is lost, and nobody is told."""

STARTED_S = 10.0


def lacking() -> str:
    """What this process would need to make namespaces; empty: it can."""
    if sys.platform != "linux":
        return "network namespaces need Linux"
    if missing := [tool for tool in ("ip", "unshare", "nsenter") if shutil.which(tool) is None]:
        return f"network namespaces need the programs {', '.join(missing)}"
    if os.geteuid() != 0:
        return "network namespaces need root"
    inside = "ip link add name bridge0 type bridge && ip link add veth0 type veth peer name veth1"
    tried = subprocess.run(["unshare", "-n", "sh", "-c", inside], capture_output=True, text=True, check=False)
    if tried.returncode != 0:
        return f"this kernel makes no namespace with bridge and veth here: {tried.stderr.strip()}"
    return ""


class Hosts:
    """`with Hosts(3) as hosts`: they are there, numbered from 1. Enter it in the main thread: that moves to the hub
    until the end, with all that is started from there."""

    def __init__(self, count: int) -> None:
        self.numbers = range(1, count + 1)
        self._libc = ctypes.CDLL(None, use_errno=True)
        self._holders: dict[int, subprocess.Popen[bytes]] = {}
        self._home = -1

    def address(self, host: int) -> str:
        return f"10.9.2.{host}"

    def run(self, host: int) -> tuple[str, ...]:
        """To be put before a command: it then runs on that host."""
        return ("nsenter", f"--net=/proc/{self._holders[host].pid}/ns/net")

    def cut(self, host: int) -> None:
        """Its cluster link carries nothing, in either direction."""
        _ip("link", "set", f"cluster{host}", "down")

    def mute(self, host: int) -> None:
        """What the others send to it arrives; what it sends to them is lost."""
        for other in self._others(host):
            self._on(
                host, "neigh", "replace", f"10.9.1.{other}", "lladdr", NOWHERE, "dev", "cluster", "nud", "permanent"
            )

    def heal(self, host: int) -> None:
        """As it was, whatever was done to it."""
        _ip("link", "set", f"cluster{host}", "up")
        for other in self._others(host):
            self._on(host, "neigh", "flush", "to", f"10.9.1.{other}", "dev", "cluster", "nud", "all")

    def __enter__(self) -> Self:
        self._home = os.open("/proc/thread-self/ns/net", os.O_RDONLY)
        try:
            self._checked(self._libc.unshare(CLONE_NEWNET), "unshare(CLONE_NEWNET)")
            self._build()
        except BaseException:
            self._leave()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._leave()

    def _build(self) -> None:
        _ip("link", "set", "lo", "up")
        for bridge in ("clients", "cluster"):
            _ip("link", "add", "name", bridge, "type", "bridge")
            _ip("link", "set", bridge, "up")
        _ip("addr", "add", "10.9.0.254/24", "dev", "clients")
        for host in self.numbers:
            self._hold(host)
            self._on(host, "link", "set", "lo", "up")
            self._on(host, "addr", "add", f"{self.address(host)}/32", "dev", "lo")
            for bridge, net in (("clients", "10.9.0"), ("cluster", "10.9.1")):
                port, pid = f"{bridge}{host}", str(self._holders[host].pid)
                _ip("link", "add", port, "type", "veth", "peer", "name", bridge, "netns", pid)
                _ip("link", "set", port, "master", bridge, "up")
                self._on(host, "addr", "add", f"{net}.{host}/24", "dev", bridge)
                self._on(host, "link", "set", bridge, "up")
            _ip("route", "add", self.address(host), "via", f"10.9.0.{host}")
            for other in self._others(host):
                self._on(host, "route", "add", self.address(other), "via", f"10.9.1.{other}")

    def _hold(self, host: int) -> None:
        hub = Path("/proc/thread-self/ns/net").readlink()
        command = tethered("unshare", "-n", "sleep", "infinity")
        holder = self._holders[host] = subprocess.Popen(command)
        waited_until_s = time.monotonic() + STARTED_S
        while Path(f"/proc/{holder.pid}/ns/net").readlink() == hub:
            if holder.poll() is not None or time.monotonic() > waited_until_s:
                raise RuntimeError(f"host {host} got no namespace: {' '.join(command)}")
            time.sleep(0.01)

    def _others(self, host: int) -> Iterable[int]:
        return (other for other in self.numbers if other != host)

    def _on(self, host: int, *args: str) -> None:
        _run(*self.run(host), "ip", *args)

    def _leave(self) -> None:
        """The namespaces end with what is in them, and their links with them."""
        for holder in self._holders.values():
            holder.kill()
            holder.wait()
        self._checked(self._libc.setns(self._home, CLONE_NEWNET), "setns")
        os.close(self._home)

    def _checked(self, result: int, what: str) -> None:
        if result != 0:
            raise OSError(ctypes.get_errno(), what)


def _ip(*args: str) -> None:
    _run("ip", *args)


def _run(*command: str) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise RuntimeError(f"{' '.join(command)}: {done.stderr.strip()}")
