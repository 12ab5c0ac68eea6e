"""Stepping down: a node that leads is asked to let another one lead, and whoever asked is told how that went.

    asked -> who is to be next? -> the leader ends -> RESIGN is stored, or nobody hears it -> done
                                        |`- it was deposed meanwhile                       -> refused
                                        `- the node itself ends                            -> of unknown outcome

Raft knows it as the transfer of leadership. Here the leader only names the next one, with its last word; that node need
not wait then until the silence tells. If it is not there the others take over as after any leader. So a successor is a
wish: what the stream holds decides who leads, and nothing is lost by a bad choice but time.

This never ends a leader: the member does that, for one that was asked as for one that is to stop, and both resign.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping

from truba.cluster.log import ReplicatedLog
from truba.errors import Deposed, TrubaError, Unavailable, UnknownOutcome
from truba.node.node import Node, Tell


class SteppingDown:
    """One member's, for as long as it runs. It can be asked from each `lead` to the `over` that follows."""

    def __init__(self, name: str, tails: Callable[[], Awaitable[Mapping[str, int]]], tell: Tell) -> None:
        """`tails`: as for `Member`."""
        self._name = name
        self._tails = tails
        self._tell = tell
        self._asked: asyncio.Future[str] | None = None  # who is to be next; there while the node leads
        self._answer: asyncio.Future[None] | None = None  # to whoever asked

    async def ask(self, successor: str = "") -> None:
        """Have `successor` lead, or whoever comes first. Returns once this node has resigned.

        Unavailable: it does not lead, or was asked before. UnknownOutcome: it ended meanwhile.
        """
        successor = successor or await self._next_best()
        asked = self._asked
        if asked is None:
            raise Unavailable(f"{self._name} does not lead; nothing was changed")
        if asked.done():
            raise Unavailable(f"{self._name} is stepping down already, for somebody else; this changed nothing")
        self._answer = asyncio.get_running_loop().create_future()
        asked.set_result(successor)
        await self._answer

    def lead(self) -> asyncio.Future[str]:
        """The node leads from now on. Done, with the successor's name, once it was asked to step down."""
        self._asked = asyncio.get_running_loop().create_future()
        return self._asked

    async def resign(self, log: ReplicatedLog, node: Node) -> BaseException | None:
        """The leader's last word, unless the node has failed, or fails meanwhile: with that."""
        assert self._asked is not None
        successor = ""
        if not node.failed.done():  # else others say who leads, and there is no time to lose
            successor = self._asked.result() if self._asked.done() else await self._next_best()
        if node.failed.done():
            error = node.failed.result()
            self._end(Unavailable(f"{self._name} was deposed meanwhile: {error}"))
            return error
        try:
            await log.resign(successor)
        except Deposed as other:
            self._tell("resigned unheard", why=str(other))
        self._end(None)
        self._tell("resigned", term=node.machine.term, seq=node.machine.seq, successor=successor)
        return None

    def over(self) -> None:
        """The node leads no more, however that came about."""
        self._end(UnknownOutcome(f"{self._name} ended while it was to step down; outcome unknown"))

    def _end(self, error: TrubaError | None) -> None:
        """Whoever asked this node to step down hears how that went, and who asks from here on that it does not lead:
        neither may wait for ever, for their line in the audit log is waited for when the process ends."""
        self._asked = None
        answer, self._answer = self._answer, None
        if answer is None or answer.done():
            return
        if error is None:
            answer.set_result(None)
        else:
            answer.set_exception(error)

    async def _next_best(self) -> str:
        """Another node that answers, and has the most; empty: nobody does."""
        tails = await self._tails()
        return max((seq, name) for name, seq in {"": 0, **tails}.items() if name != self._name)[1]
