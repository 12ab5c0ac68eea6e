"""The log of a leader: each batch is an entry of the cluster's stream first, then a frame of the node's own log.

    append -> sent (up to `window` at once) -> stored, and all before it too -> copied to the own log -> done

An answer that is not exactly the expected one is no fact about the stream. Whatever was sent is then *unsure*: nothing
more is sent before the stream was read (`doubt`), and each entry under way was found there, or is sent again, byte for
byte the same, behind what was found. A valid OPEN of another node ends it: Deposed.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Iterator
from functools import partial

from truba.cluster.doubt import STUCK_S, Doubt, Unreadable
from truba.cluster.entry import Entry, EntryKind, encode, of_batch, without_events
from truba.cluster.finishing import finished
from truba.cluster.rule import Cursor, Valid, Void
from truba.codec.chain import Chain
from truba.errors import Deposed, LogPoisoned, LogRegression, TrubaError
from truba.ports.log import Done, Log, LogBatch, Space
from truba.ports.stream import Message, Outcome, Stored, Stream
from truba.types import Position

BEAT_S = 1.0
"""An idle leader says so this often; followers wait for at least twice as long before one of them takes over."""

BATCH_BYTES_MAX = 8 << 20
"""Of events in an entry: with the largest request on top it must fit into a message."""

BATCH_BYTES_MIN = 64 << 10
"""Small entries behind one another cost six processes more than they gain: measured with 64 and 256 clients, one at a
time was 1.1 to 1.9 times as fast as several. Large ones overlap on the way."""


class _Sent:
    """An entry under way."""

    __slots__ = ("batch", "cursor", "data", "done", "entry", "expected", "stored_as")

    def __init__(self, entry: Entry, data: bytes, batch: LogBatch | None, done: Done | None) -> None:
        self.entry = entry
        self.data = data
        self.batch = batch
        self.done = done
        self.expected: int | None = None  # what the stream should end with when it arrives; None: to be sent
        self.stored_as = 0  # its number in the stream, once that is known
        self.cursor = Cursor()  # what it led to, once stored


class ReplicatedLog:
    """Stands on a stream and on the node's own log, which it does not own: `close` leaves both open.

    `cursor`: how far this node has judged the stream; its own log must be there too. `voids` counts messages that were
    void. The batch that begins a new term is the OPEN: as long as it is not done, nobody leads.
    """

    def __init__(
        self,
        stream: Stream,
        own: Log,
        cluster: Chain,
        cursor: Cursor,
        writer: str,
        *,
        window: int = 4,
        beat_s: float = BEAT_S,
        stuck_s: float = STUCK_S,
        alone: Callable[[], Awaitable[bool]] | None = None,
    ) -> None:
        """`alone`: does none of the other nodes answer? None: there are no others that could be asked."""
        if own.tail != cursor.position:
            raise ValueError(f"the own log ends with {own.tail}, the stream was read through {cursor.position}")
        self._stream = stream
        self._own = own
        self._cluster = cluster
        self._writer = writer
        self._window = window
        self._beat_s = beat_s
        self._loop = asyncio.get_running_loop()
        self._sure = cursor  # of the last entry known to be stored
        self.copied = cursor  # of the last entry that is in the own log too
        self._head = cursor.position  # of the last entry appended
        self._next = cursor.stream_seq  # what the stream should end with when the next entry arrives
        self._sent: deque[_Sent] = deque()
        self._copies: deque[_Sent] = deque()  # stored, not yet in the own log
        self._copying: _Sent | None = None
        self._at_rest: asyncio.Future[None] | None = None
        self._batches = 0  # under way: sent or being copied
        self._generation = 0  # answers to what was sent before the last doubt are not listened to
        self._doubt = Doubt(stream, cluster, stuck_s, alone)
        self._settling: asyncio.Task[None] | None = None
        self._idle = False  # since the last beat
        self._beat_timer: asyncio.TimerHandle | None = None
        self._confirms: list[Done] = []
        self._failure: TrubaError | None = None
        self._on_failure: Callable[[BaseException], None] | None = None
        self._closed = False
        self.voids = 0

    # -- the port --------------------------------------------------------------------------------------------

    @property
    def tail(self) -> Position:
        return self._own.tail

    @property
    def window(self) -> int:
        return self._window

    @property
    def batch_bytes_max(self) -> int:
        return BATCH_BYTES_MAX

    @property
    def batch_bytes_min(self) -> int:
        return BATCH_BYTES_MIN

    @property
    def space(self) -> Space:
        return self._own.space

    @property
    def size_bytes(self) -> int:
        return self._own.size_bytes

    @property
    def stream_seq(self) -> int:
        """The number of the last message known to be stored."""
        return self._sure.stream_seq

    @property
    def failure(self) -> BaseException | None:
        return self._failure

    def append(self, batch: LogBatch, done: Done) -> None:
        self._usable()
        head = self._head
        if batch.first_seq != head.seq + 1 or batch.term < head.term or batch.count < 1:
            raise ValueError(
                f"a batch of term {batch.term} with {batch.count} events from seq {batch.first_seq} "
                f"cannot follow {head.term}-{head.seq}"
            )
        if self._batches >= self._window:
            raise ValueError(f"{self._window} batches are under way already: that is the log's window")
        self._batches += 1
        self._send(of_batch(self._cluster, batch, head, self._writer, self._sure.position.seq), batch, done)

    def confirm(self, done: Done) -> None:
        """A BEAT that is stored was sent by whoever leads, after this was asked."""
        self._usable()
        if not self._confirms:
            self._loop.call_soon(self._send_confirm)
        self._confirms.append(done)

    def read(self, after_seq: int) -> Iterator[tuple[LogBatch, Position]]:
        self._usable()
        return self._own.read(after_seq)

    def position_at(self, seq: int) -> Position | None:
        self._usable()
        return self._own.position_at(seq)

    def trim(self, through_seq: int) -> None:
        """Of the own log. What the stream may forget depends on the other nodes."""
        self._usable()
        self._own.trim(through_seq)

    def close(self) -> None:
        """What is under way may be stored or not: its `done` hears that. Whoever wants to know waits before."""
        if not self._closed:
            self._closed = True
            self._fail(Deposed("the log was closed while this was under way; outcome unknown"))

    async def rest(self) -> None:
        """After `close`: until nothing is on its way into the own log any more, and `copied` is where that ends."""
        if self._copying is not None:
            self._at_rest = self._loop.create_future()
            await self._at_rest

    # -- leading ---------------------------------------------------------------------------------------------

    def lead(self, on_failure: Callable[[BaseException], None]) -> None:
        """From now on say now and then that this node leads. `on_failure`: called when it does not, or cannot."""
        if self._failure is not None:
            on_failure(self._failure)
            return
        self._on_failure = on_failure
        self._idle = True
        self._beat_timer = self._loop.call_later(self._beat_s, self._beat)

    async def resign(self, successor: str = "") -> None:
        """Tell everybody that this node leads no more, after all that is under way; `successor`: who should be next."""
        self._usable()
        await finished(partial(self._send, self._say(EntryKind.RESIGN, successor), None))

    async def tell_first(self, stream_seq: int) -> None:
        """Say in a BEAT that the stream is about to be trimmed to that message; returns when it is stored."""
        self._usable()
        await finished(partial(self._send, self._say(EntryKind.BEAT, str(stream_seq)), None))

    def _beat(self) -> None:
        if self._failure is not None:
            return
        self._beat_timer = self._loop.call_later(self._beat_s, self._beat)
        if not self._sent:
            if self._idle:
                self._send(self._say(EntryKind.BEAT), None, None)
            self._idle = True

    def _send_confirm(self) -> None:
        if self._failure is not None:
            return
        confirms, self._confirms = self._confirms, []

        def done(error: BaseException | None) -> None:
            for each in confirms:
                each(error)

        self._send(self._say(EntryKind.BEAT), None, done)

    def _say(self, kind: EntryKind, text: str = "") -> Entry:
        """Something without events, behind whatever is under way."""
        return without_events(kind, self._head, self._writer, self._sure.position.seq, text.encode())

    # -- sending ---------------------------------------------------------------------------------------------

    def _send(self, entry: Entry, batch: LogBatch | None, done: Done | None) -> None:
        sent = _Sent(entry, encode(self._cluster, entry), batch, done)
        if not self._sent:
            self._doubt.waits()
        self._sent.append(sent)
        self._head = entry.position
        self._idle = False
        if self._settling is None:
            self._publish()

    def _publish(self) -> None:
        """Send what was not sent yet. An OPEN goes alone: who reads it knows that its writer had seen all before it."""
        for sent in self._sent:
            if sent is not self._sent[0] and EntryKind.OPEN in (sent.entry.kind, self._sent[0].entry.kind):
                break
            if sent.expected is None:
                sent.expected = self._next
                self._next += 1
                answered = partial(self._answered, sent, sent.expected + 1, self._generation)
                self._stream.publish(sent.data, sent.expected, answered)

    def _answered(self, sent: _Sent, predicted: int, generation: int, outcome: Outcome) -> None:
        if generation != self._generation or self._failure is not None:
            return
        if isinstance(outcome, Stored) and outcome.seq == predicted:
            sent.stored_as = predicted
            opened = sent.entry.kind is EntryKind.OPEN
            while self._sent and self._sent[0].stored_as:
                self._stored(self._sent[0].stored_as)
            if opened or (self._sent and self._sent[0].entry.kind is EntryKind.OPEN):
                self._publish()
        else:
            self._begin_doubt()

    def _stored(self, stream_seq: int) -> None:
        """The oldest entry under way is in the stream, with that number."""
        sent = self._sent.popleft()
        entry_seq = self._sure.entry_seq if sent.batch is None else stream_seq
        sent.cursor = self._sure = Cursor(stream_seq, sent.entry.position, self._writer, entry_seq)
        self._doubt.progress()
        if sent.batch is not None:
            self._copies.append(sent)
            self._copy()
        else:
            if not self._copies:
                self.copied = sent.cursor
            if sent.done is not None:
                sent.done(None)

    def _copy(self) -> None:
        if self._copying is not None or not self._copies:
            return
        self._copying = self._copies[0]
        batch = self._copying.batch
        assert batch is not None  # only batches are copied
        try:
            self._own.append(batch, self._copied)
        except Exception as error:  # nothing behind it can be copied, whatever it is
            self._copying = None
            self._fail(_as_failure(error))

    def _copied(self, error: BaseException | None) -> None:
        sent, self._copying = self._copying, None
        assert sent is not None
        if error is None:
            self.copied = sent.cursor
        if self._at_rest is not None and not self._at_rest.done():
            self._at_rest.set_result(None)
        if self._failure is not None:
            return  # whoever waited has been told that nobody knows
        if error is not None:
            self._fail(_as_failure(error))
            return
        self._copies.popleft()
        self._batches -= 1
        if sent.done is not None:
            sent.done(None)
        self._copy()

    # -- doubt -----------------------------------------------------------------------------------------------

    def _begin_doubt(self) -> None:
        self._generation += 1
        if self._settling is None:
            self._settling = self._loop.create_task(self._settle(), name="unsure entries")
            self._settling.add_done_callback(self._settled)

    def _settled(self, task: asyncio.Task[None]) -> None:
        if not task.cancelled() and (error := task.exception()) is not None:
            self._fail(_as_failure(error))

    async def _settle(self) -> None:
        """Until every entry under way was found in the stream, or has been sent again behind all that is there."""
        await self._doubt.settle(self._sure, self._found)
        self._settling = None
        self._next = self._sure.stream_seq
        for sent in self._sent:
            sent.expected = None
            sent.stored_as = 0
        self._publish()

    def _found(self, message: Message, verdict: Valid | Void) -> Cursor:
        """The stream holds this behind the last sure entry."""
        match verdict:
            case Void():
                self.voids += 1
                self._sure = verdict.cursor
            case Valid():
                if not self._sent or message.data != self._sent[0].data:
                    raise _deposed(verdict.entry)
                self._stored(message.seq)
        return self._sure

    async def look_back(self) -> None:
        """Is the stream still the one that this log was written to? If not, this node ends. StreamDown, StreamGone."""
        self._usable()
        try:
            first = (await self._stream.bounds()).first
            await self._doubt.look_at(self._sure, first)
        except Unreadable:
            pass  # the next entry will not find its place, if it is worse than that
        except LogRegression as error:
            self._fail(error)

    # -- failure ---------------------------------------------------------------------------------------------

    def _fail(self, error: TrubaError) -> None:
        """Take nothing from here on. What is under way: nobody knows."""
        if self._failure is not None:
            return
        self._failure = error
        self._generation += 1
        if self._beat_timer is not None:
            self._beat_timer.cancel()
        if self._settling is not None:
            self._settling.cancel()
        waiting = [sent.done for sent in (*self._copies, *self._sent) if sent.done is not None] + self._confirms
        self._copies.clear()
        self._sent.clear()
        self._confirms = []
        for done in waiting:
            done(error)
        if self._on_failure is not None and not self._closed:
            self._on_failure(error)  # whether or not anybody waited: an idle leader falls, too

    def _usable(self) -> None:
        if self._closed:
            raise ValueError("the log is closed")
        if self._failure is not None:
            error = LogPoisoned(f"this node does not write to the log any more: {self._failure}")
            error.__cause__ = self._failure
            raise error


def _as_failure(error: BaseException) -> TrubaError:
    return error if isinstance(error, TrubaError) else LogPoisoned(f"a defect: {error!r}")


def _deposed(entry: Entry) -> TrubaError:
    if entry.kind is EntryKind.OPEN:
        return Deposed(f"{entry.writer!r} leads since term {entry.term}")
    return Deposed(f"{entry.writer!r} leads in term {entry.term}, and writes")
