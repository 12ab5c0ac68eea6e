"""`local` routes: handlers that are functions in this process; plain ones run in threads.

The handler's session is an ordinary one; returning deletes it, raising gives it back, an explicit end wins.
"""

from __future__ import annotations

import asyncio
import importlib
from collections.abc import Callable, Collection
from typing import TYPE_CHECKING, Any

from truba.errors import ConfigError
from truba.kinds import Handler, Kind
from truba.node.owners import Handover, Hold, Owner
from truba.node.session import LocalSession
from truba.session import RepeatData
from truba.sync import as_coroutine
from truba.types import Cause

if TYPE_CHECKING:
    from truba.node.node import Node

REASON_CHARS_MAX = 200


class LocalRoute:
    """One function. How many sessions it works on at once is the kind's `concurrency`."""

    def __init__(self, handler: Handler) -> None:
        self._handler = as_coroutine(handler)
        self._node: Node | None = None
        self._owner: Owner | None = None
        self._tasks: dict[Hold, asyncio.Task[None]] = {}

    def start(self, node: Node, wake: Callable[[], None]) -> None:
        self._node = node
        self._owner = node.attach(self)
        wake()

    def seat(self, kind: int) -> Owner | None:
        return self._owner

    def state(self) -> str:
        return f"in this process, {len(self._tasks)} at work"

    async def stop(self) -> None:
        """Cancel what is at work; its sessions are lost to it, and due again by their kind's policy."""
        node, owner = self._node, self._owner
        self._owner = None
        tasks = list(self._tasks.values())
        if node is not None and owner is not None:
            node.detach(owner)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    # -- as the owner's receiver

    def repeat(self, handover: Handover) -> bool:
        hold = handover.hold
        task = asyncio.get_running_loop().create_task(self._run(handover), name="handler " + hold.id_text.decode())
        self._tasks[hold] = task
        task.add_done_callback(lambda _: self._tasks.pop(hold))
        return True

    def lost(self, hold: Hold, cause: Cause) -> None:
        task = self._tasks.get(hold)
        if task is not None:
            task.cancel(f"session {hold.id} was taken away: {cause}")

    def released(self, hold: Hold) -> None:
        pass

    async def _run(self, handover: Handover) -> None:
        node, hold = self._node, handover.hold
        assert node is not None  # hand-overs come after start
        session = LocalSession(node, hold)
        repeat = RepeatData(handover.records, session, hold.kind, handover.attempt, handover.cause, handover.trace)
        try:
            await self._handler(repeat)
        except (Exception, SystemExit, asyncio.CancelledError) as error:
            if hold.ended and isinstance(error, asyncio.CancelledError):
                raise  # the session was taken away, and this task with it
            asyncio.get_running_loop().call_exception_handler(
                {"message": f"the handler of session {hold.id} failed", "exception": error}
            )
            if not hold.ended:
                await session.fail(f"{type(error).__name__}: {error}"[:REASON_CHARS_MAX])
        else:
            if not hold.ended:
                await session.delete()


def local_transport(address: str, kinds: Collection[Kind]) -> LocalRoute:
    """`local:package.module:function`."""
    path = address.removeprefix("local:")
    function = load_object(path)
    if not callable(function):
        raise ConfigError(f"handler {address!r}: {path} is not a function")
    return LocalRoute(function)


def load_object(path: str) -> Any:
    """`package.module:name`. ConfigError when it cannot be had."""
    module_name, colon, name = path.partition(":")
    if not (colon and module_name and name):
        raise ConfigError(f"{path!r}: write package.module:name")
    try:
        found: Any = importlib.import_module(module_name)
        for part in name.split("."):
            found = getattr(found, part)
    except Exception as error:  # whatever the module does when it is imported
        raise ConfigError(f"{path!r} cannot be loaded: {type(error).__name__}: {error}") from error
    return found
