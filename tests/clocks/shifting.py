"""A hook for `truba serve`: its wall clock is ahead of the machine's by the milliseconds that a file holds.

    [[node.frontends]]
    factory = "tests.clocks.shifting:Shifting"
    options = { ahead = "/path/of/the/file" }

Setting the clock of the whole machine is not for tests, and neither a namespace nor a system call moves the wall clock
of one process. Timers and the steady clock stay the machine's own.
"""

from __future__ import annotations

from pathlib import Path

from truba.clock import SystemClock
from truba.node.node import Node


class ShiftedClock(SystemClock):
    def __init__(self, ahead: Path) -> None:
        self._ahead = ahead

    def now_ms(self) -> int:
        return super().now_ms() + int(self._ahead.read_text())


class Shifting:
    """`truba.ports.frontend.Frontend` that serves nobody."""

    def __init__(self, options: dict[str, str]) -> None:
        self._ahead = Path(options["ahead"])

    async def start(self, node: Node) -> None:
        node.clock = ShiftedClock(self._ahead)

    async def stop(self) -> None:
        pass
