"""`truba.connect`: a client of a pipe in another process.

Many sessions share one connection. Requests of one turn of the loop leave in one write; answers come in order. A
broken connection is dialled again under the same owner token, and what was under way is settled by
`truba.client.resume`: no record is lost or doubled by it.

One operation of a session is under way at a time; the next one waits for its answer. Sessions do not wait for each
other.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import secrets
import time
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Generator, Sequence
from contextlib import asynccontextmanager
from types import TracebackType
from typing import Any, Literal

import hiredis

from truba.client.requests import encode, error_of, plain
from truba.client.resume import Verdict, in_time, judge, judge_new
from truba.client.session import Act, Hold, WireSession
from truba.client.target import Target, parse_target
from truba.errors import Busy, Closed, Fenced, NoAuth, NoPerm, NoSession, OperationError, Unavailable, UnknownOutcome
from truba.kinds import Backoff
from truba.types import Index

REDIAL = Backoff(base_s=0.05, factor=2.0, cap_s=2.0)
UNDER_WAY_MAX = 32_768
UNDER_WAY_BYTES_MAX = 32 << 20
"""Requests that wait for an answer; beyond either, callers wait for room."""

REASON_CHARS_MAX = 200


class _Call:
    """A request and who waits for its answer."""

    __slots__ = ("act", "answer", "born_s", "hold", "request", "sent_s")

    def __init__(
        self, request: bytes, answer: asyncio.Future[Any], act: Act | Literal["new", "read", "other"], born_s: float
    ) -> None:
        self.request = request
        self.answer = answer
        self.act = act
        self.hold: RemoteHold | None = None
        self.born_s = born_s
        self.sent_s = 0.0  # 0: never sent


class RemoteHold(Hold):
    """A session that this client opened, or is opening."""

    __slots__ = ("acknowledged", "queue", "tag")

    def __init__(self, kind: int, tag: int) -> None:
        super().__init__(kind)
        self.tag = tag
        self.acknowledged = 0  # writes answered with OK
        self.queue: deque[_Call] = deque()  # the first one is under way, the others wait for it


class RemoteSession(WireSession[RemoteHold]):
    """A session that this client opened."""

    __slots__ = ("_submit",)

    def __init__(self, hold: RemoteHold, submit: Callable[[RemoteHold, Act, bytes], Awaitable[Any]]) -> None:
        super().__init__(hold)
        self._submit = submit

    async def _call(self, act: Act, request: bytes) -> None:
        await self._submit(self._hold, act, request)


class RemotePipe:
    """See `truba.session.Pipe`. Made by `connect`."""

    def __init__(
        self,
        targets: Sequence[Target],
        token: bytes | None,
        grace_s: float,
        timeout_s: float,
        user: str | None,
        password: str | None,
    ) -> None:
        self._targets = deque(targets)
        self._token = token
        self._grace_s = grace_s
        self._timeout_s = timeout_s
        self._credentials = (user, password)
        self._loop = asyncio.get_running_loop()
        self._link: _Link | None = None
        self._outbox: deque[_Call] = deque()
        self._flush_scheduled = False
        self._holds: dict[int, RemoteHold] = {}  # by tag: those being opened or held
        self._next_tag = secrets.randbits(40) << 20  # a restarted client with a fixed token reuses no tag of its past
        self._alive_s = 0.0  # when the latest answered request was sent
        self._under_way = 0
        self._under_way_bytes = 0
        self._room: deque[asyncio.Future[None]] = deque()
        self._keeper: asyncio.Task[None] | None = None
        self._closed = False
        self._broken: OperationError | None = None  # why there will be no connection any more
        self._up = asyncio.Event()

    # -- for users -------------------------------------------------------------------------------------------

    async def new(self, kind: int, *records: bytes, tag: int | None = None) -> RemoteSession:
        """Open a session. `tag`: the owner's own number for it, not in use by another open session."""
        if tag is None:
            tag = self._next_tag
            self._next_tag += 1
        if tag in self._holds:
            raise Busy(f"tag {tag} is in use by session {self._holds[tag].id}; nothing was sent")
        hold = RemoteHold(kind, tag)
        tagged = (b"TAG", b"%d" % tag) if self._token is not None else ()
        self._holds[tag] = hold
        try:
            await self._submit(hold, "new", encode(b"NEW", b"%d" % kind, *tagged, *map(plain, records)))
        except BaseException:
            if hold.id is None and not hold.queue:
                self._holds.pop(tag, None)
            raise
        return RemoteSession(hold, self._submit)

    @asynccontextmanager
    async def session(self, kind: int, *records: bytes) -> AsyncIterator[RemoteSession]:
        """Delete on success; on an exception give back by the kind's policy and raise it again."""
        session = await self.new(kind, *records)
        try:
            yield session
        except BaseException as error:
            if not session.ended:
                await session.fail(f"{type(error).__name__}: {error}"[:REASON_CHARS_MAX])
            raise
        if not session.ended:
            await session.delete()

    async def request(self, *args: bytes, read: bool = False) -> Any:
        """Any other request; its answer as hiredis gives it. `read`: it changes nothing and may be sent twice."""
        return await self._submit(None, "read" if read else "other", encode(*args))

    async def close(self) -> None:
        """Close the connection. Sessions still held are unfinished once the grace has passed."""
        if self._closed:
            return
        self._closed = True
        if self._keeper is not None:
            self._keeper.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._keeper
        if self._link is not None:
            self._link.transport.close()
        self._fail_all(Unavailable("the client was closed"), UnknownOutcome("the client was closed; outcome unknown"))

    async def __aenter__(self) -> RemotePipe:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.close()

    # -- calls -------------------------------------------------------------------------------------------------

    async def _submit(self, hold: RemoteHold | None, act: Act | Literal["new", "read", "other"], request: bytes) -> Any:
        if self._closed:
            raise Unavailable("this client is closed; nothing was sent")
        if self._broken is not None:
            raise self._broken
        while self._under_way >= UNDER_WAY_MAX or self._under_way_bytes >= UNDER_WAY_BYTES_MAX:
            room: asyncio.Future[None] = self._loop.create_future()
            self._room.append(room)
            await room
        answer: asyncio.Future[Any] = self._loop.create_future()
        call = _Call(request, answer, act, time.monotonic())
        self._under_way += 1
        self._under_way_bytes += len(request)
        if hold is None:
            self._post(call)
        else:
            call.hold = hold
            hold.queue.append(call)
            if len(hold.queue) == 1:
                self._post(call)
        return await answer

    def _post(self, call: _Call) -> None:
        self._outbox.append(call)
        if not self._flush_scheduled and self._link is not None:
            self._flush_scheduled = True
            self._loop.call_soon(self._flush)

    def _flush(self) -> None:
        self._flush_scheduled = False
        link = self._link
        if link is None or not self._outbox:
            return
        now_s = time.monotonic()
        for call in self._outbox:
            call.sent_s = now_s
        link.waiting.extend(self._outbox)
        link.transport.write(b"".join([call.request for call in self._outbox]))
        self._outbox.clear()

    def _answered(self, call: _Call, reply: Any) -> None:
        """The pipe's own word on a call."""
        self._alive_s = call.sent_s
        if isinstance(reply, hiredis.ReplyError):
            self._settle(call, error=error_of(str(reply)))
        else:
            self._settle(call, reply)

    def _settle(self, call: _Call, reply: Any = None, error: OperationError | None = None) -> None:
        self._under_way -= 1
        self._under_way_bytes -= len(call.request)
        if self._room:
            self._make_room()
        hold = call.hold
        if hold is not None:
            self._advance(hold, call, reply, error)
        if not call.answer.done():  # else: whoever waited was cancelled or ran out of time
            if error is None:
                call.answer.set_result(reply)
            else:
                call.answer.set_exception(error)

    def _advance(self, hold: RemoteHold, call: _Call, reply: Any, error: OperationError | None) -> None:
        """The call that was under way for a session is settled: what it means, and the next one."""
        queue = hold.queue
        queue.popleft()
        if error is None:
            match call.act:
                case "new":
                    hold.id = Index.parse(reply)
                    hold.ref = reply
                case "write":
                    hold.acknowledged += 1
        elif call.act == "new" or isinstance(error, Fenced | NoSession | Closed | UnknownOutcome):
            hold.ended = hold.ended or "taken"
        elif call.act == "end":
            hold.ended = ""  # refused for now, e.g. for want of permission: the hold goes on
        if queue:
            self._post(queue[0])
        elif hold.ended:
            self._holds.pop(hold.tag, None)

    def _make_room(self) -> None:
        while self._room and self._under_way < UNDER_WAY_MAX and self._under_way_bytes < UNDER_WAY_BYTES_MAX:
            waiter = self._room.popleft()
            if not waiter.done():
                waiter.set_result(None)
                break

    # -- connection ----------------------------------------------------------------------------------------

    async def open(self, patience_s: float) -> None:
        """The first connection; then a task keeps it. OperationError when there is none in time."""
        until_s = time.monotonic() + patience_s
        tries = 0
        while True:
            try:
                link = await self._dial()
                break
            except (OSError, Unavailable) as error:
                tries += 1
                delay_s = REDIAL.delay_s(tries, 0.5 + random.random() / 2)
                if time.monotonic() + delay_s > until_s:
                    raise Unavailable(f"no pipe at {self._targets[0]}: {error}; nothing was sent") from error
                self._targets.rotate(-1)
                await asyncio.sleep(delay_s)
        self._adopt(link, ())
        self._keeper = asyncio.create_task(self._keep(), name="truba client")

    async def _dial(self) -> _Link:
        """A connection that the pipe has admitted, with the list of sessions that it says we hold."""
        target = self._targets[0]
        async with asyncio.timeout(min(5.0, self._timeout_s)):
            link = await target.connect(lambda: _Link(self))
            try:
                user, password = self._credentials[0] or target.user, self._credentials[1] or target.password
                if password is not None:
                    link.transport.write(encode(b"AUTH", (user or "default").encode(), password.encode()))
                    await link.handshake()
                if self._token is not None:
                    link.transport.write(encode(b"OWNER", self._token, b"GRACE", b"%g" % self._grace_s))
                    link.held = await link.handshake()
            except BaseException:
                link.transport.abort()
                raise
        return link

    def _adopt(self, link: _Link, under_way: Sequence[_Call]) -> None:
        """Go on with a new connection: settle what was under way on the old one, send the rest."""
        now_s = time.monotonic()
        within_grace = self._token is not None and in_time(now_s, self._alive_s, self._grace_s)
        held = {tag: (bytes(id_text), applied) for id_text, _, tag, applied in link.held}
        self._alive_s = now_s if not under_way else self._alive_s
        self._link = link
        resend: list[_Call] = []
        for call in under_way:
            verdict, id_text = self._judge(call, held, within_grace)
            match verdict:
                case "send again":
                    resend.append(call)
                case "happened":
                    self._settle(call, id_text)
                case "unknown":
                    broke = "the connection broke before the answer; outcome unknown: look at the session, or ask again"
                    self._settle(call, error=UnknownOutcome(broke))
        for tag, hold in list(self._holds.items()):
            if hold.id is not None and tag not in held and not hold.queue:
                hold.ended = hold.ended or "taken"
                del self._holds[tag]
        self._outbox.extendleft(reversed(resend))
        self._up.set()
        self._flush()

    @staticmethod
    def _judge(call: _Call, held: dict[int, tuple[bytes, int]], within_grace: bool) -> tuple[Verdict, bytes]:
        """What became of a call that was sent and not answered; the id, for a New that happened."""
        hold = call.hold
        if hold is None:
            return ("send again" if call.act == "read" else "unknown"), b""
        id_text, applied = held.get(hold.tag, (b"", None))
        match call.act:
            case "new":
                return judge_new(applied is not None, within_grace), id_text
            case "write" | "end" | "touch":
                return judge(call.act, hold.acknowledged, applied, within_grace), b"OK"
            case _:
                raise AssertionError(call.act)

    async def _keep(self) -> None:
        """For the life of the client: notice a broken connection, dial again, keep an idle one known to be alive."""
        while True:
            link = self._link
            assert link is not None
            await self._watch(link)
            self._link = None
            self._up.clear()
            under_way = list(link.waiting)
            link.waiting.clear()
            if self._token is None:
                self._lose_holds()
            tries = 0
            while True:
                tries += 1
                try:
                    fresh = await self._dial()
                except (NoAuth, NoPerm) as error:
                    self._broken = error
                    self._fail_all(error, UnknownOutcome(f"{error}; outcome unknown"), under_way)
                    return
                except (OSError, OperationError):
                    self._targets.rotate(-1)
                    self._drop_overdue(under_way)
                    await asyncio.sleep(REDIAL.delay_s(tries, 0.5 + random.random() / 2))
                else:
                    break
            self._adopt(fresh, under_way)

    async def _watch(self, link: _Link) -> None:
        """Until the connection is lost: PING when nothing else proves life, give up a peer that says nothing."""
        beat_s = self._grace_s / 4 if self._token is not None and self._grace_s > 0 else self._timeout_s / 2
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(beat_s):
                    await link.lost.wait()
                return
            now_s = time.monotonic()
            if link.waiting and now_s - link.waiting[0].sent_s > self._timeout_s:
                link.transport.abort()
            elif not link.waiting and not self._outbox:
                self._under_way += 1
                ping = _Call(encode(b"PING"), self._loop.create_future(), "read", now_s)
                self._under_way_bytes += len(ping.request)
                self._post(ping)

    def _drop_overdue(self, under_way: Sequence[_Call]) -> None:
        """While there is no connection: callers that have waited for timeout_s are told what is known."""
        oldest_s = time.monotonic() - self._timeout_s
        for call in under_way:
            if call.born_s < oldest_s and not call.answer.done():
                # It stays in the list: the session's count must still be settled when the pipe is back.
                call.answer.set_exception(UnknownOutcome("the pipe cannot be reached; outcome unknown"))
        for call in list(self._outbox):
            if call.born_s < oldest_s and not call.sent_s:
                self._outbox.remove(call)
                self._settle(call, error=Unavailable("the pipe cannot be reached; nothing was stored"))

    def _lose_holds(self) -> None:
        """Without a token nothing outlives the connection."""
        for hold in self._holds.values():
            hold.ended = hold.ended or "taken"

    def _fail_all(self, unsent: OperationError, sent: OperationError, under_way: Sequence[_Call] = ()) -> None:
        calls = [*under_way, *(self._link.waiting if self._link else ()), *self._outbox]
        if self._link is not None:
            self._link.waiting.clear()
        self._outbox.clear()
        while calls:
            for call in calls:
                self._settle(call, error=sent if call.sent_s else unsent)
            calls = list(self._outbox)
            self._outbox.clear()
        for waiter in self._room:
            if not waiter.done():
                waiter.set_exception(unsent)


class _Link(asyncio.Protocol):
    """One connection: bytes and answers, in order."""

    def __init__(self, pipe: RemotePipe) -> None:
        self._pipe = pipe
        self._reader = hiredis.Reader()
        self._greeting: asyncio.Future[Any] | None = None
        self.waiting: deque[_Call] = deque()
        self.held: list[Any] = []
        self.lost = asyncio.Event()
        self.transport: asyncio.Transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport  # type: ignore[assignment]  # a stream's transport, uvloop's is no subclass

    def data_received(self, data: bytes) -> None:
        reader = self._reader
        reader.feed(data)
        waiting, answered = self.waiting, self._pipe._answered  # noqa: SLF001 - one unit, in two classes
        try:
            while (reply := reader.gets()) is not False:
                if waiting:
                    answered(waiting.popleft(), reply)
                elif self._greeting is not None and not self._greeting.done():
                    self._greeting.set_result(reply)
                else:
                    raise hiredis.ProtocolError("an answer to nothing")
        except hiredis.ProtocolError:
            self.transport.abort()  # what is under way is settled after reconnecting

    def connection_lost(self, error: Exception | None) -> None:
        self.lost.set()
        if self._greeting is not None and not self._greeting.done():
            self._greeting.set_exception(ConnectionResetError("the pipe closed the connection"))

    async def handshake(self) -> Any:
        """The answer to a request of the handshake."""
        if self.lost.is_set():
            raise ConnectionResetError("the pipe closed the connection")
        self._greeting = asyncio.get_running_loop().create_future()
        reply = await self._greeting
        if isinstance(reply, hiredis.ReplyError):
            raise error_of(str(reply))
        return reply


class Connecting:
    """What `connect` returns: `async with` it, or `await` it and close the pipe yourself."""

    def __init__(self, patience_s: float, *args: Any) -> None:
        self._args = args
        self._patience_s = patience_s
        self._pipe: RemotePipe | None = None

    async def _connect(self) -> RemotePipe:
        pipe = RemotePipe(*self._args)
        await pipe.open(self._patience_s)
        self._pipe = pipe
        return pipe

    def __await__(self) -> Generator[Any, None, RemotePipe]:
        return self._connect().__await__()

    async def __aenter__(self) -> RemotePipe:
        return await self._connect()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        assert self._pipe is not None
        await self._pipe.close()


def connect(
    url: str | Sequence[str],
    *,
    user: str | None = None,
    password: str | None = None,
    token: bytes | None = None,
    grace_s: float = 30.0,
    timeout_s: float = 30.0,
    connect_timeout_s: float = 5.0,
) -> Connecting:
    """Connect to a pipe: `truba://[user:password@]host:port`, or `unix:///path`; several: the first that answers.

    `token`: the owner's secret of 16 to 64 bytes, random if not given; give your own to take over your sessions after
    a restart of this process. `grace_s`: how long the pipe keeps the sessions of a broken connection for it.
    `timeout_s`: how long an operation waits for a pipe that cannot be reached, before UnknownOutcome (it was sent) or
    Unavailable (it was not). Raises Unavailable, NoAuth when it is awaited or entered; ConfigError for a bad url.
    """
    targets = [parse_target(one) for one in ([url] if isinstance(url, str) else url)]
    own = secrets.token_bytes(32) if token is None else token
    return Connecting(connect_timeout_s, targets, own, grace_s, timeout_s, user, password)
