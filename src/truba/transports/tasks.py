"""Hand-overs that are tasks of this process: the route itself is the owner of what is handed over."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import TYPE_CHECKING, Any

from truba.node.owners import Handover, Hold, Owner
from truba.types import Cause

if TYPE_CHECKING:
    from truba.node.node import Node


NAMES_MAX = 3

LATE_S = 5.0
"""Whoever does not end so long after it was cancelled is told of: everybody waits for it."""


class HandoverTasks:
    """The `Receiver` of one owner. A task that is cancelled has its session `taken` from it, unless it has cancelled
    itself."""

    def __init__(
        self,
        name: str,
        run: Callable[[Node, Handover], Coroutine[Any, Any, None]],
        given_up: Callable[[Node, Hold, Cause], None] | None = None,
    ) -> None:
        """`name` is what a task is called, before its session; `given_up`: called when a session was taken from one."""
        self.owner: Owner | None = None  # between start and stop
        self._name = name
        self._run = run
        self._given_up = given_up
        self._node: Node | None = None
        self._tasks: dict[Hold, asyncio.Task[None]] = {}

    def __len__(self) -> int:
        return len(self._tasks)

    def start(self, node: Node) -> None:
        self._node = node
        self.owner = node.presence.attach(self)

    async def stop(self) -> None:
        """Cancel what is at work; its sessions are lost to it, and due again by their kind's policy."""
        node, owner = self._node, self.owner
        self.owner = None
        tasks = list(self._tasks.values())
        if node is not None and owner is not None:
            node.presence.detach(owner)
        for task in tasks:
            task.cancel()
        loop = asyncio.get_running_loop()
        late = loop.call_later(LATE_S, self._tell_late, loop)
        try:
            await asyncio.gather(*tasks, return_exceptions=True)
        finally:
            late.cancel()

    def _tell_late(self, loop: asyncio.AbstractEventLoop) -> None:
        names = ", ".join(task.get_name() for task in list(self._tasks.values())[:NAMES_MAX])
        message = (
            f"cancelled {LATE_S:g} s ago, {len(self._tasks)} go on ({names}), and the stop waits until they end: their "
            "sessions are not theirs any more, and nothing is lost when this process is killed"
        )
        loop.call_exception_handler({"message": message})

    def taken(self, hold: Hold) -> bool:
        """Whether the task's word on its session counts no more. After a `stop` the hold itself may still be open: very
        many are given back in slices."""
        return bool(hold.ended) or hold.owner is not self.owner

    def repeat(self, handover: Handover) -> bool:
        assert self._node is not None  # hand-overs come after start
        hold = handover.hold
        run = self._run(self._node, handover)
        name = f"{self._name} {hold.id_text.decode()}"
        self._tasks[hold] = task = asyncio.get_running_loop().create_task(run, name=name)
        task.add_done_callback(lambda _: self._tasks.pop(hold))
        return True

    def lost(self, hold: Hold, cause: Cause) -> None:
        task = self._tasks.get(hold)
        if task is None or not task.cancel(f"session {hold.id} was taken away: {cause}"):
            return
        if self._given_up is not None:
            assert self._node is not None  # as above
            self._given_up(self._node, hold, cause)

    def released(self, hold: Hold) -> None:
        pass
