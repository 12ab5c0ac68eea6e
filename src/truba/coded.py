"""`new` and `session` as the shipped pipes have them: of bytes, or of objects where there is a codec."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager
from typing import TYPE_CHECKING, Any, Generic, TypeVar, overload

from truba.ports.records import Codec
from truba.session import Session

if TYPE_CHECKING:
    from truba.typed import TypedSession

R = TypeVar("R")
S = TypeVar("S", bound=Session)


class CodedPipe(ABC, Generic[S]):
    """See `truba.session.Pipe`. `S`: its sessions of bytes, which a pipe has to open only."""

    @overload
    async def new(self, kind: int, *records: bytes, tag: int | None = None, trace: bytes = b"") -> S: ...

    @overload
    async def new(
        self, kind: int, *records: R, tag: int | None = None, trace: bytes = b"", codec: Codec[R]
    ) -> TypedSession[R]: ...

    async def new(
        self, kind: int, *records: Any, tag: int | None = None, trace: bytes = b"", codec: Codec[Any] | None = None
    ) -> Any:
        """Open a session, with first records if given. `tag`: the owner's own number for it, not in use by another
        open session; it serves clients that reconnect, and has no effect in an embedded pipe. `codec`: what its records
        are; that of its kind if not given, where the pipe knows one, else bytes."""
        if codec is None and (codec := self._codec(kind)) is None:
            return await self._new(kind, records, tag, trace)
        from truba.typed import TypedSession

        return TypedSession(await self._new(kind, [*map(codec.encode, records)], tag, trace), codec)

    @overload
    def session(self, kind: int, *records: bytes, trace: bytes = b"") -> AbstractAsyncContextManager[S]: ...

    @overload
    def session(
        self, kind: int, *records: R, trace: bytes = b"", codec: Codec[R]
    ) -> AbstractAsyncContextManager[TypedSession[R]]: ...

    def session(self, kind: int, *records: Any, trace: bytes = b"", codec: Codec[Any] | None = None) -> Any:
        """`async with`: delete on success; on an exception give back by the kind's policy and raise it again. `codec`:
        as with `new`."""
        if codec is None and (codec := self._codec(kind)) is None:
            return self._block(kind, records, trace)
        from truba.typed import typed_block

        return typed_block(self._block(kind, [*map(codec.encode, records)], trace), codec)

    def _codec(self, kind: int) -> Codec[Any] | None:
        """What is known of the records of that kind: nothing, by a client."""
        return None

    @abstractmethod
    async def _new(self, kind: int, records: Sequence[bytes], tag: int | None, trace: bytes) -> S: ...

    @abstractmethod
    def _block(self, kind: int, records: Sequence[bytes], trace: bytes) -> AbstractAsyncContextManager[S]: ...
