"""`truba.connect`: a client of a pipe in another process.

Many sessions share one connection. Requests of one turn of the loop leave in one write; answers come in order. A
broken connection is dialled again under the same owner token, and what was under way is settled by what the pipe then
says (`truba.client.calls`, `truba.client.resume`): no record is lost or doubled by it. In a cluster any node will do:
each connection goes on to the one that leads (`truba.client.leader`).
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import secrets
import time
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Generator, Mapping, Sequence
from contextlib import asynccontextmanager
from types import TracebackType
from typing import Any

import hiredis

from truba.client import leader
from truba.client.calls import Calls, Errand, Held, RemoteHold
from truba.client.link import Link
from truba.client.requests import encode, error_of, plain
from truba.client.resume import Act
from truba.client.session import WireSession
from truba.client.target import Target, parse_target
from truba.coded import CodedPipe
from truba.errors import Busy, ConfigError, NotLeader, OperationError, Unavailable
from truba.kinds import Backoff
from truba.session import index_of
from truba.tls import HandshakeFailed, Tls
from truba.types import Index

REDIAL = Backoff(base_s=0.05, factor=2.0, cap_s=2.0)
SOON_S = 0.5
"""The longest pause after a node has answered that knows no leader: there will be one within seconds."""

DIAL_S_MAX = 5.0
"""A peer that has not finished the handshake by then is left for the next one, unless it is telling all that we hold:
then each piece of that gives it as long again. A million sessions take seconds, and whoever left would begin anew."""

SILENCE_S_MAX = 5.0
"""How long a node may say nothing when there are others: if its host is lost, nobody closes the connection. Within
that, others lead. A leader that only waits for its stream is found again, and its sessions with it."""

LAST_WORD_S = 5.0
"""How long a block that ends with an exception waits for its session to be given back; it is given back later then."""


class RemoteSession(WireSession[RemoteHold]):
    """A session that this client opened."""

    __slots__ = ("_calls",)

    def __init__(self, hold: RemoteHold, calls: Calls) -> None:
        super().__init__(hold)
        self._calls = calls

    @property
    def tag(self) -> int:
        """The owner's own number for it; -1: none."""
        return self._hold.tag

    @property
    def operations(self) -> int:
        """Appends and Replaces acknowledged since New."""
        return self._hold.acknowledged

    def _call(self, act: Act, request: bytes) -> Awaitable[Any]:
        calls = self._calls
        if calls.full:
            return self._later(act, request)
        return calls.submit(self._hold, act, request)

    async def _later(self, act: Act, request: bytes) -> None:
        await self._calls.room()
        await self._calls.submit(self._hold, act, request)


class RemotePipe(CodedPipe[RemoteSession]):
    """See `truba.session.Pipe`. Made by `connect`. `held`: what an earlier client with this token left, by tag."""

    def __init__(
        self,
        targets: Sequence[Target],
        token: bytes | None,
        grace_s: float,
        timeout_s: float,
        user: str | None,
        password: str | None,
    ) -> None:
        self.held: Mapping[int, RemoteSession] = {}
        self._targets = deque(targets)
        self._token = token
        self._grace_s = grace_s if token is not None else 0.0
        self._timeout_s = timeout_s
        self._credentials = (user, password)
        self._loop = asyncio.get_running_loop()
        self._calls = Calls(self._grace_s, self._write)
        self._link: Link
        self._lost = asyncio.Event()
        self._next_tag = secrets.randbits(40) << 20  # a restarted client with a fixed token reuses no tag of its past
        self._keeper: asyncio.Task[None] | None = None

    # -- for users -------------------------------------------------------------------------------------------

    async def _new(self, kind: int, records: Sequence[bytes], tag: int | None, trace: bytes) -> RemoteSession:
        calls = self._calls
        if tag is None:
            tag = self._next_tag
            self._next_tag += 1
        if tag in calls.holds:
            raise Busy(f"tag {tag} is in use by session {calls.holds[tag].id}; nothing was sent")
        traced = (b"TRACE", plain(trace)) if trace else ()
        request = encode(b"NEW", b"%d" % kind, *traced, b"TAG", b"%d" % tag, *map(plain, records))
        hold = calls.holds[tag] = RemoteHold(kind, tag, tag)
        try:
            if calls.full:
                await calls.room()
            await calls.submit(hold, "new", request)
        except BaseException:
            calls.give_back(hold, "whoever opened it did not wait for it")
            raise
        return RemoteSession(hold, calls)

    @asynccontextmanager
    async def _block(self, kind: int, records: Sequence[bytes], trace: bytes) -> AsyncIterator[RemoteSession]:
        session = await self._new(kind, records, None, trace)
        try:
            yield session
        except BaseException as error:
            given_back = self._calls.give_back(session.hold, f"{type(error).__name__}: {error}")
            if given_back is not None and not isinstance(error, GeneratorExit):
                await asyncio.wait([given_back], timeout=LAST_WORD_S)
            raise
        if session.hold.ended != "closed":
            try:
                await session.delete()  # Fenced when it was taken away meanwhile
            finally:
                self._calls.give_back(session.hold, "its Delete was refused")

    async def resume(self, session_id: Index | str) -> None:
        """Make a parked or stored session due at once, with fresh limits. NoSession, Busy, NoPerm."""
        await self.request(b"RESUME", str(index_of(session_id)).encode())

    async def remove(self, session_id: Index | str) -> None:
        """Delete a stored or parked session, whoever it belonged to. NoSession, Busy, NoPerm."""
        await self.request(b"REMOVE", str(index_of(session_id)).encode())

    async def pause_kind(self, kind: int | str) -> None:
        """Hand over nothing more of a kind until it is continued, whatever restarts. UnknownKind, NoPerm."""
        await self.request(b"PAUSE", str(kind).encode())

    async def continue_kind(self, kind: int | str) -> None:
        """Go on with handing over a kind. UnknownKind, NoPerm."""
        await self.request(b"CONTINUE", str(kind).encode())

    async def request(self, *args: bytes, read: bool = False) -> Any:
        """Any other request; its answer as hiredis gives it. `read`: it changes nothing and may be sent twice."""
        if self._calls.full:
            await self._calls.room()
        errand: Errand = "read" if read else "other"
        return await self._calls.submit(None, errand, encode(*args))

    async def close(self) -> None:
        """Close the connection. Sessions still held are unfinished once the grace has passed."""
        self._calls.end(Unavailable("this client is closed; nothing was sent"))
        if self._keeper is not None:
            keeper, self._keeper = self._keeper, None
            keeper.cancel()
            try:
                await asyncio.wait([keeper])  # unlike `await keeper`, this tells a cancel of ours from the keeper's own
            finally:
                self._link.transport.close()
            if not keeper.cancelled():
                keeper.result()

    async def __aenter__(self) -> RemotePipe:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.close()

    # -- connection ----------------------------------------------------------------------------------------

    async def open(self, patience_s: float) -> None:
        """The first connection; then a task keeps it. OperationError when there is none in time."""
        until_s = time.monotonic() + patience_s
        rounds = _Rounds(len(self._targets))
        while True:
            try:
                link, held, asked_s = await self._dial()
                break
            except (OSError, OperationError) as error:
                if isinstance(error, OperationError) and error.again == "never":
                    raise
                delay_s = rounds.pause_s(error)
                if time.monotonic() + delay_s > until_s:
                    what = "no TLS connection to" if isinstance(error, HandshakeFailed) else "no pipe at"
                    raise Unavailable(f"{what} {self._targets[0]}: {_words(error)}; nothing was sent") from error
                self._targets.rotate(-1)
                await asyncio.sleep(delay_s)
        self.held = {hold.key: RemoteSession(hold, self._calls) for hold in self._calls.take_over(held, asked_s)}
        self._go_live(link, held, asked_s)
        self._keeper = asyncio.create_task(self._keep(), name="truba client")

    async def _dial(self) -> tuple[Link, list[Held], float]:
        """A connection that the pipe has admitted, what it says that we hold, and when we asked for that."""
        target = self._targets[0]
        held: list[Held] = []
        asked_s = 0.0
        silence_s = min(DIAL_S_MAX, self._timeout_s)

        def heard() -> None:
            if not patience.expired():
                patience.reschedule(self._loop.time() + silence_s)

        async with asyncio.timeout(silence_s) as patience:
            link = await leader.connect(target)
            try:
                user, password = self._credentials[0] or target.user, self._credentials[1] or target.password
                if password is not None:
                    await link.handshake(b"AUTH", (user or "default").encode(), password.encode())
                asked_s = time.monotonic()
                if self._token is not None:
                    grace = b"%.3f" % self._grace_s
                    answer = await link.handshake_long(b"OWNER", self._token, b"GRACE", grace, heard=heard)
                    held = _held(answer)
            except BaseException:
                link.transport.abort()
                raise
        return link, held, asked_s

    def _go_live(self, link: Link, held: list[Held], asked_s: float) -> None:
        self._link = link
        self._lost.clear()
        link.go_live(self._calls.answered, self._gone)
        self._calls.adopt(held, asked_s)
        if link.lost:
            self._gone()

    def _gone(self) -> None:
        self._calls.down()
        self._lost.set()

    def _write(self, requests: bytes) -> None:
        self._link.transport.write(requests)

    async def _keep(self) -> None:
        """For the life of the client: notice a broken connection, dial again, keep an idle one known to be alive."""
        try:
            while True:
                await self._watch()
                expiry = self._expire_now_and_then()
                try:
                    dialled = await self._redial()
                finally:
                    expiry.cancel()
                if dialled is None:
                    return
                self._go_live(*dialled)
        except (
            Exception
        ) as error:  # a fault of ours: `close` raises it, and until then nobody may wait for a connection
            self._calls.end(Unavailable(f"this client has failed: {error!r}; nothing was sent"))
            raise

    async def _redial(self) -> tuple[Link, list[Held], float] | None:
        """A new connection, however long it takes. None: there will be none."""
        rounds = _Rounds(len(self._targets))
        while True:
            try:
                return await self._dial()
            except (OSError, OperationError) as error:
                if isinstance(error, OperationError) and error.again == "never":
                    self._calls.end(error)
                    return None
                self._targets.rotate(-1)
                await asyncio.sleep(rounds.pause_s(error))

    async def _watch(self) -> None:
        """Until the connection is lost: PING when nothing else proves life, give up a peer that says nothing.

        The sessions outlive a break for the grace only, so silence must be noticed well before that is over.
        """
        silence_s = min(self._timeout_s, self._grace_s / 2) if self._grace_s > 0 else self._timeout_s
        if len(self._targets) > 1 and self._grace_s > 0:
            silence_s = min(silence_s, SILENCE_S_MAX)
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(silence_s / 2):
                    await self._lost.wait()
                return
            sent = self._calls.sent
            if not sent:
                self._calls.ping()
            elif time.monotonic() - sent[0].sent_s > silence_s:
                self._targets.rotate(-1)  # the silent one may be the first of them, and would cost a dial
                self._link.transport.abort()

    def _expire_now_and_then(self) -> asyncio.Task[None]:
        """As long as there is no connection."""

        async def expire() -> None:
            while True:
                self._calls.expire(self._timeout_s)
                await asyncio.sleep(min(1.0, self._timeout_s / 4))

        return asyncio.create_task(expire(), name="truba client: timeouts")


class _Rounds:
    """Pauses between tries. All addresses are tried in a row, then comes a pause: whichever of them is dead, the one
    that leads is tried again as soon as if it were the only one."""

    def __init__(self, addresses: int) -> None:
        self._addresses = addresses
        self._tries = 0
        self._electing = False  # a node of this round has answered, and knows no leader

    def pause_s(self, error: Exception) -> float:
        """Before the next address is tried, after this error."""
        self._tries += 1
        self._electing = self._electing or isinstance(error, NotLeader | Unavailable)
        rounds, begun = divmod(self._tries, self._addresses)
        if begun:
            return 0.0
        electing, self._electing = self._electing, False
        delay_s = REDIAL.delay_s(rounds, 0.5 + random.random() / 2)
        return min(delay_s, SOON_S) if electing else delay_s


def _held(answer: Any) -> list[Held]:
    """The answer to OWNER. OperationError: refused after all; ConnectionError: what answers is no pipe, or not yet."""
    try:
        for entry in answer:
            if isinstance(entry, hiredis.ReplyError):  # it had begun to tell what we hold
                raise error_of(str(entry))
        return [Held(entry) for entry in answer if entry is not None]  # None: it has ended while it was told
    except (TypeError, ValueError) as error:
        raise ConnectionError(f"what answers is no pipe: it says {str(answer)[:64]!r} to OWNER") from error


def _words(error: BaseException) -> str:
    return str(error) or ("no answer in time" if isinstance(error, TimeoutError) else type(error).__name__)


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
    tls: Tls | None = None,
    insecure: bool = False,
    token: bytes | None = None,
    grace_s: float = 30.0,
    timeout_s: float = 30.0,
    connect_timeout_s: float = 5.0,
) -> Connecting:
    """Connect to a pipe: `truba://[user:password@]host:port`, `trubas://` for TLS, or `unix:///path`; several: nodes of
    one cluster, of which the one that leads is found, through whichever answers.

    `tls`: whom to believe and what to show (without it, authorities of the system, and nothing); its files are read
    again when they change. Plain text beyond this machine is refused unless `insecure`.
    `token`: the owner's secret of 16 to 64 bytes, random if not given; give your own, always with the same grace, to
    find your sessions in `held` after a restart of this process. `grace_s`: how long the pipe keeps the sessions of a
    broken connection for it. `timeout_s`: how long an operation waits for a pipe that cannot be reached, before
    UnknownOutcome (it was sent) or Unavailable (it was not). Raises Unavailable, NoAuth, BadRequest when it is awaited
    or entered; ConfigError for a bad url.
    """
    targets = [parse_target(one, tls, insecure=insecure) for one in ([url] if isinstance(url, str) else url)]
    if not targets:
        raise ConfigError("no address of a pipe: write truba://host:port, trubas://host:port or unix:///path")
    if not timeout_s > 0:
        raise ConfigError(f"timeout_s must be above zero, not {timeout_s!r}")
    own = secrets.token_bytes(32) if token is None else token
    return Connecting(connect_timeout_s, targets, own, grace_s, timeout_s, user, password)
