"""Sessions whose records are objects: any session, and any handler, with a codec between.

    async with pipe.session(7, codec=CODEC) as session:
        await session.append(Debited(5))

    @truba.handles(CODEC)
    async def finish(repeat: truba.TypedRepeat[Debited | Credited]) -> None: ...

Everything but records goes through as it is. A record is encoded before anything is sent or decided.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar, cast

from truba import sync
from truba.errors import BadRecord
from truba.kinds import Handler
from truba.ports.records import Codec, Shown
from truba.session import RepeatData, Session
from truba.types import Cause, Index

R = TypeVar("R")


class TypedSession(Generic[R]):
    """See `truba.session.Session`. `plain` is the session of bytes behind it."""

    __slots__ = ("codec", "plain")

    def __init__(self, session: Session, codec: Codec[R]) -> None:
        self.plain = session
        self.codec = codec

    def __repr__(self) -> str:
        return repr(self.plain)

    @property
    def id(self) -> Index:
        return self.plain.id

    @property
    def kind(self) -> int:
        return self.plain.kind

    @property
    def epoch(self) -> int:
        return self.plain.epoch

    @property
    def ended(self) -> bool:
        """The hold is over: nothing more can be done with this object."""
        return self.plain.ended

    async def append(self, *records: R) -> None:
        """Add records, all or none. BadRecord: one of them could not be read again."""
        await self.plain.append(*map(self.codec.encode, records))

    async def replace(self, record: R) -> None:
        """Drop the records so far and add this one. BadRecord: it could not be read again."""
        await self.plain.replace(self.codec.encode(record))

    async def delete(self) -> None:
        await self.plain.delete()

    async def store(self, seconds: float) -> None:
        await self.plain.store(seconds)

    async def fail(self, reason: str = "") -> None:
        await self.plain.fail(reason)

    async def touch(self) -> None:
        await self.plain.touch()


@dataclass(frozen=True, slots=True)
class TypedRepeat(Generic[R]):
    """See `truba.RepeatData`: an unfinished session whose records are objects. Its `repr` shows what may be shown."""

    records: Sequence[R] = field(repr=False)
    session: TypedSession[R]
    kind: int
    attempt: int
    cause: Cause
    shown: Shown
    trace: bytes = b""


TypedHandler = Callable[[TypedRepeat[R]], Awaitable[Any]] | Callable[["sync.TypedRepeat[R]"], Any]
"""A coroutine function, or a plain one, which runs in a thread with the plain twin of the repeat."""


@asynccontextmanager
async def typed_block(block: AbstractAsyncContextManager[Session], codec: Codec[R]) -> AsyncIterator[TypedSession[R]]:
    """The same block, with a codec between."""
    async with block as session:
        yield TypedSession(session, codec)


def handles(codec: Codec[R]) -> Callable[[TypedHandler[R]], Handler]:
    """A decorator: the function gets records as objects.

    Records that the codec cannot read are a failure of the hand-over: the session goes back by its kind's policy, with
    BadRecord as its detail, and the function is not called.
    """

    def decorate(function: TypedHandler[R]) -> Handler:
        call = function if inspect.isroutine(function) else type(function).__call__
        if inspect.iscoroutinefunction(call):
            coroutine = cast(Callable[[TypedRepeat[R]], Awaitable[Any]], function)

            @functools.wraps(function)
            async def handle(repeat: RepeatData) -> None:
                session = TypedSession(repeat.session, codec)
                records, shown = _read(codec, repeat.records)
                await coroutine(
                    TypedRepeat(records, session, repeat.kind, repeat.attempt, repeat.cause, shown, repeat.trace)
                )

            return handle
        plain = cast(Callable[[sync.TypedRepeat[R]], Any], function)

        @functools.wraps(function)
        def handle_plainly(repeat: sync.RepeatData) -> None:
            session = sync.TypedSession(repeat.session, codec)
            records, shown = _read(codec, repeat.records)
            plain(sync.TypedRepeat(records, session, repeat.kind, repeat.attempt, repeat.cause, shown, repeat.trace))

        return handle_plainly

    return decorate


def _read(codec: Codec[R], records: Sequence[bytes]) -> tuple[list[R], Shown]:
    read: list[R] = []
    for number, data in enumerate(records, 1):
        try:
            read.append(codec.decode(data))
        except BadRecord as error:
            raise BadRecord(f"record {number} of {len(records)}: {error}") from error
    return read, Shown(codec, records)
