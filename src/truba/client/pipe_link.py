"""One connection that a pipe has dialled, and the handlers that run for what it hands over.

    the pipe connects, says hello with the route's secret  ->  we answer with AUTH if need be, and KINDS
    it pushes `repeat`  ->  the handler of that kind runs as a task; its session's operations go back on this connection
    it pushes `lost`, or the connection breaks  ->  the task is cancelled, and its session's operations raise Fenced

Who may connect, and what becomes of all connections at the end, is in `handlers`.
"""

from __future__ import annotations

import asyncio
import contextlib
import hmac
from collections import deque
from typing import TYPE_CHECKING, Any, cast

import hiredis

from truba.client.answers import NOT_A_PIPE, Answers
from truba.client.hello import read_hello
from truba.client.requests import encode, error_of
from truba.client.resume import Act
from truba.client.session import Hold, WireSession
from truba.errors import Closed, Fenced, NoSession, OperationError, TrubaError, UnknownOutcome
from truba.session import RepeatData
from truba.types import Cause, Index

if TYPE_CHECKING:
    from truba.client.handlers import HandlerServer

HANG_UP_S = 2.0
"""How long a closing service waits for its last words to leave."""


class HandlerSession(WireSession[Hold]):
    """A session that was handed to this service, through one connection."""

    __slots__ = ("_link",)

    def __init__(self, hold: Hold, link: PipeLink) -> None:
        super().__init__(hold)
        self._link = link

    async def _call(self, act: Act, request: bytes) -> None:
        try:
            await self._link.request(request)
        except (Fenced, NoSession, Closed, UnknownOutcome):
            self._hold.ended = self._hold.ended or "taken"
            raise
        except OperationError:
            if act == "end":
                self._hold.ended = ""  # refused for now: the hold goes on
            raise


class PipeLink(asyncio.Protocol):
    """See the module. Counted among its server's `links` until it has ended."""

    def __init__(self, server: HandlerServer) -> None:
        self._server = server
        self._answers = Answers()
        self._early = bytearray()  # before hello
        self._trusted = False
        self._gone = asyncio.Event()
        self._waiting: deque[asyncio.Future[Any]] = deque()
        self._running: dict[tuple[bytes, int], tuple[Hold, asyncio.Task[None]]] = {}
        self._outbox: list[bytes] = []
        self._traced: tuple[tuple[bytes, int], bytes] | None = None  # trace context of the repeat that comes next
        self._transport: asyncio.Transport | None = None

    # -- asyncio

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's is no subclass of it
        self._server.links.add(self)

    @property
    def transport(self) -> asyncio.Transport | None:
        return self._transport

    def data_received(self, data: bytes) -> None:
        if not self._trusted:
            self._early += data
            try:
                hello = read_hello(self._early)
            except ValueError as error:
                self._refuse(str(error))
                return
            if hello is None:
                return
            data = bytes(self._early[hello.end :])
            self._early.clear()
            if not self._hello(hello.secret):
                return
        try:
            for message in self._answers.read(data):
                self._take(message)
        except (*NOT_A_PIPE, LookupError, AttributeError) as error:
            self._refuse(f"what was said is not the protocol of a pipe: {error!r}")

    def connection_lost(self, error: Exception | None) -> None:
        self._transport = None
        self._server.links.discard(self)
        self._server.entrance.left(self)
        for answer in self._waiting:
            if not answer.done():
                answer.set_exception(UnknownOutcome("the connection to the pipe broke; outcome unknown"))
        self._waiting.clear()
        for hold, task in list(self._running.values()):
            hold.ended = hold.ended or "taken"
            task.cancel(f"session {hold.id}: the connection to the pipe broke")
        self._gone.set()

    # -- pushes and answers

    def _take(self, message: Any) -> None:
        if isinstance(message, hiredis.PushNotification):
            match message[0]:
                case b"repeat":
                    self._repeat(message)
                case b"traced":
                    _, id_text, epoch, trace = message
                    self._traced = ((id_text, epoch), bytes(trace))
                case b"lost":
                    self._lost(message)
                case _:
                    pass  # of a newer pipe: pushes of other names are news, not duties
            return
        answer = self._waiting.popleft()
        if answer.done():
            return
        if isinstance(message, hiredis.ReplyError):
            answer.set_exception(error_of(str(message)))
        else:
            answer.set_result(message)

    def _hello(self, secret: bytes) -> bool:
        """Do we trust whoever said this secret? Then we say who we are."""
        settings = self._server.settings
        if not hmac.compare_digest(secret, settings.secret):
            self._refuse("a pipe with a wrong secret")
            return False
        self._trusted = True
        self._server.entrance.known(self)
        numbers = [b"%d" % number for number in self._server.handlers]
        kinds = encode(b"KINDS", *numbers, b"CREDIT", b"%d" % settings.credit)
        for request in (settings.greeting, kinds):
            if request:
                answer = self.request(request)
                answer.add_done_callback(self._greeted)
        return True

    def _greeted(self, answer: asyncio.Future[Any]) -> None:
        error = answer.exception()
        if error is not None and self._transport is not None and not self._transport.is_closing():
            self._server.on_trouble("the pipe refuses this handler service", error)
            self.hang_up()

    def _repeat(self, message: list[Any]) -> None:
        _, id_text, epoch, kind, attempt, _, cause, *records = message
        if not (set(map(type, records)) <= {bytes} and {type(epoch), type(kind), type(attempt)} == {int}):
            raise ValueError("a repeat of values that a pipe does not send")
        key = (id_text, epoch)
        if key in self._running:
            raise ValueError(f"session {id_text!r} is handed over a second time at the same epoch")
        credit = self._server.settings.credit
        # Handlers that go on after the end of their session are no fault of the pipe. Counted only when they are many.
        if len(self._running) >= 2 * credit and sum(not hold.ended for hold, _ in self._running.values()) >= credit:
            raise ValueError(f"more sessions at once than the {credit} that it has credit for")
        hold = Hold(kind, epoch)
        hold.id = Index.parse(id_text)
        hold.ref = b"%b@%d" % (id_text, epoch)
        session = HandlerSession(hold, self)
        traced, self._traced = self._traced, None
        trace = traced[1] if traced is not None and traced[0] == key else b""
        repeat = RepeatData(records, session, kind, attempt, Cause(cause.decode()), trace)
        task = asyncio.get_running_loop().create_task(self._run(repeat, session), name=f"handler {hold.id}")
        self._running[key] = (hold, task)
        self._server.tasks.add(task)
        task.add_done_callback(lambda _: self._done(key, task))

    def _done(self, key: tuple[bytes, int], task: asyncio.Task[None]) -> None:
        del self._running[key]
        self._server.tasks.discard(task)

    def _lost(self, message: list[Any]) -> None:
        running = self._running.get((message[1], message[2]))
        if running is not None:
            hold, task = running
            hold.ended = hold.ended or "taken"
            task.cancel(f"session {hold.id} was taken away: {message[3].decode()}")

    async def _run(self, repeat: RepeatData, session: HandlerSession) -> None:
        server = self._server
        try:
            await server.handlers[repeat.kind](repeat)
        except KeyboardInterrupt:
            raise  # the whole service ends
        except BaseException as error:
            task = asyncio.current_task()
            if isinstance(error, asyncio.CancelledError) and task is not None and task.cancelling():
                raise  # by us; one that the handler raised itself is a failure like any other
            server.failed += 1
            server.on_trouble(f"the handler of session {session.id} failed", error)
            if not session.ended:
                await self._tell(session.fail(f"{type(error).__name__}: {error}"), session)
        else:
            server.finished += 1
            if not session.ended:
                await self._tell(session.delete(), session)

    async def _tell(self, ending: Any, session: HandlerSession) -> None:
        """The last word on a session; the pipe hands it over again when it does not arrive."""
        try:
            await ending
        except TrubaError as error:
            self._server.on_trouble(f"the end of session {session.id} did not reach the pipe", error)

    # -- requests

    def request(self, request: bytes) -> asyncio.Future[Any]:
        """Send; the answer. Requests of one turn of the loop leave together."""
        loop = asyncio.get_running_loop()
        answer: asyncio.Future[Any] = loop.create_future()
        if self._transport is None:
            answer.set_exception(Fenced("the connection to the pipe is gone, the session with it; nothing was sent"))
            return answer
        if not self._outbox:
            loop.call_soon(self._flush)
        self._outbox.append(request)
        self._waiting.append(answer)
        return answer

    def _flush(self) -> None:
        requests, self._outbox = self._outbox, []
        if self._transport is not None:
            self._transport.write(b"".join(requests))

    def stop_taking(self) -> None:
        """The pipe hands over nothing more on this connection."""
        if self._trusted and self._transport is not None:
            numbers = [b"%d" % number for number in self._server.handlers]
            self.request(encode(b"KINDS", *numbers, b"CREDIT", b"0")).add_done_callback(_ignore)

    def hang_up(self) -> None:
        if self._transport is not None:
            self._transport.close()

    async def ended(self) -> None:
        """Until the connection has ended, by force if need be."""
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._gone.wait(), HANG_UP_S)
        if self._transport is not None:
            self._transport.abort()

    def _refuse(self, why: str) -> None:
        self._server.rejections.add("a connection was refused", reason=why)
        if self._transport is not None:
            self._transport.abort()


def _ignore(answer: asyncio.Future[Any]) -> None:
    if not answer.cancelled():
        answer.exception()
