"""The connection to NATS: kept up for ever, and requests to JetStream's own interface. Knows nothing of messages.

nats-py reconnects by itself, but gives up for good on some errors that a server sends (an expired or revoked user, for
example); then a new client is made here. And it stays with a server that answers nobody, being cut off from the others;
`move_on` leaves it.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable
from typing import Any

import msgspec
from nats.aio.client import Client
from nats.errors import Error as NatsError

from truba.errors import ConfigError
from truba.ports.stream import StreamDown, StreamGone
from truba.streams.login import PlainText, is_plain, login
from truba.streams.settings import JetStreamSettings

log = logging.getLogger(__name__)

RECONNECT_S = 0.2
PING_S = 2  # three that stay without an answer: the connection is given up
MOVE_ON_S = 3.0  # longer than an election among healthy servers mostly takes

STREAM_NOT_FOUND = 10059


class ApiError(Exception):
    """JetStream refused a request. `number` is its err_code."""

    def __init__(self, number: int, text: str) -> None:
        super().__init__(f"{text} ({number})")
        self.number = number


class Refused(NatsError):
    """No server that answers lets us in."""


class Link:
    """One connection, replaced when it is beyond repair. `generation` counts how often it was made or made anew."""

    def __init__(self, settings: JetStreamSettings) -> None:
        self.settings = settings
        self.generation = 0
        self.last_error: Exception | None = None
        self._client: Client | None = None
        self._denied = ""
        self._closing = False
        self._renewal: asyncio.Task[None] | None = None
        self._moved_s = 0.0
        self.on_client: Callable[[Client], Awaitable[None]] = _nothing
        """Called with each new client before it is used: what must be subscribed."""
        self.on_down: Callable[[str], None] = lambda reason: None
        """Called when the connection breaks: whatever had no answer will get none."""
        self.on_up: Callable[[], None] = lambda: None
        """Called when a broken connection works again."""

    async def open(self) -> None:
        """StreamDown: no server could be reached in time. ConfigError: they do not let us in."""
        self._client = await self._dial()
        self.generation += 1

    @property
    def client(self) -> Client:
        """StreamDown: there is none just now."""
        client = self._client
        if client is None or _is_dead(client):
            self._replace(client)
            raise StreamDown("not connected to NATS", cut_off=True)
        return client

    @property
    def up(self) -> bool:
        return self._client is not None and self._client.is_connected

    @property
    def server(self) -> tuple[str, ...]:
        """`host:port` of the server at the other end, or nothing."""
        url = self._client.connected_url if self.up and self._client is not None else None
        return () if url is None else (url.netloc.rpartition("@")[2],)

    async def ask(self, what: str, content: dict[str, Any] | None = None) -> dict[str, Any]:
        """One request to JetStream. StreamGone: there is no such stream. ApiError: refused otherwise. StreamDown."""
        return await self.request(f"$JS.API.{what}", content)

    async def request(self, subject: str, content: dict[str, Any] | None = None) -> dict[str, Any]:
        """One request on any subject; as `ask`."""
        data = b"" if content is None else msgspec.json.encode(content)
        try:
            # Its own timeout is asyncio.wait_for, which up to Python 3.11 forgets that it was cancelled when the answer
            # comes in that moment. A leader that ended all its questions waited for ever for the one that went on.
            async with asyncio.timeout(self.settings.request_timeout_s):
                answer = await self.client.request(subject, data, timeout=None)  # type: ignore[arg-type]
        except (NatsError, OSError) as error:  # no answer, nobody there to answer, no connection
            raise StreamDown(f"{subject}: {_words(error)}", cut_off=not self.up) from error
        reply: dict[str, Any] = msgspec.json.decode(answer.data)
        match reply.get("error"):
            case None:
                return reply
            case {"err_code": number, **rest} if number == STREAM_NOT_FOUND:
                raise StreamGone(f"stream {self.settings.stream}: {rest.get('description')}")
            case {"err_code": number, **rest}:
                raise ApiError(number, str(rest.get("description")))
            case other:
                raise StreamDown(f"{subject}: {other}")

    async def move_on(self) -> None:
        """Try another server: this one has not answered for long. Not more often than makes sense."""
        now_s = asyncio.get_running_loop().time()
        if self.up and len(self.settings.servers) > 1 and now_s - self._moved_s > MOVE_ON_S:
            self._moved_s = now_s
            await self.client.force_reconnect()

    async def close(self) -> None:
        self._closing = True
        if self._renewal is not None:
            self._renewal.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._renewal
        if self._client is not None:
            await self._client.close()

    async def _dial(self) -> Client:
        settings, client = self.settings, Client()
        self._denied = ""
        refusals = 0

        async def failed(error: Exception) -> None:
            nonlocal refusals
            self._remember(error)
            if not _is_refusal(error) or self._client is client:
                return
            refusals += 1
            # As many as there are servers: each has refused us, or is down, and more of the same will not let us in.
            # nats-py would try for ever; what is raised here ends that.
            if refusals >= len(client.servers):
                raise Refused from error

        async def broken() -> None:
            self.on_down("the connection to NATS broke")

        async def again() -> None:
            if "tls" in who and is_plain(client):
                await client.close()  # and `given_up` dials again, until a server is one that was asked for
                return
            self.generation += 1
            self.on_up()

        async def given_up() -> None:
            self._replace(client)

        who = login(client, settings, settings.user, settings.password, settings.credentials_file)
        try:
            async with asyncio.timeout(settings.connect_timeout_s):
                await client.connect(
                    list(settings.servers),
                    name=f"truba {settings.stream}",
                    inbox_prefix=settings.inbox,
                    pending_size=-1,  # while disconnected nothing is kept to be sent later: it would be out of date
                    max_reconnect_attempts=-1,
                    reconnect_time_wait=RECONNECT_S,  # type: ignore[arg-type]  # it sleeps so long, fractions too
                    connect_timeout=2,
                    ping_interval=PING_S,
                    skip_subject_validation=True,  # all subjects are made here
                    error_cb=failed,
                    disconnected_cb=broken,
                    reconnected_cb=again,
                    closed_cb=given_up,
                    **who,
                )
                if "tls" in who and is_plain(client):
                    raise PlainText
                await self.on_client(client)
        except (NatsError, OSError) as error:
            await client.close()
            raise self._refused(error) from error
        except BaseException:
            await client.close()
            raise
        return client

    def _refused(self, error: Exception) -> Exception:
        last = self.last_error if isinstance(error, TimeoutError) and self.last_error is not None else error
        where = ", ".join(self.settings.servers)
        if self._denied:  # whatever came after it: each try may end otherwise, with a reset for example
            return ConfigError(
                f"NATS at {where} does not let us in: {self._denied}; check user, password or credentials"
            )
        if isinstance(last, PlainText):
            return ConfigError(f"NATS at {where}: {last}; have the servers ask for it, or ask for none here")
        return StreamDown(f"NATS at {where}: {_words(last)}")

    def _replace(self, client: Client | None) -> None:
        """Make a new one, if that is ours and of no use any more.

        It tells so itself, unless its connection breaks while it closes: nats-py then leaves before it has told
        anybody, and whoever wants to use it next, for whatever, finds out.
        """
        if client is None or client is not self._client or not _is_dead(client) or self._closing:
            return
        if self._renewal is None or self._renewal.done():
            self.on_down("NATS closed the connection")
            self._renewal = asyncio.get_running_loop().create_task(self._renew(client))

    async def _renew(self, before: Client) -> None:
        """Make a new client, however long that takes; why there is none yet is told when it is another reason."""
        self._client = None
        try:
            async with asyncio.timeout(self.settings.request_timeout_s):
                await before.close()
        except Exception as error:  # what is left of it, if anything, is of no use to anybody
            log.debug("a NATS client that is replaced did not close: %s", _words(error))
        told = ""
        while self._client is None:
            try:
                self._client = await self._dial()
            except Exception as error:  # also what nats-py makes of somebody who is no NATS server: nobody else tries
                if _words(error) != told:
                    log.warning("NATS: %s", _words(error))
                told = _words(error)
                await asyncio.sleep(RECONNECT_S)
        self.generation += 1
        self.on_up()

    def _remember(self, error: Exception) -> None:
        # Whoever waits sees the effect; this is only for the words that tell why.
        self.last_error = error
        if _is_refusal(error):
            self._denied = _words(error)
        log.debug("NATS: %s", _words(error))


def _is_dead(client: Client) -> bool:
    """Closed for good; or it reconnects no more, since that has met an error that is none of its own."""
    task = getattr(client, "_reconnection_task", None)  # told nowhere else
    failed = task is not None and task.done() and not task.cancelled() and task.exception() is not None
    return client.is_closed or failed


async def _nothing(client: Client) -> None:
    pass


def _is_refusal(error: Exception) -> bool:
    return "authorization" in str(error).lower()  # nats-py has a class for it, and raises the server's bare text


def _words(error: BaseException) -> str:
    return str(error) or type(error).__name__
