"""A follower: reads the stream to its end and stays there. Judges every message, copies what is valid, applies it.

    begin -> where does the own log stand in the stream? -> read on -> ... -> quiet for too long: time to take over

It never writes to the stream, but for the very first message of a new one, and for a PROBE when the stream seems to
have gone back: a stored message has a number, and no number is given twice, so what was stored before it is there, or
was lost. Until then a follower that is shown an old picture simply waits.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from truba.clock import Clock
from truba.cluster.entry import Damaged, Entry, EntryKind, Foreign, decode, encode, without_events
from truba.cluster.finishing import append, publish
from truba.cluster.marks import Marks
from truba.cluster.rule import Broken, Cursor, Valid, Void, is_there, judge
from truba.codec.batch import decode_batch
from truba.codec.chain import Chain
from truba.errors import DataDamaged, LogRegression, TrubaError
from truba.machine.machine import Machine
from truba.node.checkpoint import Checkpointer
from truba.ports.log import Log, LogBatch
from truba.ports.stream import Bounds, Message, Stored, Stream, StreamDown, StreamGone
from truba.types import ORIGIN, Position

PATIENCE_S = (2.0, 4.0)
"""How long nobody may be heard to lead before this node takes over; drawn anew each time, so that two seldom try at
once. Longer than a leader's beat, with room for a pause of the process."""

DOWN_S = 1.6
"""The stream has given no sign of life for so long: silence before says nothing of the leader. Three proofs missed."""

AGAIN_S = 1.0
AGAIN_MAX = 8
"""A broken message is read again, perhaps from another replica; then it is believed."""


class Behind(TrubaError):
    """The stream does not hold what follows this node's log any more: it needs a peer's checkpoint."""


class _Unreadable(Exception):
    """A broken message: try again."""


class Follower:
    """`own`, `machine` and `checkpointer` are this node's; the machine's state is that of the own log's tail.

    `cursor` is how far the stream was judged. `leader`: who leads, as far as was read; empty: nobody. `on_leader` is
    called when that changes, once this node has come to the end of the stream.
    """

    def __init__(
        self,
        stream: Stream,
        cluster: Chain,
        own: Log,
        machine: Machine,
        checkpointer: Checkpointer,
        marks: Marks,
        *,
        name: str,
        clock: Clock,
        on_leader: Callable[[str], None],
        cursor: Cursor | None = None,
        first: int = 0,
    ) -> None:
        """`first`: what the stream may begin with, as leaders have said so far; 0: not known."""
        self._stream = stream
        self._cluster = cluster
        self._own = own
        self._machine = machine
        self._checkpointer = checkpointer
        self._marks = marks
        self._name = name
        self._clock = clock
        self._on_leader = on_leader
        self._loop = asyncio.get_running_loop()
        self._placed = cursor is not None  # `cursor` is a place in the stream
        self.cursor = cursor or Cursor()
        self.leader = ""
        self._told: str | None = None
        self.voids = 0
        self.stream_last = 0
        self.first = first
        self.at_end = cursor is not None  # of the stream, at least once
        self._there_seq = 0  # the stream's last message when reading began
        self._probed_seq = 0  # a message of ours has this number: whoever has read it has read all that is there
        self._alive_s = 0.0
        self._patience_s = 0.0
        self._named = False  # the leader that resigned wants us to be next, or we began a stream that nobody has led

    async def run(self) -> None:
        """Follow until it is time to take over: `cursor` then is the exact end of the stream, as far as one can know.

        LogRegression, Behind; LogPoisoned when the own log fails; DataDamaged when an event does not fit the state.
        """
        tries = 0
        while True:
            before = self.cursor
            try:
                await self._begin()
                await self._read()
            except _Unreadable as error:
                tries = tries + 1 if self.cursor == before else 1
                if tries >= AGAIN_MAX:
                    raise LogRegression(str(error)) from error
                await asyncio.sleep(AGAIN_S)
            except StreamGone as error:
                raise LogRegression(f"{error}, and this node's log is at {_at(self._own.tail)}") from error
            else:
                return

    # -- where to begin ------------------------------------------------------------------------------------------

    async def _begin(self) -> None:
        """Find the message to begin with."""
        bounds = await self._bounds()
        self._there_seq = bounds.last
        self.first = self.first or bounds.first
        if self._placed:
            await self._look_back(bounds)
            if bounds.first <= self.cursor.stream_seq + 1:
                return
        if bounds.last == 0:
            await self._found()
            bounds = await self._bounds()
        first = await self._first_entry(bounds)
        own = self._own.tail
        if first.position.seq > own.seq:
            raise Behind(f"the stream begins after event {_at(first.position)}, this node's log is at {_at(own)}")
        if first.position.seq == own.seq and first.position != own:
            raise _fork(own, first.position)
        self.cursor, self._placed = first, True

    async def _look_back(self, bounds: Bounds) -> None:
        """Is the stream still the one that was read? What was read of it last has to be there."""
        cursor = self.cursor
        if bounds.last < cursor.stream_seq and await self._probe() <= cursor.stream_seq:
            raise LogRegression(f"the stream was read through message {cursor.stream_seq}, and now ends before")
        if cursor.entry_seq < bounds.first:
            return  # trimmed, or nothing was read yet
        match is_there(self._cluster, cursor, await self._get(cursor.entry_seq)):
            case None:
                raise _Unreadable(f"message {cursor.entry_seq} of the stream, an entry, cannot be read any more")
            case False:
                raise LogRegression(
                    f"message {cursor.entry_seq} of the stream led to event {_at(cursor.position)}, and is another one"
                    " now"
                )

    async def _found(self) -> None:
        """The stream is new: say where the log begins."""
        if self._own.tail != ORIGIN:
            raise LogRegression(f"the stream is new, and this node's log is at {_at(self._own.tail)}")
        base = encode(self._cluster, without_events(EntryKind.BASE, ORIGIN, self._name))
        await publish(self._stream, base, 0)  # whether it was this one or another node's: a BASE is there afterwards

    async def _first_entry(self, bounds: Bounds) -> Cursor:
        """The place before the first message that is an entry. A trimmed stream begins with a valid one."""
        for seq in range(bounds.first, bounds.last + 1):
            message = await self._get(seq)
            if message is None:
                raise _Unreadable(f"message {seq} of the stream is missing, {bounds.last} is there")
            match decode(self._cluster, message.data):
                case Damaged(reason):
                    raise _Unreadable(f"message {seq} of the stream is damaged: {reason}")
                case Entry() as entry if entry.kind is not EntryKind.PROBE:  # it stands nowhere
                    return Cursor(seq - 1, entry.before, entry.writer)
                case Entry() | Foreign():
                    continue
        raise _Unreadable(
            f"the stream holds no entry (messages {bounds.first} to {bounds.last}), and this node's log is at"
            f" {_at(self._own.tail)}"
        )

    # -- reading ---------------------------------------------------------------------------------------------------

    async def _read(self) -> None:
        tail = self._stream.tail(self.cursor.stream_seq)
        try:
            self._hear()
            last_s = self._loop.time()
            while True:
                messages = await tail.take()
                now_s = self._loop.time()
                if now_s - last_s > DOWN_S:
                    self._hear()
                last_s = now_s
                for message in messages:
                    await self._take(message)
                if not messages or self._has_caught_up():
                    await self._at_end()
                if self.at_end and (self._named or now_s - self._alive_s > self._patience_s):
                    if await self._is_up():
                        await self._look_back(await self._bounds())
                        return
                    self._hear()
        finally:
            await tail.close()

    async def _is_up(self) -> bool:
        """Does the stream have a leader of its own? A tail may be told of life by a server that only keeps a copy.

        While it has none, our leader cannot write either; when it has one again, ours must have time to do so.
        """
        try:
            await self._stream.bounds()
        except StreamDown:
            return False
        return True

    async def _take(self, message: Message) -> None:
        self.stream_last = message.seq
        if message.seq <= self.cursor.stream_seq:
            raise _Unreadable(f"message {message.seq} came after {self.cursor.stream_seq}: is it another stream?")
        verdict = judge(self._cluster, self.cursor, message)
        match verdict:
            case Broken():
                raise _Unreadable(verdict.reason)
            case Void():
                self.voids += 1
                self.cursor = verdict.cursor
                if verdict.alive:
                    self._hear()
            case Valid():
                entry = verdict.entry
                if (batch := entry.batch) is not None:
                    await self._copy(batch, entry.position)
                self.cursor = verdict.cursor
                self._marks.add(self.cursor, self._loop.time())
                self._hear()
                match entry.kind:
                    case EntryKind.BEAT if entry.body.isdigit():
                        self.first = max(self.first, int(entry.body))
                        self._led_by(entry.writer)
                    case EntryKind.OPEN | EntryKind.BATCH | EntryKind.BEAT:
                        self._led_by(entry.writer)
                    case EntryKind.BASE:
                        self._named = entry.writer == self._name
                    case EntryKind.RESIGN:
                        self._led_by("")
                        self._named = entry.body.decode("utf-8", "replace") == self._name

    async def _copy(self, batch: LogBatch, position: Position) -> None:
        """A batch of the log: into the own one and the state, or there already."""
        tail = self._own.tail
        if position.seq > tail.seq:
            if batch.first_seq != tail.seq + 1:
                raise _fork(tail, position)
            await append(self._own, batch)
            tail = self._own.tail
            self._machine.replay(batch.term, decode_batch(batch.body))
            if self._machine.seq != tail.seq:
                raise DataDamaged(f"the state is at event {self._machine.seq}, the log at {_at(tail)}")
            self._checkpointer.sealed(None, len(batch.body))
        if position.seq == tail.seq and position != tail:
            raise _fork(tail, position)

    def _has_caught_up(self) -> bool:
        """Was all read that was there at first? Where somebody writes all the time, a tail never runs dry."""
        return (
            not self.at_end
            and self.cursor.stream_seq >= self._there_seq
            and self.cursor.position.seq >= self._own.tail.seq
        )

    async def _at_end(self) -> None:
        """Everything that the stream shows was read, or showed when we began."""
        own = self._own.tail
        if self.cursor.position.seq < own.seq:
            if not self._probed_seq:
                self._probed_seq = await self._probe()
            elif self.cursor.stream_seq >= self._probed_seq:
                raise LogRegression(
                    f"the stream leads to event {_at(self.cursor.position)} only, this node's log to {_at(own)}"
                )
            return
        self._probed_seq = 0
        self.at_end = True
        self._tell_leader()

    def _led_by(self, leader: str) -> None:
        self._named = False
        self.leader = leader
        if self.at_end:
            self._tell_leader()

    def _tell_leader(self) -> None:
        if self._told != self.leader:
            self._told = self.leader
            self._on_leader(self.leader)

    def _hear(self) -> None:
        """Somebody leads, or may: wait, for a time that the dice say."""
        self._alive_s = self._loop.time()
        least_s, most_s = PATIENCE_S
        self._patience_s = least_s + (most_s - least_s) * self._clock.chance()

    # -- asking, as often as it takes --------------------------------------------------------------------------

    async def _bounds(self) -> Bounds:
        while True:
            try:
                return await self._stream.bounds()
            except StreamDown:
                await asyncio.sleep(AGAIN_S / 2)

    async def _get(self, seq: int) -> Message | None:
        while True:
            try:
                return await self._stream.get(seq)
            except StreamDown:
                await asyncio.sleep(AGAIN_S / 2)

    async def _probe(self) -> int:
        """The number of a message that was stored just now."""
        probe = encode(self._cluster, without_events(EntryKind.PROBE, ORIGIN, self._name))
        while True:
            outcome = await publish(self._stream, probe, None)
            if isinstance(outcome, Stored):
                return outcome.seq
            await asyncio.sleep(AGAIN_S / 2)


def _at(position: Position) -> str:
    return f"{position.term}-{position.seq}"


def _fork(own: Position, stream: Position) -> LogRegression:
    return LogRegression(
        f"the stream's log leads to {_at(stream)} ({stream.chain.hex()[:8]}), this node's to"
        f" {_at(own)} ({own.chain.hex()[:8]}): they are not one log"
    )
