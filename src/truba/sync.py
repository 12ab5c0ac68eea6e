"""The synchronous twin: the same names, without async.

    with truba.sync.connect("truba://127.0.0.1:7433") as pipe:
        with pipe.session(7) as session:
            session.append(b"...")

Each pipe has one thread with one event loop; its methods may be called from any number of threads. Errors are the same.
"""

from __future__ import annotations

import asyncio
import inspect
import threading
from collections.abc import Callable, Coroutine, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, TypeVar, cast

from truba import session as contracts
from truba.kinds import AsyncHandler, Handler, Kind
from truba.types import Cause, Index

T = TypeVar("T")


class Session:
    """See `truba.session.Session`; each method returns when its effect is on stable storage."""

    __slots__ = ("_loop", "_session")

    def __init__(self, session: contracts.Session, loop: asyncio.AbstractEventLoop) -> None:
        self._session = session
        self._loop = loop

    def __repr__(self) -> str:
        return repr(self._session)

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

    def append(self, *records: bytes) -> None:
        _wait(self._session.append(*records), self._loop)

    def replace(self, record: bytes) -> None:
        _wait(self._session.replace(record), self._loop)

    def delete(self) -> None:
        _wait(self._session.delete(), self._loop)

    def store(self, seconds: float) -> None:
        _wait(self._session.store(seconds), self._loop)

    def fail(self, reason: str = "") -> None:
        _wait(self._session.fail(reason), self._loop)

    def touch(self) -> None:
        _wait(self._session.touch(), self._loop)


@dataclass(frozen=True, slots=True)
class RepeatData:
    """See `truba.RepeatData`: what a plain handler function gets."""

    records: Sequence[bytes]
    session: Session
    kind: int
    attempt: int
    cause: Cause


def plain_repeat(repeat: contracts.RepeatData, loop: asyncio.AbstractEventLoop) -> RepeatData:
    """The plain twin of a repeat whose session lives on `loop`."""
    return RepeatData(repeat.records, Session(repeat.session, loop), repeat.kind, repeat.attempt, repeat.cause)


def as_coroutine(handler: Handler) -> AsyncHandler:
    """A coroutine function as it is; a plain one in a thread, with the session's plain twin."""
    call = handler if inspect.isroutine(handler) else type(handler).__call__
    if inspect.iscoroutinefunction(call):
        return cast(AsyncHandler, handler)
    plain_handler = cast(Callable[[RepeatData], Any], handler)

    async def in_thread(repeat: contracts.RepeatData) -> None:
        await asyncio.to_thread(plain_handler, plain_repeat(repeat, asyncio.get_running_loop()))

    return in_thread


class Pipe:
    """A pipe, embedded or remote, with a thread of its own. Made by `open` and `connect`; a context manager."""

    def __init__(self, make: Callable[[], Any]) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="truba-sync", daemon=True)
        self._thread.start()
        try:
            self._pipe: Any = _wait(_entered(make), self._loop)
        except BaseException:
            self._end_loop()
            raise

    def new(self, kind: int, *records: bytes, tag: int | None = None) -> Session:
        """Open a session, with first records if given."""
        return Session(_wait(self._pipe.new(kind, *records, tag=tag), self._loop), self._loop)

    @contextmanager
    def session(self, kind: int, *records: bytes) -> Iterator[Session]:
        """Delete on success; on an exception give back by the kind's policy and raise it again."""
        session = self.new(kind, *records)
        try:
            yield session
        except BaseException as error:
            if not session.ended:
                session.fail(f"{type(error).__name__}: {error}")
            raise
        if not session.ended:
            session.delete()

    def close(self) -> None:
        if self._thread.is_alive():
            try:
                _wait(self._pipe.close(), self._loop)
            finally:
                self._end_loop()

    def _end_loop(self) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def __enter__(self) -> Pipe:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()


def open(data: str | Path, *, kinds: Sequence[Kind], **options: Any) -> Pipe:  # noqa: A001 - truba.sync.open
    """The twin of `truba.open`. Handlers run in the pipe's own thread: coroutine functions, or plain ones in a pool."""
    from truba.embedded import open as open_embedded

    return Pipe(lambda: open_embedded(data, kinds=kinds, **options))


def connect(url: str | Sequence[str], **options: Any) -> Pipe:
    """The twin of `truba.connect`, with the same options."""
    from truba.client.remote import connect as connect_remote

    return Pipe(lambda: connect_remote(url, **options))


async def _entered(make: Callable[[], Any]) -> Any:
    return await make()


def _wait(coroutine: Coroutine[Any, Any, T], loop: asyncio.AbstractEventLoop) -> T:
    """Run on the pipe's loop, wait here. An interrupt leaves at once; what was sent may still happen."""
    return asyncio.run_coroutine_threadsafe(coroutine, loop).result()
