"""Notices: each session that is parked is told to its kind's hook, a few at a time, until the hook has succeeded.

Only numbers of sessions wait here; what is told is read when it is told, so a session that was resumed or removed by
then is passed over. Nothing of this is durable: who was not told of when the process ends is never told of, and stays
parked, where `truba ls` shows it.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Mapping
from functools import partial
from typing import TYPE_CHECKING

from truba.kinds import Backoff
from truba.ports.parked import ParkedHook, ParkedSession
from truba.types import Phase

if TYPE_CHECKING:
    from truba.node.node import Node

AT_ONCE = 4
"""Calls of one kind's hook at once: a thousand sessions parked together are no thousand processes."""

CALL_S_MAX = 30.0
"""How long a hook may take."""

AGAIN = Backoff(base_s=2.0, factor=2.0, cap_s=60.0)
"""Between two tries; with full jitter."""

TRIES_MAX = 10
"""Some minutes: then it is given up, which is told."""


class Notices:
    """All kinds' hooks of one node."""

    def __init__(self, node: Node, hooks: Mapping[int, ParkedHook]) -> None:
        self._node = node
        self._loop = asyncio.get_running_loop()
        self._tellers = {number: _Teller(node, hook) for number, hook in hooks.items()}
        self._tasks: set[asyncio.Task[None]] = set()
        self._closed = False

    def replace(self, hooks: Mapping[int, ParkedHook]) -> None:
        """Other hooks, from now on, also for what waits; of a kind without one nobody is told any more."""
        for number in self._tellers.keys() - hooks.keys():
            self._tellers.pop(number).closed = True
        for number, hook in hooks.items():
            if (teller := self._tellers.get(number)) is not None:
                teller.hook = hook
            elif not self._closed:
                self._tellers[number] = _Teller(self._node, hook)

    def parked(self, kind: int, number: int) -> None:
        """A session was parked just now: tell of it once that is durable."""
        if kind in self._tellers:
            self._node.when_durable(partial(self._durable, kind, number))

    def _durable(self, kind: int, number: int, durable: bool) -> None:
        teller = self._tellers.get(kind)
        if not durable or teller is None or teller.closed:
            return
        teller.waiting.append((number, 1))
        if teller.at_work < AT_ONCE:
            teller.at_work += 1
            task = self._loop.create_task(teller.run(), name=f"parked hook of kind {kind}")
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def close(self) -> None:
        """Tell of nothing more; what is under way is cancelled."""
        self._closed = True
        left = 0
        for teller in self._tellers.values():
            teller.closed = True
            left += len(teller.waiting) + teller.at_work
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        for ended in await asyncio.gather(*tasks, return_exceptions=True):
            if isinstance(ended, Exception):
                raise ended
        if left:
            self._node.tell("some parked sessions were not told of", left=left, next="truba ls --phase parked")


class _Teller:
    """One kind's hook, and the sessions that it is still to be told of, each with the number of its next try."""

    def __init__(self, node: Node, hook: ParkedHook) -> None:
        self._node = node
        self.hook = hook
        self.waiting: deque[tuple[int, int]] = deque()
        self.at_work = 0
        self.closed = False

    async def run(self) -> None:
        """Until nobody waits, or this is closed: it need not hear of that by a cancel, which a hook may keep to itself.
        One of AT_ONCE."""
        try:
            while self.waiting and not self.closed:
                number, tries = self.waiting.popleft()
                parked = self._look_up(number)
                if parked is None or await self._told(parked, tries):
                    continue
                if tries < TRIES_MAX:
                    self.waiting.append((number, tries + 1))
                await asyncio.sleep(AGAIN.delay_s(tries, self._node.clock.chance()))
        except Exception as error:  # the store cannot be read, or a defect
            self._node.give_up(error)
        finally:
            self.at_work -= 1

    def _look_up(self, number: int) -> ParkedSession | None:
        head = self._node.machine.get(number)
        if head is None or head.phase is not Phase.PARKED:
            return None
        kind = self._node.kinds[head.kind]
        return ParkedSession(head.id, head.kind, kind.name, head.cause, head.detail, head.attempts, head.epoch)

    async def _told(self, parked: ParkedSession, tries: int) -> bool:
        tell, began_ms = self._node.tell, self._node.clock.steady_ms()
        try:
            async with asyncio.timeout(CALL_S_MAX):
                await self.hook(parked)
        except TimeoutError as late:
            trouble = str(late) or f"not done within {CALL_S_MAX:.0f} s, and stopped"
        except asyncio.CancelledError as error:
            task = asyncio.current_task()
            if task is not None and task.cancelling():
                raise  # by us
            trouble = f"{type(error).__name__}: {error}"
        except Exception as error:  # whatever a hook of the user's own raises
            trouble = f"{type(error).__name__}: {error}"
        else:
            took_ms = self._node.clock.steady_ms() - began_ms
            tell("parked session told of", session=str(parked.id), kind=parked.kind, hook=repr(self.hook), ms=took_ms)
            return True
        what = "parked hook failed" if tries < TRIES_MAX else "parked hook failed, given up"
        tell(what, session=str(parked.id), kind=parked.kind, hook=repr(self.hook), error=trouble, tries=tries)
        return False
