"""A new stream that goes on from a node's own log: a BASE at the place where the log begins, then its batches.

Used once in a stream's life, by whoever repairs a cluster or makes one of a pipe that was alone. The stream is checked
as it grows: every message must get the number that a stream without anybody else in it would give.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable

from truba.cluster.entry import Damaged, Entry, EntryKind, Foreign, decode, encode, of_batch, without_events
from truba.cluster.finishing import append
from truba.cluster.rule import Broken, Cursor, Valid, Void, judge
from truba.codec.batch import decode_batch
from truba.codec.chain import Chain
from truba.errors import LogRegression
from truba.machine.events import Opened
from truba.ports.log import Log, LogBatch
from truba.ports.stream import Message, Outcome, Stored, Stream
from truba.types import Position

WINDOW = 32
Progress = Callable[[int], object]
"""The last event that is stored."""


async def seed(stream: Stream, cluster: Chain, own: Log, begin: Position, writer: str, progress: Progress) -> int:
    """Fill an empty stream with the own log from `begin` on; the number of messages. LogRegression: it is not empty."""
    under_way: deque[tuple[int, int, asyncio.Future[Outcome]]] = deque()

    async def settle(through: int) -> None:
        while len(under_way) > through:
            predicted, event, outcome = under_way.popleft()
            found = await outcome
            if found != Stored(predicted):
                raise LogRegression(
                    f"the new stream did not take message {predicted} as such ({found}): is another node at work? Stop"
                    " all nodes and run this again; the node's own log was not changed"
                )
            progress(event)

    def send(entry: Entry) -> None:
        sent = under_way[-1][0] + 1 if under_way else last + 1
        outcome: asyncio.Future[Outcome] = asyncio.get_running_loop().create_future()
        stream.publish(encode(cluster, entry), sent - 1, outcome.set_result)
        under_way.append((sent, entry.position.seq, outcome))

    last = 0
    send(without_events(EntryKind.BASE, begin, writer))
    await settle(0)
    last = 1
    at = begin
    for batch, position in own.read(begin.seq):
        opened = _opened_by(batch) if batch.term > at.term else None
        if opened is not None:
            writer = opened
            await settle(0)  # an OPEN goes alone, as a leader's does
        send(of_batch(cluster, batch, at, writer, at.seq if opened is not None else begin.seq))
        last += 1
        at = position
        await settle(0 if opened is not None else WINDOW)
    await settle(0)
    return last


def _opened_by(batch: LogBatch) -> str:
    first = decode_batch(batch.body)[0]
    return first.writer if isinstance(first, Opened) else ""


async def salvage(stream: Stream, cluster: Chain, own: Log, keep: Callable[[Message], object]) -> int:
    """Read all that a stream still holds: give each message to `keep`, copy to the own log what is proved to follow it.

    How many batches were copied. Reading ends at the first message that is missing or broken; what comes after is kept
    only.
    """
    bounds = await stream.bounds()
    cursor: Cursor | None = None
    copied = 0
    readable = True
    for seq in range(bounds.first, bounds.last + 1):
        message = await stream.get(seq)
        if message is None:
            readable = False
            continue
        keep(message)
        if not readable:
            continue
        if cursor is None:
            match decode(cluster, message.data):
                case Entry() as entry if entry.kind is not EntryKind.PROBE:  # it stands nowhere
                    cursor = Cursor(seq - 1, entry.before, entry.writer)
                case Entry() | Foreign():
                    continue
                case Damaged():
                    readable = False
                    continue
        match judge(cluster, cursor, message):
            case Broken():
                readable = False
            case Void(_, cursor):
                pass
            case Valid(entry, cursor):
                batch = entry.batch
                if batch is not None and entry.before == own.tail:
                    await append(own, batch)
                    copied += 1
    return copied
