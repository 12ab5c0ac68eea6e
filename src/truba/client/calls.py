"""Requests that wait for an answer, and the sessions that they belong to. No I/O, no tasks.

    submitted -> [behind another one of its session] -> outbox -> sent -> settled

One operation of a session is under way at a time, the next one waits for its answer; sessions do not wait for each
other. What was sent on a connection that broke stays in `sent` until `adopt` judges it by what the pipe says. Every
call is settled exactly once, whoever waits for it or has given up: the count of a session's writes depends on it.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, Literal

import hiredis

from truba.client.requests import encode, error_of
from truba.client.resume import Act, Verdict, in_time, judge, judge_new
from truba.client.session import REASON_BYTES_MAX, Hold
from truba.errors import Closed, Fenced, NoSession, OperationError, Unavailable, UnknownOutcome
from truba.types import Index

UNDER_WAY_MAX = 32_768
UNDER_WAY_BYTES_MAX = 32 << 20
"""Requests that wait for an answer; beyond either, callers wait for room."""

BREAKS_MAX = 5
"""Connections that may end with the same request as the first one not answered: it may be what breaks them."""

Errand = Act | Literal["new", "read", "other"]
"""What a request is for. read: it changes nothing and may be sent twice; other: it may not."""


class Call:
    """A request and who waits for its answer."""

    __slots__ = ("act", "answer", "born_s", "breaks", "hold", "request", "sent_s")

    def __init__(
        self, request: bytes, answer: asyncio.Future[Any], act: Errand, hold: RemoteHold | None, born_s: float
    ) -> None:
        self.request = request
        self.answer = answer
        self.act = act
        self.hold = hold
        self.born_s = born_s
        self.sent_s = 0.0  # 0: not sent, or known not to have happened
        self.breaks = 0


class RemoteHold(Hold):
    """A session that this client opened, or is opening."""

    __slots__ = ("abandoned", "acknowledged", "key", "queue", "seen_s", "tag")

    def __init__(self, kind: int, tag: int, key: int) -> None:
        super().__init__(kind)
        self.tag = tag
        self.key = key
        self.acknowledged = 0  # writes answered with OK
        self.queue: deque[Call] = deque()  # the first one is under way, the others wait for it
        self.seen_s = 0.0  # when the latest answered request about it was sent
        self.abandoned = False  # nobody is left who could use it: given back as soon as it can be

    def opened(self, id_text: bytes) -> None:
        """The answer to New. ValueError."""
        self.id = Index.parse(id_text)
        self.ref = id_text


class Held:
    """A session as the answer to OWNER lists it."""

    __slots__ = ("applied", "id_text", "key", "kind", "tag")

    def __init__(self, entry: Any) -> None:
        """TypeError, ValueError when it is none: everything that is settled after a break stands on it."""
        id_text, kind, tag, applied = entry
        index = Index.parse(bytes(id_text))
        self.id_text, self.kind, self.tag, self.applied = bytes(id_text), int(kind), int(tag), int(applied)
        self.key = self.tag if self.tag >= 0 else -index.seq  # without a tag: by its number


class Calls:
    """See the module. `send` is called, at most once a turn of the loop, with requests for a connection that is up."""

    def __init__(self, grace_s: float, send: Callable[[bytes], None]) -> None:
        self._loop = asyncio.get_running_loop()
        self._grace_s = grace_s
        self._send = send
        self._up = False
        self._flush_scheduled = False
        self._outbox: deque[Call] = deque()
        self._alive_s = 0.0  # when the latest answered request was sent
        self._under_way = 0
        self._under_way_bytes = 0
        self._room: deque[asyncio.Future[None]] = deque()
        self._woken = False  # one that waited for room has it, and comes in this turn of the loop
        self._ended: OperationError | None = None  # why nothing more is taken
        self.sent: deque[Call] = deque()
        self.holds: dict[int, RemoteHold] = {}  # by tag: those being opened or held

    @property
    def idle(self) -> bool:
        return not self._under_way

    # -- in ------------------------------------------------------------------------------------------------------

    def submit(self, hold: RemoteHold | None, act: Errand, request: bytes) -> asyncio.Future[Any]:
        """The answer, to be awaited. At once or when there is room."""
        if self._ended is not None:
            raise _again(self._ended)
        answer: asyncio.Future[Any] = self._loop.create_future()
        call = Call(request, answer, act, hold, time.monotonic())
        self._under_way += 1
        self._under_way_bytes += len(request)
        if hold is not None:
            queue = hold.queue
            queue.append(call)
            if len(queue) > 1:
                return answer
        self._outbox.append(call)
        if not self._flush_scheduled and self._up:
            self._flush_scheduled = True
            self._loop.call_soon(self._flush)
        return answer

    @property
    def full(self) -> bool:
        """Must a caller wait for `room`? Also while others do: a session's operations take effect in the order sent."""
        return self._woken or bool(self._room) or self._over()

    def _over(self) -> bool:
        return self._under_way >= UNDER_WAY_MAX or self._under_way_bytes >= UNDER_WAY_BYTES_MAX

    async def room(self) -> None:
        """Until there is room for a call, which is to be submitted in the same turn of the loop."""
        wait, queue = self.full, self._room.append
        while wait and self._ended is None:
            waiter: asyncio.Future[None] = self._loop.create_future()
            queue(waiter)
            try:
                await waiter
            except asyncio.CancelledError:
                if not waiter.cancelled():
                    self._woken = False
                self._make_room()  # whoever was woken and does not come passes it on
                raise
            self._woken = False
            wait, queue = self._over(), self._room.appendleft
        self._make_room()  # one answer may make room for many

    def give_back(self, hold: RemoteHold, reason: str) -> asyncio.Future[Any] | None:
        """Nobody is left to use a session: FAIL, whenever it can be sent. The answer, which need not be awaited."""
        if hold.ended or hold.abandoned or self._ended is not None:
            return None
        if hold.id is None:
            if hold.queue:
                hold.abandoned = True  # it is being opened: given back once that is answered
            else:
                self.holds.pop(hold.key, None)
            return None
        hold.ended = "closed"
        request = encode(b"FAIL", hold.ref, reason.encode("utf-8", "replace")[:REASON_BYTES_MAX])
        answer = self.submit(hold, "end", request)
        answer.add_done_callback(_seen)
        hold.queue[-1].born_s = math.inf  # it waits for as long as the pipe is away
        return answer

    def ping(self) -> None:
        """A question whose only use is that it is answered."""
        self.submit(None, "read", encode(b"PING")).add_done_callback(_seen)

    # -- out -----------------------------------------------------------------------------------------------------

    def _post(self, call: Call) -> None:
        self._outbox.append(call)
        if not self._flush_scheduled and self._up:
            self._flush_scheduled = True
            self._loop.call_soon(self._flush)

    def _flush(self) -> None:
        self._flush_scheduled = False
        outbox = self._outbox
        if not self._up or not outbox:
            return
        now_s = time.monotonic()
        for call in outbox:
            call.sent_s = now_s
        self.sent.extend(outbox)
        self._send(b"".join([call.request for call in outbox]))
        outbox.clear()

    # -- answers ---------------------------------------------------------------------------------------------------

    def answered(self, reply: Any) -> bool:
        """The pipe's answer to the oldest request sent. False: this connection is of no use any more."""
        if not self.sent:
            return False
        call = self.sent[0]
        if type(reply) is hiredis.ReplyError:
            error = error_of(str(reply))
            if call.breaks < BREAKS_MAX and (
                isinstance(error, UnknownOutcome) or (call.act == "new" and isinstance(error, Fenced))
            ):
                return False  # nobody knows yet; or another connection has taken our name: come back, and compare
            self.sent.popleft()
            self._alive_s = call.sent_s
            self._settle(call, None, error)
            return True
        if call.hold is not None and call.act == "new":
            call.hold.opened(reply)  # before anything else is changed: ValueError when this is no pipe
        self.sent.popleft()
        self._alive_s = call.sent_s
        self._settle(call, reply, None)
        return True

    def _settle(self, call: Call, reply: Any, error: OperationError | None) -> None:
        self._under_way -= 1
        self._under_way_bytes -= len(call.request)
        if self._room:
            self._make_room()
        if not call.answer.done():  # else: whoever waited was cancelled or ran out of time
            if error is None:
                call.answer.set_result(reply)
            else:
                call.answer.set_exception(error)
        if call.hold is not None:
            self._advance(call.hold, call, reply, error)

    def _advance(self, hold: RemoteHold, call: Call, reply: Any, error: OperationError | None) -> None:
        """The call that was under way for a session is settled: what it means, and the next one."""
        queue = hold.queue
        queue.popleft()
        hold.seen_s = call.sent_s or hold.seen_s
        if error is None:
            if call.act == "write":
                hold.acknowledged += 1
            elif hold.abandoned:
                hold.abandoned = False
                self.give_back(hold, "whoever opened it did not wait for it")
                return
        elif call.act == "new" or isinstance(error, Fenced | NoSession | Closed | UnknownOutcome):
            closed = isinstance(error, Closed) or (call.act == "end" and isinstance(error, UnknownOutcome))
            hold.ended = "closed" if closed else "taken"
            while queue:
                taken = Fenced(f"session {hold.id} was taken away from you; nothing was sent")
                self._drop(queue.popleft(), taken if self._ended is None else _again(self._ended))
        elif call.act == "end":
            hold.ended = ""  # refused for now, e.g. for want of permission: the hold goes on
        if queue:
            self._post(queue[0])
        elif hold.ended:
            self.holds.pop(hold.key, None)

    def _drop(self, call: Call, error: OperationError) -> None:
        """A call that was never sent, and is in no queue any more."""
        self._under_way -= 1
        self._under_way_bytes -= len(call.request)
        if not call.answer.done():
            call.answer.set_exception(error)
        if self._room:
            self._make_room()

    def _make_room(self) -> None:
        while self._room and not self._woken and (self._ended is not None or not self._over()):
            waiter = self._room.popleft()
            if not waiter.done():
                waiter.set_result(None)
                self._woken = True  # it wakes the next one

    # -- connections come and go -------------------------------------------------------------------------------------

    def down(self) -> None:
        """The connection is lost."""
        self._up = False

    def adopt(self, listed: Iterable[Held], asked_s: float) -> None:
        """A new connection is up. `listed`: what the pipe says that we hold; `asked_s`: when we asked."""
        now_s = time.monotonic()
        held = {one.key: one for one in listed}
        under_way, self.sent = self.sent, deque()
        resend: deque[Call] = deque()
        if under_way:
            under_way[0].breaks += 1
        for call in under_way:
            verdict, reply = self._judge(call, held, now_s)
            match verdict:
                case "send again" if call.breaks < BREAKS_MAX:
                    call.sent_s = 0.0
                    resend.append(call)
                case "send again":
                    broke = f"the connection broke {call.breaks} times under this request; nothing was stored"
                    self._settle(call, None, Unavailable(broke))
                case "happened":
                    if call.hold is not None and call.act == "new":
                        call.hold.opened(reply)
                    self._settle(call, reply, None)
                case "gone":
                    self._settle(call, None, Fenced("the session was taken away from you; nothing was stored"))
                case "unknown":
                    broke = "the connection broke before the answer"
                    known = _known(call, held)
                    look = "outcome unknown: look at the session, or ask again"
                    self._settle(call, None, UnknownOutcome(f"{broke}{known}; {look}"))
        for hold in list(self.holds.values()):
            if hold.key in held:
                hold.seen_s = asked_s
            elif hold.id is not None and not hold.queue:
                hold.ended = hold.ended or "taken"
                del self.holds[hold.key]
        self._alive_s = asked_s
        unsent = [call for call in self._outbox if not self._forget(call)]
        self._outbox.clear()
        self._outbox.extend(resend)
        self._outbox.extend(unsent)
        self._up = True
        self._flush()

    def _forget(self, call: Call) -> bool:
        """A New that nobody waits for any more, and that was never sent, need not happen."""
        hold = call.hold
        if hold is None or call.act != "new" or not hold.abandoned:
            return False
        self._settle(call, None, Unavailable("nobody waited for it; nothing was sent"))
        return True

    def _judge(self, call: Call, held: dict[int, Held], now_s: float) -> tuple[Verdict, bytes]:
        """What became of a call that was sent and not answered; its answer, when it happened."""
        hold = call.hold
        match call.act:
            case "read":
                return "send again", b""
            case "other":
                return "unknown", b""
        assert hold is not None  # what is left is about a session
        one = held.get(hold.key)
        if call.act == "new":
            return judge_new(one is not None, in_time(now_s, self._alive_s, self._grace_s)), one.id_text if one else b""
        within_grace = in_time(now_s, min(self._alive_s, hold.seen_s), self._grace_s)
        return judge(call.act, hold.acknowledged, one.applied if one else None, within_grace), b"OK"

    def take_over(self, listed: Iterable[Held], asked_s: float) -> Iterator[RemoteHold]:
        """Sessions that an earlier client with our token left: they are ours now."""
        for one in listed:
            hold = RemoteHold(one.kind, one.tag, one.key)
            hold.opened(one.id_text)
            hold.acknowledged = one.applied
            hold.seen_s = asked_s
            self.holds[hold.key] = hold
            yield hold

    # -- giving up ----------------------------------------------------------------------------------------------------

    def expire(self, timeout_s: float) -> None:
        """While there is no connection: those who have waited for so long are told what is known."""
        oldest_s = time.monotonic() - timeout_s
        for call in self.sent:
            if call.born_s < oldest_s and not call.answer.done():
                # The call stays: the session's count must still be settled when the pipe is back.
                call.answer.set_exception(UnknownOutcome("the pipe cannot be reached; outcome unknown"))
        for hold in self.holds.values():
            if len(hold.queue) > 1:
                first, *behind = hold.queue
                hold.queue = deque([first])
                for call in behind:
                    if call.born_s < oldest_s:
                        if call.act == "end":
                            hold.ended = ""  # it was not given back after all
                        self._drop(call, _unsent())
                    else:
                        hold.queue.append(call)
        overdue = [call for call in self._outbox if call.born_s < oldest_s]
        if overdue:
            self._outbox = deque(call for call in self._outbox if call.born_s >= oldest_s)
            for call in overdue:
                self._settle(call, None, _unsent())

    def end(self, why: OperationError) -> None:
        """Nothing more is taken, nothing more will be answered. `why`: in words that fit what was never sent."""
        self._ended = why
        self._up = False
        self._make_room()
        sent, self.sent = self.sent, deque()
        for call in sent:
            self._settle(call, None, UnknownOutcome(f"{why}; it had been sent: outcome unknown"))
        while self._outbox:  # settling one may post the next of its session
            self._settle(self._outbox.popleft(), None, _again(why))


def _known(call: Call, held: Mapping[int, Held]) -> str:
    """What a new connection was told of the session, so that nobody knows what became of the call."""
    if call.hold is None or call.act == "new":
        return ""
    one = held.get(call.hold.key)
    if one is None:
        return f", and the pipe says that {call.hold.id} is not yours any more"
    return f", and the pipe has {one.applied} writes of {call.hold.id}, of which {call.hold.acknowledged} were answered"


def _unsent() -> OperationError:
    return Unavailable("the pipe cannot be reached; nothing was stored")


def _again(error: OperationError) -> OperationError:
    """A copy: one exception raised in many tasks would gather all their tracebacks."""
    return type(error)(*error.args)


def _seen(answer: asyncio.Future[Any]) -> None:
    """Nobody need look at the answer."""
    if not answer.cancelled():
        answer.exception()
