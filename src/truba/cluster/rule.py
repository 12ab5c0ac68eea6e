"""The one rule by which every reader judges every message. Pure.

    OPEN              valid if its term is higher than the log's and it extends the chain
    BATCH             valid if term and writer are the current ones and it extends the chain
    BEAT  RESIGN      valid if term and writer are the current ones and it stands at the log's position
    BASE              valid if it stands at the log's position (the first message of a stream)
    everything else   void: skipped and counted

So a leader that was replaced, and a message that was lost and arrives after all, change nothing. All readers see the
same messages in the same order and therefore agree, unless the stream shows them different ones. The rule tells that
too: some messages cannot be there unless this reader, or whoever wrote them, was shown less than there was. They are
*broken*, and whoever reads one may neither go on nor lead:

* a jump in the stream's numbers, or an entry whose bytes are not what was written;
* an OPEN that does not extend the chain. Its writer had judged every message before it, for the stream took it at
  exactly that place;
* an entry of this term or a later one whose writer was sure of events that this reader has not seen, or a batch of a
  later term whose OPEN this reader has not seen.
"""

from __future__ import annotations

from typing import NamedTuple, assert_never

from truba.cluster.entry import Damaged, Entry, EntryKind, Foreign, decode
from truba.codec.chain import Chain
from truba.ports.stream import Message
from truba.types import ORIGIN, Position


class Cursor(NamedTuple):
    """How far a reader has come: message `stream_seq` was judged, the log is at `position`, `writer` leads.

    `entry_seq`: the message of the last valid entry with events, the one that led to that position; 0: none was read.
    """

    stream_seq: int = 0
    position: Position = ORIGIN
    writer: str = ""
    entry_seq: int = 0


class Valid(NamedTuple):
    entry: Entry
    cursor: Cursor


class Void(NamedTuple):
    reason: str
    cursor: Cursor
    alive: bool  # somebody with a right to lead, once, has written it: not the time to take over


class Broken(NamedTuple):
    reason: str


Verdict = Valid | Void | Broken


def judge(cluster: Chain, cursor: Cursor, message: Message) -> Verdict:
    """What the next message of the stream is to a reader that has come to `cursor`."""
    seq = message.seq
    if seq != cursor.stream_seq + 1:
        return Broken(f"message {cursor.stream_seq + 1} of the stream is missing: the next one is {seq}")
    entry = decode(cluster, message.data)
    match entry:
        case Foreign():
            return Void(entry.reason, cursor._replace(stream_seq=seq), alive=False)
        case Damaged():
            return Broken(f"message {seq} of the stream is damaged: {entry.reason}")
        case Entry():
            return _judge_entry(cursor, seq, entry)
        case _:
            assert_never(entry)


def is_there(cluster: Chain, cursor: Cursor, message: Message | None) -> bool | None:
    """Is `message`, read again with the number `entry_seq`, what led a reader to `cursor`? None: it cannot be told now.

    False: the stream went back. What it lost was acknowledged, perhaps; something else has got the number since, as
    nodes that notice must publish a PROBE to be sure, and foreign messages may come; whoever does not look goes on
    behind it as if nothing were missing.
    """
    entry = None if message is None else decode(cluster, message.data)
    match entry:
        case None | Damaged():
            return None
        case Foreign():
            return False
        case Entry():
            return entry.events > 0 and entry.position == cursor.position
        case _:
            assert_never(entry)


def _judge_entry(cursor: Cursor, seq: int, entry: Entry) -> Verdict:
    position = cursor.position
    kind = entry.kind
    extends = entry.before == position
    current = entry.term == position.term and entry.writer == cursor.writer
    match kind:
        case EntryKind.OPEN:
            valid = extends and entry.term > position.term
        case EntryKind.BATCH | EntryKind.BEAT | EntryKind.RESIGN:
            valid = extends and current
        case EntryKind.BASE:
            valid = extends
        case EntryKind.PROBE:
            valid = False
        case _:
            assert_never(kind)
    if valid:
        return Valid(entry, Cursor(seq, entry.position, entry.writer, seq if entry.events else cursor.entry_seq))
    what = f"{kind.name} of {entry.writer!r} in term {entry.term} after event {entry.before.term}-{entry.before.seq}"
    here = f"the log is at {position.term}-{position.seq} of {cursor.writer!r}"
    if kind is EntryKind.OPEN:
        return Broken(f"message {seq} of the stream, {what}, does not extend what was read: {here}")
    if entry.term >= position.term and (entry.sure_seq > position.seq or entry.term > position.term):
        return Broken(
            f"message {seq} of the stream, {what}, knows of events through {entry.sure_seq} that were not there: {here}"
        )
    alive = kind is not EntryKind.PROBE and entry.term >= position.term
    return Void(f"{what}: {here}", cursor._replace(stream_seq=seq), alive)
