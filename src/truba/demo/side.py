"""What the demo needs of the pipe's side, be it one pipe or a cluster; and the one pipe."""

from __future__ import annotations

import asyncio
import json
import signal
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

from truba.demo.killer import PIPE_DIES_AT
from truba.demo.processes import Child
from truba.demo.show import Show
from truba.demo.transfers import KIND
from truba.errors import TrubaError

PIPE_DOWN_S = 0.3

NODE = """\
[node]
data = "pipe"
listen = "127.0.0.1:0"

"""
KINDS = """\
[kinds.transfer]
number = {kind}
handler = "truba://{handler}"
recovery_delay = "200ms"
jitter = "100ms"
backoff = {{ base = "100ms", factor = 2, cap = "1s" }}
handler_timeout = "5s"
idle_timeout = "1500ms"
concurrency = 8
"""


class DemoFailed(TrubaError):
    """Something happened that no kill explains."""


class Side(Protocol):
    """`urls`: where clients find it, once `up` is set. `kills`: what was killed, and how often."""

    up: asyncio.Event
    urls: list[str]
    kills: Counter[str]

    async def run(self, handler: str) -> None:
        """Keep it up, with that handler, until `stop`. DemoFailed when a process ends that was not killed."""

    async def kill(self, progress: Callable[[], float]) -> None:
        """Kill what is to be killed as the work goes on (from 0 to 1); returns when all was killed, and is up."""

    async def stop(self) -> dict[str, object]:
        """End it cleanly, and look whether it is well. What is to be told of it. DemoFailed."""

    async def end(self) -> None:
        """Whatever happened: leave no process behind."""


def kinds(handler: str) -> str:
    """The kinds of the configuration, with that handler."""
    return KINDS.format(kind=KIND, handler=handler)


class OnePipe:
    """`truba serve`, killed once."""

    def __init__(self, directory: Path, show: Show) -> None:
        self.up = asyncio.Event()
        self.urls: list[str] = []
        self.kills: Counter[str] = Counter()
        self._directory = directory
        self._show = show
        self._listen = ""
        self._child: Child | None = None
        self._stopping = False

    async def run(self, handler: str) -> None:
        config = self._directory / "truba.toml"
        config.write_text(NODE + kinds(handler))
        log = self._directory / "pipe.log"
        while True:
            listen = ("--listen", self._listen) if self._listen else ()
            child = self._child = await Child.start(
                "pipe", "truba", "serve", "--config", str(config), "--json", *listen, log=log, tells="stderr"
            )
            with log.open("a") as log_file:
                async for line in child.lines():
                    log_file.write(line + "\n")
                    log_file.flush()
                    if line.startswith("{") and (said := json.loads(line))["event"] == "ready":
                        self._listen = said["listen"]
                        self.urls = [f"truba://{self._listen}"]
                        self.up.set()
                        self._show.board.others["pipe"] = "up"
                        self._show.news(f"the pipe is up at {self._listen}", "good")
            self.up.clear()
            code = await child.wait()
            self._show.board.others["pipe"] = "stopped" if self._stopping else "killed"
            if code == 0 and self._stopping:
                return
            if code != -signal.SIGKILL or not self.kills["pipe"]:
                raise DemoFailed(f"the pipe ended with {code}; see {log}")
            await asyncio.sleep(PIPE_DOWN_S)

    async def kill(self, progress: Callable[[], float]) -> None:
        await until(lambda: progress() >= PIPE_DIES_AT)
        assert self._child is not None
        self.kills["pipe"] += 1
        self.up.clear()
        self._child.signal(signal.SIGKILL)
        self._show.news("the pipe killed; what it acknowledged is in its log", "kill")
        await self.up.wait()

    async def stop(self) -> dict[str, object]:
        self._stopping = True
        assert self._child is not None
        self._child.signal(signal.SIGTERM)
        await self._child.wait()
        return {}

    async def end(self) -> None:
        if self._child is not None:
            await self._child.kill()


async def until(holds: Callable[[], bool]) -> None:
    while not holds():  # noqa: ASYNC110 - fifty looks a second cost less than an event for each of these conditions
        await asyncio.sleep(0.02)
