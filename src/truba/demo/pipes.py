"""The pipe that the workers connect to, as the demo sees it; and the usual one, which is a single process.

Kept here: what starts it, harms it, starts it again and ends it. It never gives out work or judges money.
"""

from __future__ import annotations

import asyncio
import json
import signal
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol

from truba.demo.deaths import ended
from truba.demo.orders import Orders
from truba.demo.show import Show
from truba.demo.transfers import KIND
from truba.processes.child import Child
from truba.testing.ports import free_ports

PIPE_DIES_AT = 0.6
"""Share of the transfers taken by then."""

PIPE_DOWN_S = 0.3

KINDS = f"""\
[kinds.transfer]
number = {KIND}
handler = "truba://{{handler}}"
recovery_delay = "200ms"
jitter = "100ms"
backoff = {{{{ base = "100ms", factor = 2, cap = "1s" }}}}
handler_timeout = "5s"
idle_timeout = "1500ms"
concurrency = 8
"""

CONFIG = """\
[node]
data = "pipe"
listen = "{listen}"

{kinds}"""


@dataclass(frozen=True, slots=True)
class Account:
    """What a pipe of several nodes says at the end. Pauses are the longest time without an acknowledged operation, in
    the order in which they happened; they were seen by a client that did nothing else than write."""

    pauses_node_s: tuple[float, ...]
    """After each kill of the node that led."""
    pauses_server_s: tuple[float, ...]
    """After each kill of the nats-server that led the stream."""
    pauses_step_down_s: tuple[float, ...]
    probes: int
    """Operations of that client that were acknowledged, and all read again at the end."""
    index: str
    digest: str
    """The same on all nodes, at that Index; empty when they do not agree."""
    broken: tuple[str, ...]
    """What does not hold, in words."""

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


class Pipe(Protocol):
    """One run of it. `up` is set while clients are taken; `urls` are known from the first time on."""

    up: asyncio.Event
    urls: Sequence[str]

    @property
    def kills(self) -> Mapping[str, int]:
        """What was done to it, and how often."""

    async def keep(self, handler: str) -> None:
        """Start it, with the handler at that address, and what was killed again, until `stop`. DemoFailed: a part of
        it ended, and no kill of ours explains that."""

    async def harm(self, orders: Orders) -> None:
        """All the kills of this run, each in its time; returns when the last is over."""

    async def stop(self) -> Account | None:
        """All work is done: look whether it all agrees, and have it end by itself."""

    async def end(self) -> None:
        """Kill what still runs."""


class Alone:
    """One process. It is killed once, and started again on its data."""

    def __init__(self, directory: Path, show: Show) -> None:
        self.up = asyncio.Event()
        self.urls: Sequence[str] = ()
        self._directory = directory
        self._show = show
        self._child: Child | None = None
        self._address = f"127.0.0.1:{free_ports(1)[0]}"
        self._kills = 0
        self._stopping = False

    @property
    def kills(self) -> Mapping[str, int]:
        return {"pipe": self._kills}

    async def keep(self, handler: str) -> None:
        config = self._directory / "truba.toml"
        config.write_text(CONFIG.format(listen=self._address, kinds=KINDS.format(handler=handler)))
        log = self._directory / "pipe.log"
        while True:
            self._child = child = await Child.start(
                "pipe",
                *(sys.executable, "-m", "truba", "serve", "--config", str(config), "--json"),
                log=log,
                tells="stderr",
            )
            with log.open("a") as log_file:
                async for line in child.lines():
                    log_file.write(line + "\n")
                    log_file.flush()
                    if line.startswith("{") and json.loads(line)["event"] == "ready":
                        self.urls = (f"truba://{self._address}",)
                        self.up.set()
                        self._show.board.others["pipe"] = "up"
                        self._show.news(f"the pipe is up at {self._address}", "good")
            self.up.clear()
            self._show.board.others["pipe"] = "stopped" if self._stopping else "killed"
            if await ended(child, stopping=self._stopping, kills=self._kills, log=log):
                return
            await asyncio.sleep(PIPE_DOWN_S)

    async def harm(self, orders: Orders) -> None:
        await until(lambda: orders.progress >= PIPE_DIES_AT)
        assert self._child is not None
        self._kills += 1
        self._child.signal(signal.SIGKILL)
        self._show.news("the pipe killed; what it acknowledged is in its log", "kill")

    async def stop(self) -> None:
        self._stopping = True
        if self._child is not None:
            self._child.signal(signal.SIGTERM)
            await self._child.wait()

    async def end(self) -> None:
        if self._child is not None:
            await self._child.kill()


async def until(holds: Callable[[], bool]) -> None:
    while not holds():  # noqa: ASYNC110 - fifty looks a second cost less than an event for each of these conditions
        await asyncio.sleep(0.02)
