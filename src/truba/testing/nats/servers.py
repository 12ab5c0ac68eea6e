"""Servers as one: their life, and what tests ask of them."""

from __future__ import annotations

import asyncio
import contextlib
import json
import signal
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import nats
from nats.aio.client import Client

from truba.streams.settings import JetStreamSettings
from truba.testing.nats.config import PASSWORDS, NatsConfig
from truba.testing.nats.server import Place, Server, ServersFailed, find_server

START_TIMEOUT_S = 60.0
POLL_S = 0.05
STEPPED_DOWN_S = 5.0


class NatsServers:
    """One or more running servers, named n1, n2, ... Belongs to no event loop: each call makes its own connection."""

    def __init__(self, directory: Path, size: int, config: NatsConfig, places: Sequence[Place], binary: str) -> None:
        self.config = config
        self.directory = directory
        self._binary = binary
        self._servers = {
            name: Server(name, directory / name, places[at] if places else None, size > 1)
            for at, name in enumerate(f"n{number}" for number in range(1, size + 1))
        }
        cluster = [server.routes for server in self._servers.values()]
        for server in self._servers.values():
            server.configure(config, cluster)

    @classmethod
    async def start(
        cls,
        directory: Path,
        size: int = 3,
        config: NatsConfig | None = None,
        *,
        places: Sequence[Place] = (),
        binary: str | None = None,
    ) -> NatsServers:
        """Start `size` servers that keep their data in `directory`, and wait until they are ready. ServersFailed."""
        servers = cls(directory, size, config or NatsConfig(), places, find_server(binary))
        try:
            for server in servers._servers.values():
                server.start(servers._binary)
            await servers.ready()
        except BaseException:
            servers.end()
            raise
        return servers

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(self._servers)

    @property
    def urls(self) -> tuple[str, ...]:
        """Client addresses, `nats://host:port`, without a user."""
        return tuple(server.url for server in self._servers.values())

    def url(self, name: str) -> str:
        return self._servers[name].url

    def log(self, name: str) -> Path:
        """The file that the server logs to."""
        return self._servers[name].log

    def data(self, name: str) -> Path:
        """The directory that its JetStream stores in."""
        return self._servers[name].data

    def pid(self, name: str) -> int | None:
        """Its process id; None: it was killed or stopped."""
        process = self._servers[name].process
        return None if process is None else process.pid

    def settings(self, user: str | None = "truba", **changes: Any) -> JetStreamSettings:
        """How a node reaches the stream here, as that user; with changes: other fields of the settings."""
        values: dict[str, Any] = {
            "servers": self.urls,
            "stream": self.config.stream,
            "replicas": len(self._servers),
        }
        if user is not None and self.config.access != "none":
            values.update(user=user, password=PASSWORDS[user])
            values.update(system_user="sys", system_password=PASSWORDS["sys"])
        return JetStreamSettings(**values | changes)

    async def kill(self, name: str) -> None:
        """SIGKILL, and wait for its end. One that is paused dies too."""
        self._servers[name].signal(signal.SIGKILL)
        await self._servers[name].wait()

    async def stop(self, name: str) -> None:
        """SIGTERM, and wait for its end."""
        self._servers[name].signal(signal.SIGTERM)
        await self._servers[name].wait()

    def pause(self, name: str) -> None:
        """SIGSTOP: it neither answers nor breaks connections, from when this returns."""
        self._servers[name].freeze()

    def resume(self, name: str) -> None:
        self._servers[name].signal(signal.SIGCONT)

    def revive(self, name: str) -> None:
        """Start a server that was killed or stopped, on its own data and ports. Returns at once; see `ready`."""
        self._servers[name].start(self._binary)

    async def ready(self, timeout_s: float = START_TIMEOUT_S) -> None:
        """Wait until each running server answers and knows the leader of JetStream, and has caught up with it."""
        running = [server for server in self._servers.values() if server.process is not None]
        waiting_for = "an answer"
        try:
            async with asyncio.timeout(timeout_s):
                for server in running:
                    while (waiting_for := await self._lacks(server)) != "":
                        assert server.process is not None
                        if server.process.poll() is not None:
                            raise ServersFailed(f"nats-server {server.name} ended:\n{server.last_words()}")
                        await asyncio.sleep(POLL_S)
        except TimeoutError:
            words = "\n".join(server.last_words() for server in running)
            raise ServersFailed(f"no {waiting_for} from nats-server after {timeout_s} s:\n{words}") from None

    async def _lacks(self, server: Server) -> str:
        """What the server does not have yet to be ready; "" when it is."""
        if self.config.access == "none":
            answers = "answer"
            with contextlib.suppress(OSError, nats.errors.Error, TimeoutError):
                async with self.connected("admin", server.name):
                    answers = ""
            return answers
        try:
            async with self.connected("sys", server.name) as client:
                seen = await answer_of(client, server.name, "JSZ")
        except (OSError, nats.errors.Error, TimeoutError):
            return "answer"
        if seen is None:
            return "answer"
        if len(self._servers) == 1 or not self.config.jetstream:
            return ""
        meta = seen["data"].get("meta_cluster", {})
        if not meta.get("leader"):
            return "leader of JetStream"
        if meta.get("cluster_size") != len(self._servers):
            return "full cluster"
        others = [peer for peer in meta.get("replicas", ()) if self.pid(peer["name"]) is not None]
        if meta["leader"] == server.name and any(peer.get("offline") or not peer["current"] for peer in others):
            return "full cluster"
        return ""

    async def leader(self, stream: str, timeout_s: float = START_TIMEOUT_S) -> str:
        """Which server leads the stream; waits while none does. ServersFailed after the timeout."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout_s):
                while True:
                    with contextlib.suppress(OSError, nats.errors.Error):
                        info = await self.ask(f"STREAM.INFO.{stream}")
                        if "error" not in info and "cluster" not in info:
                            return self.names[0]
                        if leader := info.get("cluster", {}).get("leader"):
                            return str(leader)
                    await asyncio.sleep(POLL_S)
        raise ServersFailed(f"stream {stream} has had no leader for {timeout_s} s")

    async def step_down(self, stream: str, to: str | None = None) -> str:
        """Have the stream's leader hand over (to that server), and wait for the new leader; its name."""
        before = await self.leader(stream)
        placement = {} if to is None else {"placement": {"preferred": to}}
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(START_TIMEOUT_S):
                while True:
                    answer = await self.ask(f"STREAM.LEADER.STEPDOWN.{stream}", placement)
                    if not answer.get("success"):
                        raise ServersFailed(f"stream {stream} does not step down: {answer}")
                    for _ in range(round(STEPPED_DOWN_S / POLL_S)):
                        if (now := await self.leader(stream)) != before:
                            return now
                        await asyncio.sleep(POLL_S)
                    # elected again: the one that it had in mind did not stand
        raise ServersFailed(f"stream {stream} is still led by {before} after {START_TIMEOUT_S} s")

    async def ask(self, what: str, content: dict[str, Any] | None = None, timeout_s: float = 2.0) -> dict[str, Any]:
        """One request to JetStream's own interface, as `admin`: `ask("STREAM.PURGE.truba", {"seq": 5})`."""
        async with self.connected("admin") as client:
            answer = await client.request(f"$JS.API.{what}", json.dumps(content or {}).encode(), timeout=timeout_s)
        reply: dict[str, Any] = json.loads(answer.data)
        return reply

    @contextlib.asynccontextmanager
    async def connected(self, user: str = "admin", name: str | None = None) -> AsyncIterator[Client]:
        """A plain client of NATS: to that server, or to any that runs."""
        names = [each for each in (self.names if name is None else (name,)) if self.pid(each) is not None]
        client = None
        for each in names:
            try:
                client = await self._dial(each, user)
                break
            except (OSError, nats.errors.Error, TimeoutError):
                if each == names[-1]:
                    raise
        if client is None:
            raise nats.errors.NoServersError
        try:
            yield client
        finally:
            await client.close()

    async def _dial(self, name: str, user: str) -> Client:
        client = Client()
        who = {} if self.config.access == "none" else {"user": user, "password": PASSWORDS[user]}
        try:
            await client.connect(
                self.url(name),
                connect_timeout=2,
                allow_reconnect=False,
                max_reconnect_attempts=1,  # 0 would be for ever, and counts while connecting too
                reconnect_time_wait=0,
                error_cb=_ignore,
                **who,  # type: ignore[arg-type]
            )
        except BaseException:
            await client.close()
            raise
        return client

    def end(self) -> None:
        """Kill every server and give the ports back. The data stays."""
        for server in self._servers.values():
            server.end()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.end()


async def answer_of(client: Client, name: str, what: str) -> dict[str, Any] | None:
    """Ask all servers (`client` is of the system account): that one's answer; None: none came for two seconds."""
    inbox = client.new_inbox()
    subscription = await client.subscribe(inbox)
    await client.publish(f"$SYS.REQ.SERVER.PING.{what}", b"{}", reply=inbox)
    found = None
    with contextlib.suppress(nats.errors.TimeoutError):
        while found is None:
            answer: dict[str, Any] = json.loads((await subscription.next_msg(timeout=2.0)).data)
            found = answer if answer["server"]["name"] == name else None
    await subscription.unsubscribe()
    return found


async def _ignore(error: Exception) -> None:
    """What goes wrong is seen by whoever waits for an answer; nats-py would print it as well."""
