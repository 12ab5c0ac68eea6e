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
from truba.node.owners import Handover, Owner
from truba.node.session import LocalSession
from truba.session import RepeatData
from truba.sync import as_coroutine
from truba.transports.tasks import HandoverTasks

if TYPE_CHECKING:
    from truba.node.node import Node

REASON_CHARS_MAX = 200


class LocalRoute:
    """One function. How many sessions it works on at once is the kind's `concurrency`."""

    def __init__(self, handler: Handler) -> None:
        self._handler = as_coroutine(handler)
        self._tasks = HandoverTasks("handler", self._run)

    def start(self, node: Node, wake: Callable[[], None]) -> None:
        self._tasks.start(node)
        wake()

    def seat(self, kind: int) -> Owner | None:
        return self._tasks.owner

    def state(self) -> str:
        return f"in this process, {len(self._tasks)} at work"

    async def stop(self) -> None:
        """Cancel what is at work; its sessions are lost to it, and due again by their kind's policy."""
        await self._tasks.stop()

    async def _run(self, node: Node, handover: Handover) -> None:
        hold = handover.hold
        session = LocalSession(node, hold)
        repeat = RepeatData(handover.records, session, hold.kind, handover.attempt, handover.cause, handover.trace)
        try:
            await self._handler(repeat)
        except (Exception, SystemExit, asyncio.CancelledError) as error:
            if isinstance(error, asyncio.CancelledError) and self._tasks.taken(hold):
                raise  # the session was taken away, and this task with it
            asyncio.get_running_loop().call_exception_handler(
                {"message": f"the handler of session {hold.id} failed", "exception": error}
            )
            if not self._tasks.taken(hold):
                await session.fail(f"{type(error).__name__}: {error}"[:REASON_CHARS_MAX])
        else:
            if not self._tasks.taken(hold):
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
