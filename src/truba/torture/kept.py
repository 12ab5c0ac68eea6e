"""A process that is started again whenever it was killed, each life under its own name: c0-1, c0-2, ..."""

from __future__ import annotations

import asyncio
import json
import signal
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from truba.processes.child import Child
from truba.torture.harm import Part

ASKED_TO_END = (0, -signal.SIGKILL, -signal.SIGTERM)
"""Exit codes of a process that was killed or told to stop: the signal may come before it is ready to catch it."""


class EndedByItself(Exception):
    def __init__(self, process: Kept, code: int) -> None:
        last = process.log.read_text(errors="replace").strip().rpartition("\n")[2]
        super().__init__(f"the {process.part} {process.name} ended by itself with {code}: {last[:400]}")
        self.part = process.part


class Kept:
    """`command`: of the life with that name. `pause_s`: how long it stays dead."""

    def __init__(
        self, part: Part, name: str, log: Path, command: Callable[[str], Sequence[str]], pause_s: Callable[[], float]
    ) -> None:
        self.part = part
        self.name = name
        self.log = log
        self.ready = asyncio.Event()  # the present life has said so (only a pipe does)
        self.start_s = 0.5  # what the last start took until it was ready (of a pipe)
        self._command = command
        self._pause_s = pause_s
        self._child: Child
        self._runs = asyncio.Event()
        self._dead = asyncio.Event()
        self._over = asyncio.Event()
        self._struck = False  # the present life was killed, or told to stop
        self._ending = False

    async def keep(self) -> None:
        """Until `end` or `stop`. EndedByItself."""
        life = 0
        try:
            while not self._ending:
                life += 1
                await self._live(f"{self.name}-{life}")
                if not self._ending:
                    await asyncio.sleep(self._pause_s())
        finally:
            self._over.set()

    async def _live(self, name: str) -> None:
        begun_s = time.monotonic()
        self._child = child = await Child.start(name, *self._command(name), log=self.log, tells="stderr")
        try:
            self._struck = False
            self._dead.clear()
            self._runs.set()
            if self._ending:  # it was told while this one was being started
                self.kill()
            with self.log.open("a") as log:
                async for line in child.lines():
                    log.write(line + "\n")
                    log.flush()
                    if line.startswith("{") and json.loads(line).get("event") == "ready":
                        self.start_s = time.monotonic() - begun_s
                        self.ready.set()
            code = await child.wait()
            if not (self._struck and code in ASKED_TO_END):
                raise EndedByItself(self, code)
        finally:
            self._runs.clear()
            self.ready.clear()
            self._dead.set()
            await child.kill()

    def _strike(self, signum: signal.Signals) -> bool:
        if not self._runs.is_set():
            return False
        self._struck = True
        self._child.signal(signum)
        return True

    def kill(self) -> bool:
        """SIGKILL. False: it is dead already."""
        return self._strike(signal.SIGKILL)

    def ask_to_stop(self) -> bool:
        """SIGTERM. False: it is dead already."""
        return self._strike(signal.SIGTERM)

    async def freeze(self, seconds: float) -> None:
        """SIGSTOP, and SIGCONT later."""
        if self._runs.is_set():
            child = self._child
            child.signal(signal.SIGSTOP)
            await asyncio.sleep(seconds)
            child.signal(signal.SIGCONT)

    async def killed_in_start(self, share: float) -> int:
        """Kill it, and kill its next life when this share of the time that a start takes is over; how many died."""
        kills = 0
        if self.kill():
            kills += 1
            await self._dead.wait()
        await self._runs.wait()
        await asyncio.sleep(self.start_s * share)
        return kills + self.kill()

    async def end(self) -> None:
        """Kill it for good."""
        self._ending = True
        self.kill()
        await self._over.wait()

    async def stop(self) -> None:
        """SIGTERM; returns when it has ended, by itself."""
        self._ending = True
        self.ask_to_stop()
        await self._over.wait()
