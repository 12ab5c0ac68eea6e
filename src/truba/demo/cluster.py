"""The pipe's side of `truba demo --cluster`: three nodes on three nats-servers, whose leaders are killed."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable
from pathlib import Path

from truba.demo.show import Show
from truba.demo.side import DemoFailed, kinds, until
from truba.testing.nats import NatsServers
from truba.testing.nodes import Nodes, NodesFailed

DEATHS = (
    (0.15, "leader"),
    (0.3, "JetStream leader"),
    (0.45, "leader"),
    (0.6, "step-down"),
    (0.7, "JetStream leader"),
    (0.85, "leader"),
)
"""What happens when such a share of the transfers was taken."""

DOWN_S = 0.5


class Cluster:
    """See `truba.demo.side.Side`."""

    def __init__(self, directory: Path, show: Show, nats_server: str | None) -> None:
        self.up = asyncio.Event()
        self.urls: list[str] = []
        self.kills: Counter[str] = Counter()
        self._directory = directory
        self._show = show
        self._nats_server = nats_server
        self._servers: NatsServers | None = None
        self._nodes: Nodes | None = None
        self._stopping = asyncio.Event()
        self._dead: set[str] = set()

    async def run(self, handler: str) -> None:
        self._show.news("three nats-servers and three nodes are starting")
        servers = self._servers = await NatsServers.start(self._directory / "nats", 3, binary=self._nats_server)
        nodes = self._nodes = Nodes(self._directory / "nodes", servers, kinds=kinds(handler))
        await nodes.start()
        self.urls = nodes.urls
        self.up.set()
        self._show.board.others["pipe"] = "up"
        self._show.news(f"node {await nodes.leader()} leads", "good")
        while not self._stopping.is_set():
            for name in nodes.names:
                if not nodes.alive(name) and name not in self._dead and not self._stopping.is_set():
                    raise DemoFailed(f"node {name} ended by itself:\n{nodes.log(name)[-2000:]}")
            await asyncio.sleep(0.1)

    async def kill(self, progress: Callable[[], float]) -> None:
        servers, nodes = self._servers, self._nodes
        assert servers is not None
        assert nodes is not None
        for share, what in DEATHS:
            await until(lambda share=share: progress() >= share)  # type: ignore[misc]
            await servers.ready()
            leader = await nodes.leader()
            self.kills[what] += 1
            match what:
                case "leader":
                    self._dead.add(leader)
                    await nodes.kill(leader)
                    self._show.news(f"node {leader}, which led, is killed", "kill")
                    await asyncio.sleep(DOWN_S)
                    nodes.launch(leader)
                    self._dead.discard(leader)
                    self._show.news(f"node {await nodes.leader(other_than=leader)} leads", "good")
                case "JetStream leader":
                    server = await servers.leader("truba")
                    await servers.kill(server)
                    self._show.news(f"nats-server {server}, which led the stream, is killed", "kill")
                    await asyncio.sleep(DOWN_S)
                    servers.revive(server)
                    await servers.ready()
                case _:
                    await nodes.step_down(leader)
                    self._show.news(f"node {leader} steps down; {await nodes.leader(other_than=leader)} leads", "good")

    async def stop(self) -> dict[str, object]:
        nodes = self._nodes
        assert nodes is not None
        try:
            digest = await nodes.agree()
        except NodesFailed as error:
            raise DemoFailed(str(error)) from error
        self._stopping.set()
        for name in nodes.names:
            if code := await nodes.stop(name):
                raise DemoFailed(f"node {name} was told to stop and ended with {code}:\n{nodes.log(name)[-2000:]}")
        self._show.board.others["pipe"] = "stopped"
        return {"index": f"{digest.term}-{digest.seq}", "digest": digest.digest}

    async def end(self) -> None:
        if self._nodes is not None:
            self._nodes.end()
        if self._servers is not None:
            self._servers.end()
