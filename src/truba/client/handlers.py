"""`truba.serve_handlers`: a service that finishes what others left behind. The pipe dials it.

    the pipe connects, says hello with the route's secret  ->  we answer with AUTH if need be, and KINDS
    it pushes `repeat`  ->  the handler of that kind runs as a task; its session's operations go back on this connection
    it pushes `lost`, or the connection breaks  ->  the task is cancelled, and its session's operations raise Fenced

Returning deletes the session, raising gives it back (FAIL), an explicit end by the handler wins.
"""

from __future__ import annotations

import asyncio
import contextlib
import hmac
from collections import deque
from collections.abc import Callable, Generator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, cast

import hiredis

from truba import unix
from truba.address import parse_listen, refuse_plain, unix_path
from truba.client.answers import NOT_A_PIPE, Answers
from truba.client.hello import read_hello
from truba.client.requests import encode, error_of
from truba.client.resume import Act
from truba.client.session import Hold, WireSession
from truba.entrance import Entrance, HungUp
from truba.errors import Closed, ConfigError, Fenced, NoSession, OperationError, TrubaError, UnknownOutcome
from truba.kinds import AnyHandler, AsyncHandler, Handler
from truba.ports.records import Codec
from truba.rejections import Rejections
from truba.session import RepeatData
from truba.sync import as_coroutine
from truba.tls import Contexts, Tls
from truba.types import Cause, Index

HELLO_S_MAX = 10.0
"""Who has not said hello by then is hung up."""

CONNECTIONS_MAX = 512
"""A pipe, or a node of one, keeps one connection; the rest would be strangers, of whom there are fewer."""

HANG_UP_S = 2.0
"""How long a closing service waits for its last words to leave."""


class HandlerSession(WireSession[Hold]):
    """A session that was handed to this service, through one connection."""

    __slots__ = ("_link",)

    def __init__(self, hold: Hold, link: _PipeLink) -> None:
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


class HandlerServer:
    """A listening handler service. `address` is `host:port` as bound, or the socket's path."""

    def __init__(self, handlers: Mapping[int, AsyncHandler], settings: _Settings) -> None:
        self._handlers = handlers
        self.settings = settings
        self.address = ""
        self.links: set[_PipeLink] = set()
        self.tasks: set[asyncio.Task[None]] = set()
        self.finished = 0
        self.failed = 0
        self.on_trouble: Callable[[str, BaseException | None], None] = _tell_loop
        self._server: asyncio.Server | None = None
        self._socket_file: Path | None = None
        self._closed = asyncio.Event()
        self.rejections = Rejections(self._turned_away)
        self.entrance: Entrance[_PipeLink] = Entrance(
            lambda: _PipeLink(self),
            HungUp,
            self.rejections.add,
            connections_max=CONNECTIONS_MAX,
            tls=settings.contexts,
            guarded=True,
            known_within_s=HELLO_S_MAX,
        )

    def _turned_away(self, what: str, **why: object) -> None:
        self.on_trouble(f"{what}: {', '.join(f'{key} {value}' for key, value in why.items())}", None)

    @property
    def handlers(self) -> Mapping[int, AsyncHandler]:
        return self._handlers

    async def start(self, listen: str) -> None:
        loop = asyncio.get_running_loop()
        self.entrance.opened = True
        if listen.startswith("unix:"):
            path = unix_path(listen)
            sock = await unix.bound(path)
            self._socket_file = path
            self._server = await loop.create_unix_server(self.entrance.take_local, sock=sock)
            self.address = str(path)
        else:
            host, port = parse_listen(listen)
            if not (self.settings.contexts or self.settings.insecure):
                refuse_plain(f"listening on {listen}", host)
            self._server = await loop.create_server(self.entrance.take, host, port)
            bound = self._server.sockets[0].getsockname()
            self.address = f"[{bound[0]}]:{bound[1]}" if ":" in bound[0] else f"{bound[0]}:{bound[1]}"

    async def serve_forever(self) -> None:
        """Until `close` is called."""
        await self._closed.wait()

    async def close(self, patience_s: float = 10.0) -> None:
        """Take nothing more; let running handlers finish for so long, then cancel them and hang up."""
        loop = asyncio.get_running_loop()
        if self._server is not None:
            self._server.close()
        self.entrance.close()
        if self._socket_file is not None:  # else somebody else's may be there by now
            self._socket_file.unlink(missing_ok=True)
            self._socket_file = None
        for link in list(self.links):
            link.stop_taking()
        until_s = loop.time() + patience_s
        while self.tasks and (left_s := until_s - loop.time()) > 0:
            await asyncio.wait(list(self.tasks), timeout=left_s)
        for task in list(self.tasks):
            task.cancel("the handler service is closing")
        await asyncio.gather(*self.tasks, return_exceptions=True)
        for link in list(self.links):
            link.hang_up()
        await asyncio.gather(*(link.ended() for link in list(self.links)))
        self.rejections.close()
        self._closed.set()

    async def __aenter__(self) -> HandlerServer:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.close()


class _Settings:
    """What `serve_handlers` was told."""

    def __init__(
        self,
        secret: str | None,
        user: str | None,
        password: str | None,
        credit: int,
        tls: Tls | None = None,
        insecure: bool = False,
    ) -> None:
        self.contexts = None if tls is None else Contexts(tls, server_side=True)
        self.insecure = insecure
        self.secret = (secret or "").encode()
        self.greeting = b""
        if password is not None:
            self.greeting = encode(b"AUTH", (user or "default").encode(), password.encode())
        self.credit = credit


class _PipeLink(asyncio.Protocol):
    """One connection that a pipe has dialled."""

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


def _tell_loop(message: str, error: BaseException | None) -> None:
    context: dict[str, Any] = {"message": message}
    if error is not None:
        context["exception"] = error
    asyncio.get_running_loop().call_exception_handler(context)


class Serving:
    """What `serve_handlers` returns: `async with` it, or `await` it and close the server yourself."""

    def __init__(self, handlers: Mapping[int, AsyncHandler], listen: str, settings: _Settings) -> None:
        self._handlers = handlers
        self._listen = listen
        self._settings = settings
        self._server: HandlerServer | None = None

    async def _start(self) -> HandlerServer:
        server = HandlerServer(self._handlers, self._settings)
        await server.start(self._listen)
        self._server = server
        return server

    def __await__(self) -> Generator[Any, None, HandlerServer]:
        return self._start().__await__()

    async def __aenter__(self) -> HandlerServer:
        return await self._start()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        assert self._server is not None
        await self._server.close()


def serve_handlers(
    handlers: Mapping[int, AnyHandler],
    listen: str = "127.0.0.1:7434",
    *,
    codecs: Mapping[int, Codec[Any]] | None = None,
    secret: str | None = None,
    user: str | None = None,
    password: str | None = None,
    credit: int = 64,
    tls: Tls | None = None,
    insecure: bool = False,
) -> Serving:
    """Serve handlers by kind on `host:port` or `unix:/path` (a whole path), for pipes to dial.

    `secret`: what a pipe must show (`handler_secret_file` in its configuration). `user`, `password`: what this service
    shows to the pipe. `credit`: sessions at work at once on one connection. `tls`: this service's certificate and key,
    for pipes with a `trubas://` route; with `ca` they must show one too; its files are read again when they change.
    Plain text beyond this machine is refused unless `insecure`. A plain function runs in a thread of its
    own, with a session whose methods are plain too. `codecs`: what records are for the handlers of some kinds, by
    number; the others get bytes. Raises ConfigError, OSError when it is awaited or entered.
    """
    if not handlers:
        raise ConfigError("no handlers: give a function for each number of a kind")
    settings = _Settings(secret, user, password, credit, tls, insecure)
    if strangers := (codecs or {}).keys() - handlers.keys():
        raise ConfigError(f"codecs for kinds without a handler here: {', '.join(map(str, sorted(strangers)))}")
    plain = {number: cast(Handler, handler) for number, handler in handlers.items()}
    if codecs:
        from truba.typed import handles

        plain |= {number: handles(codec)(cast(Any, handlers[number])) for number, codec in codecs.items()}
    return Serving({number: as_coroutine(handler) for number, handler in plain.items()}, listen, settings)
