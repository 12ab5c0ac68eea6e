"""What earlier versions wrote is read as it was meant, byte for byte as they wrote it."""

from __future__ import annotations

import msgspec

from truba.codec.batch import decode_batch, encode_batch
from truba.kinds import Kind
from truba.machine.events import (
    Created,
    Event,
    GraceChanged,
    Opened,
    Parked,
    Paused,
    Repeated,
    Rescheduled,
    Resumed,
    Stored,
)
from truba.machine.history import holds
from truba.machine.machine import Machine
from truba.ports.store import Head, Held, Summary
from truba.store.keys import FORMAT, head_key, meta_value, read_head, read_meta
from truba.store.memory import MemoryStore
from truba.types import Cause, Phase, Position

BEFORE_HISTORY = bytes.fromhex(
    "97"  # seven events
    "9300 05 a161"  # Opened(5, "a")
    "9701 07 cd03e8 c400 00 ff 91c40178"  # Created(7, 1000, b"", 0, -1, [b"x"])
    "9505 02 cd07d0 a46c6f7374 a3776879"  # Stored(2, 2000, LOST, "why")
    "9406 02 c400 00"  # Repeated(2, b"", 0)
    "9407 02 a46c617465 a0"  # Parked(2, LATE, "")
    "9408 02 cd0bb8 cd0bb8"  # Resumed(2, 3000, 3000)
    "9406 02 c400 00"
)


def test_a_log_of_before_the_history() -> None:
    events = decode_batch(BEFORE_HISTORY)
    assert events == [
        Opened(5, "a"), Created(7, 1000, b"", 0, -1, [b"x"]), Stored(2, 2000, Cause.LOST, "why"), Repeated(2, b"", 0),
        Parked(2, Cause.LATE), Resumed(2, 3000, 3000), Repeated(2, b"", 0),
    ]  # fmt: skip
    machine = Machine(MemoryStore(), {7: Kind(7, "transfer", "local:nobody:here")})
    machine.replay(1, events)
    head = machine.get(2)
    assert head is not None
    assert [(held.epoch, held.at_ms, held.ended_ms, held.cause) for held in holds(head)] == [
        (0, 1000, 0, "lost"), (1, 0, 0, "late"), (2, 0, 0, ""),
    ]  # fmt: skip
    assert head.trace == b""


def test_what_is_written_now() -> None:
    """A change here is a change of the format: fields come at the end, with a default, and numbers of events stay."""
    events: list[Event] = [
        Created(7, 1, b"", 0, -1, [], b"t"), Stored(2, 3, Cause.LOST, "", 4), Repeated(2, b"", 0, 5, "h"),
        Parked(2, Cause.LATE, "", 6), Resumed(2, 7, 8), Rescheduled(2, 9, 10), Paused(7, 11, True),
        GraceChanged(2, 12),
    ]  # fmt: skip
    written = [
        "98",
        "9801 07 01 c400 00 ff 90 c40174",
        "9605 02 03 a46c6f7374 a0 04",
        "9606 02 c400 00 05 a168",
        "9507 02 a46c617465 a0 06",
        "9408 02 07 08",
        "9409 02 09 0a",
        "940a 07 0b c3",
        "930b 02 0c",
    ]
    assert encode_batch(events) == bytes.fromhex("".join(written))
    assert decode_batch(encode_batch(events)) == events


def test_a_session_of_a_store_of_before_the_history() -> None:
    fields = (1, 9, 7, "parked", 2, 5, 5, 0, 8, 1, 2, "failed", "why", b"", 0, -1, 0, 0, 1, 3, (0,))
    head = read_head(head_key(9), msgspec.msgpack.encode(fields))
    assert (head.phase, head.chunks, head.trace, head.history) == (Phase.PARKED, (0,), b"", ())
    assert holds(head) == (Held(2, 0, "", 0, "failed", "why"),)
    assert Head.__struct_fields__[:21][-1] == "chunks"


def test_a_summary_without_pauses_is_written_as_before_there_were_any() -> None:
    summary = Summary(Position(1, 9, bytes(16)), {(7, Phase.PARKED): 1})
    before = msgspec.msgpack.encode((FORMAT, (1, 9, bytes(16), [(7, "parked", 1)])))
    assert meta_value(summary) == before
    assert read_meta(before) == summary
    paused = Summary(summary.applied, summary.counts, frozenset({8, 7}))
    assert read_meta(meta_value(paused)) == paused
