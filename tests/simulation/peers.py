"""The other ends of the pipe's connections: they speak the wire protocol, and tell the checker of calls and answers."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

import hiredis

from tests.simulation.checker import Call
from tests.simulation.network import End

if TYPE_CHECKING:
    from tests.simulation.world import World


@dataclass(slots=True, eq=False)
class Ask:
    """A request that is no operation on a session."""

    what: str
    answer: asyncio.Future[Any]  # None: the connection ended before


def encode(parts: list[bytes]) -> bytes:
    return b"*%d\r\n" % len(parts) + b"".join([b"$%d\r\n%b\r\n" % (len(part), part) for part in parts])


class Peer(asyncio.Protocol):
    """One connection to the pipe, from the outside."""

    def __init__(self, world: World, who: str, link: str) -> None:
        self.world = world
        self.who = who
        self.link = link
        self.lost = False
        self.spoke = False
        self.on_push: Callable[[list[Any]], None] = lambda push: None
        self.on_lost: Callable[[], None] = lambda: None
        self._reader = hiredis.Reader()
        self._waiting: deque[Call | Ask] = deque()
        self._out: list[bytes] = []
        self._idle: asyncio.Future[None] | None = None
        self._awaited: dict[Call, asyncio.Future[None]] = {}
        self.end: End

    # -- as a protocol ------------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.end = cast(End, transport)

    def data_received(self, data: bytes) -> None:
        self._reader.feed(data)
        while (reply := self._reader.gets()) is not False:
            if isinstance(reply, hiredis.PushNotification):
                self.on_push(list(reply))
            else:
                self._answered(self._waiting.popleft(), reply)
            if self.lost:
                return  # whoever was told has hung up: the rest is never read
        if not self._waiting:
            self._rest()

    def connection_lost(self, error: Exception | None) -> None:
        self.hung_up()

    def pause_writing(self) -> None: ...

    def resume_writing(self) -> None: ...

    # -- what its owner does ----------------------------------------------------------------------------------

    def call(self, call: Call) -> None:
        """Send an operation with the next `flush`."""
        who = call.session if not call.epoch else f"{call.session}@{call.epoch}"
        word = call.verb.upper().encode()
        match call.verb:
            case "new":
                parts = [word, b"%d" % call.kind]
                if call.tag >= 0:
                    parts += [b"TAG", b"%d" % call.tag]
                parts += call.records
            case "store":
                parts = [word, who.encode(), b"%g" % call.seconds]
            case _:
                parts = [word, who.encode(), *call.records]
        self.world.checker.sent(call)
        self.world.story.tell(self.who, call.verb, who or call.kind, call.records or call.seconds or "")
        self._waiting.append(call)
        self._out.append(encode(parts))

    def ask(self, *parts: bytes) -> asyncio.Future[Any]:
        answer: asyncio.Future[Any] = self.world.loop.create_future()
        if self.lost:
            answer.set_result(None)
            return answer
        self._waiting.append(Ask(parts[0].decode(), answer))
        self._out.append(encode(list(parts)))
        self.flush()
        return answer

    def flush(self) -> None:
        self.end.write(b"".join(self._out))
        self._out.clear()

    async def answers(self) -> None:
        """Until everything that was sent has its answer, or never will."""
        self.flush()
        if self._waiting and not self.lost:
            self._idle = self.world.loop.create_future()
            await self._idle

    async def answer_to(self, call: Call) -> None:
        """Until this one has its answer, or never will."""
        self.flush()
        if not self.lost:
            self._awaited[call] = waiter = self.world.loop.create_future()
            await waiter

    def hang_up(self, *, farewell: bool) -> None:
        """With a farewell what was sent arrives; without it half of it may."""
        if farewell:
            self.end.close()
        else:
            self.end.abort()
        self.hung_up()

    def hung_up(self) -> None:
        """It is over: what was not answered never will be."""
        if self.lost:
            return
        self.lost = True
        waiting, self._waiting = self._waiting, deque()
        for each in waiting:
            if isinstance(each, Ask):
                each.answer.set_result(None)
            else:
                self.world.checker.unknown(each)
                self._tell(each)
        self.world.story.tell(self.who, "connection over", *([len(waiting), "without answer"] if waiting else []))
        self._rest()
        self.on_lost()

    # -- answers --------------------------------------------------------------------------------------------------

    def _answered(self, to: Call | Ask, reply: Any) -> None:
        if isinstance(to, Ask):
            to.answer.set_result(reply)
            return
        world = self.world
        if isinstance(reply, hiredis.ReplyError):
            outcome, session = str(reply).split(" ", 1)[0], ""
        else:
            outcome, session = "ok", reply.decode()
        world.story.tell(self.who, f"{to.verb} {to.session or session}:", outcome)
        world.checker.answered(to, outcome, world.clock.steady_s, session)
        if self._awaited:
            self._tell(to)

    def _tell(self, call: Call) -> None:
        waiter = self._awaited.pop(call, None)
        if waiter is not None and not waiter.done():
            waiter.set_result(None)

    def _rest(self) -> None:
        idle, self._idle = self._idle, None
        if idle is not None and not idle.done():
            idle.set_result(None)
