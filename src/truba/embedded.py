"""`truba.open`: a pipe inside this process, on a directory of its own."""

from __future__ import annotations

from asyncio import CancelledError
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from truba.coded import CodedPipe
from truba.compose import RESERVE_BYTES, Parts, build
from truba.errors import OperationError, Unavailable
from truba.kinds import Kind
from truba.node.node import Limits
from truba.node.session import LocalSession, plain, whole
from truba.opening import Opening
from truba.ports.backup import Made
from truba.ports.records import Codec
from truba.session import index_of
from truba.types import Index

if TYPE_CHECKING:
    from truba.backup.running import Maker


class EmbeddedPipe(CodedPipe[LocalSession]):
    """See `truba.session.Pipe`. Sessions that are still held when it closes are unfinished at the next start."""

    def __init__(self, parts: Parts, data: Path) -> None:
        """`data`: where log and store of `parts` are."""
        self._parts = parts
        self._data = data
        self._maker: Maker | None = None
        self._closing = False
        self.node = parts.node
        self._owner = self.node.presence.attach()

    def _codec(self, kind: int) -> Codec[Any] | None:
        known = self.node.kinds.get(kind)
        return None if known is None else known.codec

    async def _new(self, kind: int, records: Sequence[bytes], tag: int | None, trace: bytes) -> LocalSession:
        node = self.node
        number = -1 if tag is None else whole(tag)
        hold = node.new(self._owner, whole(kind), [*map(plain, records)], number, plain(trace))
        try:
            await node.sequencer.flush()
        except CancelledError:
            # Nobody has the session, and nobody else could end it before its idle_timeout.
            with suppress(OperationError):  # as in `_block`
                node.fail(hold, "cancelled")
            raise
        return LocalSession(node, hold)

    @asynccontextmanager
    async def _block(self, kind: int, records: Sequence[bytes], trace: bytes) -> AsyncIterator[LocalSession]:
        session = await self._new(kind, records, None, trace)
        try:
            yield session
        except BaseException as error:
            if not session.ended:
                # Where even that is refused, the session was taken away and is unfinished anyway.
                with suppress(OperationError):
                    await session.fail(f"{type(error).__name__}: {error}")
            raise
        if not session.closed:
            await session.delete()  # Fenced when it was taken away meanwhile

    async def resume(self, session_id: Index | str) -> None:
        """Make a parked or stored session due at once, with fresh limits. NoSession, Busy."""
        self.node.operators.resume(index_of(session_id))
        await self.node.sequencer.flush()

    async def remove(self, session_id: Index | str) -> None:
        """Delete a stored or parked session, whoever it belonged to. NoSession, Busy."""
        self.node.operators.remove(index_of(session_id))
        await self.node.sequencer.flush()

    async def pause_kind(self, kind: int) -> None:
        """Hand over nothing more of a kind until it is continued, whatever restarts. UnknownKind."""
        self.node.operators.pause(whole(kind), True)
        await self.node.sequencer.flush()

    async def continue_kind(self, kind: int) -> None:
        """Go on with handing over a kind. UnknownKind."""
        self.node.operators.pause(whole(kind), False)
        await self.node.sequencer.flush()

    async def backup(self, directory: str | Path) -> Made:
        """Make a backup in a directory that is new or empty, by a process of its own; the pipe goes on meanwhile.

        When it returns, the backup is durable and read back, and holds the state through `made.at`: all that was
        acknowledged before the call. DataForeign: that is no place for one. Busy: another one is under way.
        Unavailable: the log has failed, or the pipe was closed. TrubaError: why it could not be made. If the call is
        cancelled or the pipe closed meanwhile, an unfinished backup stays: remove it.
        """
        if self._closing or self.node.sequencer.over:
            raise Unavailable("the pipe is closed, or its log has failed; nothing was begun")
        if self._maker is None:
            # Imported when it is asked for: without it a pipe in a program starts almost twice as fast.
            from truba.backup.running import Maker

            parts = self._parts
            self._maker = Maker(self._data, parts.log, parts.store, parts.node.checkpointer, RESERVE_BYTES)
        return await self._maker.begin(Path(directory))

    async def close(self) -> None:
        """Everything acknowledged is durable; running handlers are cancelled. LogPoisoned when the log had failed."""
        self._closing = True
        try:
            if self._maker is not None:
                await self._maker.close()
        finally:
            await self._parts.close()


def open(  # noqa: A001 - truba.open
    data: str | Path, *, kinds: Sequence[Kind], limits: Limits | None = None
) -> Opening[EmbeddedPipe]:
    """Open the pipe of a data directory, which is created if need be.

    Durable means: after fdatasync of the pipe's log. Raises ConfigError, DataError (locked, damaged, newer, not
    writable) when it is awaited or entered.
    """

    place = Path(data).absolute()  # files are made there later, whatever becomes the working directory

    async def begin() -> EmbeddedPipe:
        parts = build(place, kinds, limits=limits)
        try:
            await parts.node.start()
        except BaseException:
            await parts.close()
            raise
        return EmbeddedPipe(parts, place)

    return Opening(begin)
