"""The synchronous twin: the same names, without async.

    with truba.sync.connect("truba://127.0.0.1:7433") as pipe:
        with pipe.session(7) as session:
            session.append(b"...")

Each pipe has one thread with one event loop; its methods may be called from any number of threads. Errors are the same.
A pipe that is not closed does not keep the process from ending.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import inspect
import os
import threading
from collections.abc import Callable, Coroutine, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Generic, Self, TypeVar, cast, overload

from truba import session as contracts
from truba.errors import BadRequest, Unavailable, UnknownOutcome
from truba.kinds import AsyncHandler, Handler, Kind
from truba.ports.records import Codec, Shown
from truba.types import Cause, Index

if TYPE_CHECKING:
    from truba.client.remote import RemoteSession as AsyncRemoteSession
    from truba.ports.backup import Made
    from truba.typed import TypedSession as AsyncTypedSession

T = TypeVar("T")
R = TypeVar("R")


@dataclass(frozen=True, slots=True)
class Home:
    """Where a session lives: another thread's event loop, in this process."""

    loop: asyncio.AbstractEventLoop
    process: int = field(default_factory=os.getpid)


class _Session:
    """All of a session but its records."""

    __slots__ = ("_home", "_session")

    def __init__(self, session: contracts.Session, home: Home) -> None:
        self._session = session
        self._home = home

    def __repr__(self) -> str:
        return repr(self._session)

    @property
    def session(self) -> contracts.Session:
        """The async one behind it."""
        return self._session

    @property
    def home(self) -> Home:
        return self._home

    @property
    def id(self) -> Index:
        return self._session.id

    @property
    def kind(self) -> int:
        return self._session.kind

    @property
    def epoch(self) -> int:
        return self._session.epoch

    @property
    def ended(self) -> bool:
        """The hold is over: nothing more can be done with this object."""
        return self._session.ended

    def delete(self) -> None:
        _wait(self._session.delete(), self._home)

    def store(self, seconds: float) -> None:
        _wait(self._session.store(seconds), self._home)

    def fail(self, reason: str = "") -> None:
        _wait(self._session.fail(reason), self._home)

    def touch(self) -> None:
        _wait(self._session.touch(), self._home)


class Session(_Session):
    """See `truba.session.Session`; each method returns when its effect is on stable storage."""

    __slots__ = ()

    def append(self, *records: bytes) -> None:
        _wait(self._session.append(*records), self._home)

    def replace(self, record: bytes) -> None:
        _wait(self._session.replace(record), self._home)


class RemoteSession(Session):
    """A session that a client opened over the network."""

    __slots__ = ("_remote",)

    def __init__(self, session: AsyncRemoteSession, home: Home) -> None:
        super().__init__(session, home)
        self._remote = session

    @property
    def tag(self) -> int:
        """The owner's own number for it; -1: none."""
        return self._remote.tag

    @property
    def operations(self) -> int:
        """Appends and Replaces acknowledged since New."""
        return self._remote.operations


class TypedSession(_Session, Generic[R]):
    """See `truba.TypedSession`: records are objects."""

    __slots__ = ("_typed", "plain")

    def __init__(self, session: Session, codec: Codec[R]) -> None:
        from truba.typed import TypedSession as AsyncTyped

        super().__init__(session.session, session.home)
        self.plain = session
        self._typed: AsyncTypedSession[R] = AsyncTyped(session.session, codec)

    def append(self, *records: R) -> None:
        """Add records, all or none. BadRecord: one of them could not be read again."""
        _wait(self._typed.append(*records), self._home)

    def replace(self, record: R) -> None:
        """Drop the records so far and add this one. BadRecord: it could not be read again."""
        _wait(self._typed.replace(record), self._home)


@dataclass(frozen=True, slots=True)
class RepeatData:
    """See `truba.RepeatData`: what a plain handler function gets."""

    records: Sequence[bytes]
    session: Session
    kind: int
    attempt: int
    cause: Cause
    trace: bytes = b""


@dataclass(frozen=True, slots=True)
class TypedRepeat(Generic[R]):
    """See `truba.TypedRepeat`: what a plain handler function gets, with a codec between."""

    records: Sequence[R] = field(repr=False)
    session: TypedSession[R]
    kind: int
    attempt: int
    cause: Cause
    shown: Shown
    trace: bytes = b""


def plain_repeat(repeat: contracts.RepeatData, home: Home) -> RepeatData:
    """The plain twin of a repeat whose session lives at `home`."""
    return RepeatData(
        repeat.records, Session(repeat.session, home), repeat.kind, repeat.attempt, repeat.cause, repeat.trace
    )


def as_coroutine(handler: Handler) -> AsyncHandler:
    """A coroutine function as it is; a plain one in a thread, with the session's plain twin."""
    call = handler if inspect.isroutine(handler) else type(handler).__call__
    if inspect.iscoroutinefunction(call):
        return cast(AsyncHandler, handler)
    plain_handler = cast(Callable[[RepeatData], Any], handler)

    async def in_thread(repeat: contracts.RepeatData) -> None:
        loop = asyncio.get_running_loop()
        ended: asyncio.Future[None] = loop.create_future()
        # A thread for each, not a pool: how many work at once is bounded by the kind's concurrency or the credit, and
        # a pool with fewer threads would let sessions wait while their handler_timeout runs.
        run = partial(_run_plain, plain_handler, plain_repeat(repeat, Home(loop)), ended, loop)
        threading.Thread(target=run, name=f"truba handler {repeat.session.id}", daemon=True).start()
        await ended

    return in_thread


def _run_plain(
    handler: Callable[[Any], Any], repeat: RepeatData, ended: asyncio.Future[None], loop: asyncio.AbstractEventLoop
) -> None:
    """The life of a handler's thread."""
    error: BaseException | None = None
    try:
        handler(repeat)
    except BaseException as raised:
        error = raised
    with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits any more
        loop.call_soon_threadsafe(_tell, ended, error)


def _tell(ended: asyncio.Future[None], error: BaseException | None) -> None:
    if ended.done():
        return  # the session was taken away meanwhile, and the task cancelled
    if error is None:
        ended.set_result(None)
    elif isinstance(error, Exception) and not isinstance(error, StopIteration):
        ended.set_exception(error)
    else:
        ended.set_exception(RuntimeError(f"{type(error).__name__}: {error}"))  # a future carries no such thing


S = TypeVar("S", bound=Session)


class Pipe(Generic[S]):
    """A pipe with a thread of its own; a context manager. `S`: its sessions of bytes."""

    _plain: Callable[[Any, Home], S]

    def __init__(self, make: Callable[[], Any]) -> None:
        self._loop = asyncio.new_event_loop()
        self._home = Home(self._loop)
        self._closing = threading.Lock()
        self._thread = threading.Thread(target=self._run, name="truba-sync", daemon=True)
        self._thread.start()
        try:
            self._pipe: Any = _wait(_entered(make), self._home)
        except BaseException:
            self._end_loop()
            raise

    @overload
    def new(self, kind: int, *records: bytes, tag: int | None = None, trace: bytes = b"") -> S: ...

    @overload
    def new(
        self, kind: int, *records: R, tag: int | None = None, trace: bytes = b"", codec: Codec[R]
    ) -> TypedSession[R]: ...

    def new(
        self, kind: int, *records: Any, tag: int | None = None, trace: bytes = b"", codec: Codec[Any] | None = None
    ) -> Any:
        """Open a session, with first records if given. `codec`: what its records are; None: bytes."""
        return self._twin(_wait(self._pipe.new(kind, *records, tag=tag, trace=trace, codec=codec), self._home))

    @overload
    def session(self, kind: int, *records: bytes, trace: bytes = b"") -> AbstractContextManager[S]: ...

    @overload
    def session(
        self, kind: int, *records: R, trace: bytes = b"", codec: Codec[R]
    ) -> AbstractContextManager[TypedSession[R]]: ...

    def session(self, kind: int, *records: Any, trace: bytes = b"", codec: Codec[Any] | None = None) -> Any:
        """`with`: delete on success; on an exception give back by the kind's policy and raise it again. `codec`: what
        its records are; None: bytes."""
        return self._block(self._pipe.session(kind, *records, trace=trace, codec=codec))

    def resume(self, session_id: Index | str) -> None:
        """Make a parked or stored session due at once, with fresh limits. NoSession, Busy."""
        _wait(self._pipe.resume(session_id), self._home)

    def remove(self, session_id: Index | str) -> None:
        """Delete a stored or parked session, whoever it belonged to. NoSession, Busy."""
        _wait(self._pipe.remove(session_id), self._home)

    def pause_kind(self, kind: int) -> None:
        """Hand over nothing more of a kind until it is continued, whatever restarts. UnknownKind."""
        _wait(self._pipe.pause_kind(kind), self._home)

    def continue_kind(self, kind: int) -> None:
        """Go on with handing over a kind. UnknownKind."""
        _wait(self._pipe.continue_kind(kind), self._home)

    def _twin(self, session: Any) -> S | TypedSession[Any]:
        from truba.typed import TypedSession as AsyncTyped

        if isinstance(session, AsyncTyped):
            return TypedSession(self._plain(session.plain, self._home), session.codec)
        return self._plain(session, self._home)

    @contextmanager
    def _block(self, block: Any) -> Iterator[S | TypedSession[Any]]:
        session = self._twin(_wait(block.__aenter__(), self._home))
        try:
            yield session
        except BaseException as error:
            _wait(_leave(block, error), self._home)
            raise
        _wait(_leave(block, None), self._home)

    def close(self) -> None:
        """Calls of other threads that are under way end with an error."""
        if self._home.process != os.getpid():
            return  # the parent's; and its lock may be held here for ever
        with self._closing:
            if self._thread.is_alive():
                try:
                    _wait(self._pipe.close(), self._home)
                finally:
                    self._end_loop()

    def _end_loop(self) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()

    def _run(self) -> None:
        """The life of the pipe's thread."""
        loop = self._loop
        asyncio.set_event_loop(loop)
        try:
            loop.run_forever()
            tasks = asyncio.all_tasks(loop)
            for task in tasks:
                task.cancel()
            loop.run_until_complete(asyncio.gather(*tasks, return_exceptions=True))
            loop.run_until_complete(loop.shutdown_asyncgens())
        finally:
            loop.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()


class EmbeddedPipe(Pipe[Session]):
    """Made by `open`."""

    _plain = Session

    def backup(self, directory: str | Path) -> Made:
        """Make a backup in a directory that is new or empty, while other threads go on; durable and read back when this
        returns. See `truba.embedded.EmbeddedPipe.backup`."""
        return cast("Made", _wait(self._pipe.backup(directory), self._home))


class RemotePipe(Pipe[RemoteSession]):
    """Made by `connect`. `held`: what an earlier client with this token left, by tag."""

    _plain = RemoteSession

    def __init__(self, make: Callable[[], Any]) -> None:
        super().__init__(make)
        self.held: Mapping[int, RemoteSession] = {
            tag: RemoteSession(session, self._home) for tag, session in self._pipe.held.items()
        }

    def request(self, *args: bytes, read: bool = False) -> Any:
        """Any other request; its answer as hiredis gives it. `read`: it changes nothing and may be sent twice."""
        return _wait(self._pipe.request(*args, read=read), self._home)


def open(data: str | Path, *, kinds: Sequence[Kind], **options: Any) -> EmbeddedPipe:  # noqa: A001 - truba.sync.open
    """The twin of `truba.open`. Handlers run in the pipe's own thread: coroutine functions, or plain ones in a pool."""
    from truba.embedded import open as open_embedded

    return EmbeddedPipe(lambda: open_embedded(data, kinds=kinds, **options))


def connect(url: str | Sequence[str], **options: Any) -> RemotePipe:
    """The twin of `truba.connect`, with the same options."""
    from truba.client.remote import connect as connect_remote

    return RemotePipe(lambda: connect_remote(url, **options))


async def _entered(make: Callable[[], Any]) -> Any:
    return await make()


async def _leave(block: Any, error: BaseException | None) -> None:
    """The end of an `async with`; the caller raises its own error again, here only a new one may come out."""
    try:
        await block.__aexit__(None if error is None else type(error), error, None)
    except BaseException as raised:
        if raised is not error:  # an interrupt must not be raised in the loop's thread
            raise


LOOK_S = 0.5
"""How often a waiting thread looks whether the loop that it waits for still runs."""


def _wait(coroutine: Coroutine[Any, Any, T], home: Home) -> T:
    """Run at home, wait here. An interrupt leaves at once; what was sent may still happen."""
    try:
        _check(home)
        future = asyncio.run_coroutine_threadsafe(coroutine, home.loop)
    except BaseException:
        coroutine.close()
        raise
    try:
        while True:
            try:
                return future.result(LOOK_S)
            except TimeoutError:
                if future.done():
                    return future.result()  # it has ended just now; or the error was the coroutine's own
                if home.loop.is_closed():
                    coroutine.close()
                    raise UnknownOutcome("the pipe was closed meanwhile; outcome unknown") from None
            except concurrent.futures.CancelledError:
                raise UnknownOutcome("the pipe was closed meanwhile; outcome unknown") from None
    finally:
        future.cancel()  # interrupted: nobody waits any more, and a session that is being opened is given back


def _check(home: Home) -> None:
    """Would anybody wake us?"""
    if home.process != os.getpid():
        raise Unavailable("this pipe was opened before the fork, in another process: open one here; nothing was sent")
    if home.loop.is_closed():
        raise Unavailable("this pipe is closed; nothing was sent")
    with contextlib.suppress(RuntimeError):
        if asyncio.get_running_loop() is home.loop:
            raise BadRequest("a plain call on the pipe's own loop would wait for itself: use the async one")
