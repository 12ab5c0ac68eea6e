"""`truba.serve_handlers`: a service that finishes what others left behind. It listens, and pipes dial it.

What happens on each connection is in `pipe_link`. A handler that returns deletes its session, one that raises gives it
back (FAIL); an explicit end by the handler wins.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Generator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, cast

from truba import unix
from truba.address import parse_listen, refuse_plain, unix_path
from truba.client.pipe_link import PipeLink
from truba.client.requests import encode
from truba.entrance import Entrance, HungUp
from truba.errors import ConfigError
from truba.kinds import AnyHandler, AsyncHandler, Handler
from truba.ports.records import Codec
from truba.rejections import Rejections
from truba.sync import as_coroutine
from truba.tls import Contexts, Tls

HELLO_S_MAX = 10.0
"""Who has not said hello by then is hung up."""

CONNECTIONS_MAX = 512
"""A pipe, or a node of one, keeps one connection; the rest would be strangers, of whom there are fewer."""


class HandlerServer:
    """A listening handler service. `address` is `host:port` as bound, or the socket's path."""

    def __init__(self, handlers: Mapping[int, AsyncHandler], settings: _Settings) -> None:
        self._handlers = handlers
        self.settings = settings
        self.address = ""
        self.links: set[PipeLink] = set()
        self.tasks: set[asyncio.Task[None]] = set()
        self.finished = 0
        self.failed = 0
        self.on_trouble: Callable[[str, BaseException | None], None] = _tell_loop
        self._server: asyncio.Server | None = None
        self._socket_file: Path | None = None
        self._closed = asyncio.Event()
        self.rejections = Rejections(self._turned_away)
        self.entrance: Entrance[PipeLink] = Entrance(
            lambda: PipeLink(self),
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
