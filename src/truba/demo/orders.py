"""Which transfers are still to be given out, and which were taken. No I/O.

A transfer counts as taken when a worker says that the pipe has acknowledged its plan. If the worker dies before that,
nobody knows whether the plan arrived, so the transfer is given out again under the same id. Should both plans have
arrived, the transfer is done twice, and the banks make the second time harmless. Once taken, it is never given out
again: what its worker left half done is finished by the pipe's handler or by nobody.
"""

from __future__ import annotations

import asyncio
import json
from collections import deque
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass

from truba.demo.transfers import Transfer


@dataclass(slots=True)
class Order:
    transfer: Transfer
    die: str
    """The point at which the worker must kill itself; empty: nowhere."""
    taken: bool = False

    def to_line(self) -> str:
        return json.dumps({"transfer": asdict(self.transfer), "die": self.die})


class Orders:
    def __init__(self, transfers: Iterable[Transfer], deaths: Mapping[str, str]) -> None:
        self._waiting = deque(Order(t, deaths.get(t.id, "")) for t in transfers)
        self._changed = asyncio.Event()
        self.total = len(self._waiting)
        self.limit = self.total
        self.taken = 0
        self.given_again = 0

    @property
    def progress(self) -> float:
        """Share of the transfers taken."""
        return self.taken / self.total

    def hold_at(self, share: float) -> None:
        """Give out no more once this share is taken; 1: give out all."""
        self.limit = max(1, round(self.total * share))
        self._changed.set()

    async def next(self) -> Order | None:
        """The next one to give out; waits while others may still come back, or are held. None: all are taken."""
        while not self._waiting or self.taken >= self.limit:
            if self.taken == self.total:
                return None
            self._changed.clear()
            await self._changed.wait()
        return self._waiting.popleft()

    def take(self, order: Order) -> None:
        if not order.taken:
            order.taken = True
            self.taken += 1
            self._changed.set()

    def drop(self, order: Order) -> None:
        """Its worker died or gave up; unless it was taken, it is given out again, now without a death in it."""
        if not order.taken:
            self._waiting.appendleft(Order(order.transfer, ""))
            self.given_again += 1
            self._changed.set()
