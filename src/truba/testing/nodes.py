"""Real nodes of a cluster as processes on this machine, for tests, the demo and the benchmark.

    nodes = Nodes(directory, servers)      three nodes, a b c, configured; nothing runs yet
    await nodes.start()                    all of them; `nodes.urls` are their client addresses
    leader = await nodes.leader()

Each process is ended by its own id, and by the kernel should this process die without a word. Passwords lie in files
in `directory`; everything listens on loopback (or where `hosts` says).
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

from truba.address import Address
from truba.cluster.peers import Peer, statuses
from truba.cluster.words import Digest, Status
from truba.errors import DataError, OperationError, TrubaError
from truba.processes.tether import tethered
from truba.testing.nats import PASSWORDS, NatsServers
from truba.testing.ports import free_ports
from truba.tls import Contexts, Tls

SECRET = "the-secret-of-a-cluster-on-this-machine"
POLL_S = 0.02
STARTED_S = 60.0

KIND = """\
[kinds.transfer]
number = 7
handler = "truba://127.0.0.1:1"
recovery_delay = "5s"
"""


class NodesFailed(TrubaError):
    """A node ended by itself, or the nodes did not come to agree; the message says which and why."""


class Nodes:
    """`kinds`: the [kinds.*] tables; `node` and `cluster`: further lines of those tables. `run`: put before a node's
    command, for network namespaces; `hosts`: where it then listens (loopback). `tls`: what all of them show, to clients
    and to each other, and whom they believe."""

    def __init__(
        self,
        directory: Path,
        servers: NatsServers,
        names: Sequence[str] = ("a", "b", "c"),
        *,
        kinds: str = KIND,
        node: str = "",
        cluster: str = "",
        hosts: Mapping[str, str] | None = None,
        run: Mapping[str, Sequence[str]] | None = None,
        tls: Tls | None = None,
    ) -> None:
        self.names = tuple(names)
        self.directory = directory
        self._run = run or {}
        self._scheme = "truba" if tls is None else "trubas"
        self._tls = None if tls is None else Contexts(tls, server_side=False)
        self._processes: dict[str, subprocess.Popen[bytes]] = {}
        self.clients: dict[str, Address] = {}
        self.peers: dict[str, Address] = {}
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        for file, secret in (("secret", SECRET), ("nats", PASSWORDS["truba"]), ("sys", PASSWORDS["sys"])):
            path = directory / f"{file}.secret"
            path.write_text(secret)
            path.chmod(0o600)
        free = free_ports(2 * len(self.names))
        for at, name in enumerate(self.names):
            host = (hosts or {}).get(name, "127.0.0.1")
            ports = (7433, 7434) if hosts else free[2 * at : 2 * at + 2]
            self.clients[name], self.peers[name] = (Address(host, port) for port in ports)
        table = "\n".join(
            f'{name} = {{ clients = "{self.clients[name]}", peers = "{self.peers[name]}" }}' for name in self.names
        )
        if tls is not None:
            pair = f'certificate = "{tls.certificate}"\nkey = "{tls.key}"\n'
            node += f'\n[node.tls]\n{pair}client_ca = "{tls.ca}"'
            cluster += f'\n[cluster.tls]\n{pair}ca = "{tls.ca}"'
        insecure = "insecure = true\n" if hosts else ""
        for name in self.names:
            self.config(name).write_text(
                f'[node]\nname = "{name}"\ndata = "{name}"\nlisten = "{self.clients[name]}"\n{insecure}{node}\n\n'
                f"[cluster]\nservers = {json.dumps(list(servers.urls))}\n"
                f'stream = "{servers.config.stream}"\nreplicas = {len(servers.names)}\n'
                'user = "truba"\npassword_file = "nats.secret"\n'
                'system_user = "sys"\nsystem_password_file = "sys.secret"\nsecret_file = "secret.secret"\n'
                f"{cluster}\n\n[cluster.nodes]\n{table}\n\n{kinds}"
            )

    @property
    def urls(self) -> list[str]:
        return [f"{self._scheme}://{address}" for address in self.clients.values()]

    def config(self, name: str) -> Path:
        return self.directory / f"{name}.toml"

    def data(self, name: str) -> Path:
        return self.directory / name

    def log(self, name: str) -> str:
        """What the node has logged so far: JSON lines."""
        path = self.directory / f"{name}.log"
        return path.read_text() if path.exists() else ""

    def launch(self, name: str) -> None:
        """Start one; it is not ready when this returns."""
        with (self.directory / f"{name}.log").open("ab") as log:
            command = [*self._run.get(name, ()), sys.executable, "-m", "truba", "serve", "--json", "--config"]
            self._processes[name] = subprocess.Popen(
                tethered(*command, str(self.config(name))),
                stdout=log,
                stderr=log,
                start_new_session=True,  # Ctrl-C at the terminal does not reach it
            )

    async def start(self) -> None:
        """All of them, until one leads and the others know it."""
        for name in self.names:
            self.launch(name)
        leader = await self.leader()
        for name in self.names:
            await self._follows(name, leader)

    async def _follows(self, name: str, leader: str) -> None:
        """Wait until that one is up, and knows somebody who leads."""
        status = None
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(STARTED_S):
                while True:
                    status = await self.status(name)
                    if status is not None and (status.leader or status.role == "leader"):
                        return
                    await asyncio.sleep(POLL_S)
        raise NodesFailed(
            f"{name} does not know after {STARTED_S:g} s that {leader} leads: {status}\n{self.last_words()}"
        )

    def alive(self, name: str) -> bool:
        process = self._processes.get(name)
        return process is not None and process.poll() is None

    def pid(self, name: str) -> int:
        return self._processes[name].pid

    def signal(self, name: str, signum: signal.Signals) -> None:
        self._processes[name].send_signal(signum)

    async def kill(self, name: str) -> None:
        """SIGKILL, and wait for its end."""
        self._processes[name].kill()
        await self.wait(name)

    async def wait(self, name: str, timeout_s: float = 30.0) -> int:
        """Until it has ended; its exit code."""
        return await asyncio.to_thread(self._processes[name].wait, timeout_s)

    async def stop(self, name: str) -> int:
        """SIGTERM, and wait for its end; its exit code."""
        self.signal(name, signal.SIGTERM)
        return await self.wait(name)

    async def status(self, name: str) -> Status | None:
        """What it says of itself; None: nothing."""
        return (await statuses({name: self.peers[name]}, SECRET.encode(), 1.0, tls=self._tls)).get(name)

    async def digest(self, name: str) -> Digest:
        async with Peer.visit(self.peers[name], SECRET.encode(), tls=self._tls) as peer:
            return await peer.digest()

    async def step_down(self, name: str, successor: str = "") -> None:
        async with Peer.visit(self.peers[name], SECRET.encode(), tls=self._tls) as peer:
            await peer.step_down(successor)

    async def leader(self, timeout_s: float = STARTED_S, *, other_than: str = "") -> str:
        """Who leads, as soon as somebody says so. NodesFailed."""
        last: dict[str, Status | None] = {}
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout_s):
                while True:
                    for name in self.names:
                        if not self.alive(name):
                            continue
                        last[name] = status = await self.status(name)
                        if status is not None and status.role == "leader" and name != other_than:
                            return name
                    await asyncio.sleep(POLL_S)
        raise NodesFailed(f"nobody leads after {timeout_s:g} s: {last}\n{self.last_words()}")

    async def agree(self, timeout_s: float = 60.0) -> Digest:
        """Wait until all that run are at the same Index; they must have equal digests. The one that they have."""
        digests: dict[str, Digest] = {}
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout_s):
                while True:
                    running = [name for name in self.names if self.alive(name)]
                    with contextlib.suppress(OperationError, DataError):
                        digests = {name: await self.digest(name) for name in running}
                        if running and len({(each.term, each.seq) for each in digests.values()}) == 1:
                            break
                    await asyncio.sleep(0.1)
        if len({each.digest for each in digests.values()}) != 1:
            raise NodesFailed(f"the nodes do not agree: {digests}\n{self.last_words()}")
        return next(iter(digests.values()))

    def last_words(self) -> str:
        return "\n".join(f"-- {name}\n" + self.log(name)[-2000:] for name in self.names)

    def end(self) -> None:
        """Kill all that still run."""
        for process in self._processes.values():
            if process.poll() is None:
                process.kill()
            process.wait()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.end()
