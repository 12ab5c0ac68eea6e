"""The rule, situation by situation: what each message is to a reader that has come to a certain place."""

from __future__ import annotations

import pytest

from tests.cluster.world import CLUSTER
from truba.cluster.entry import Entry, EntryKind, encode, of_batch, without_events
from truba.cluster.rule import Broken, Cursor, Valid, Void, is_there, judge
from truba.codec.chain import Chain
from truba.ports.stream import Message
from truba.testing.log import batch
from truba.types import ORIGIN, Position

LINKS = Chain(CLUSTER)


def after(entry: Entry, seq: int) -> Cursor:
    return Cursor(seq, entry.position, entry.writer, seq)


BASE = without_events(EntryKind.BASE, ORIGIN, "a")
OPEN_A = of_batch(LINKS, batch(1, term=1), ORIGIN, "a", 0)
ONE = of_batch(LINKS, batch(2, term=1), OPEN_A.position, "a", 1)
TWO = of_batch(LINKS, batch(3, term=1), ONE.position, "a", 2)
TWO_UNSURE = of_batch(LINKS, batch(3, term=1), ONE.position, "a", 1)  # sent behind ONE before that was stored
THREE = of_batch(LINKS, batch(4, term=1), TWO.position, "a", 1)
OPEN_B = of_batch(LINKS, batch(3, term=2), ONE.position, "b", 2)
OPEN_B_EARLY = of_batch(LINKS, batch(2, term=2), OPEN_A.position, "b", 1)
SAME_TERM = of_batch(LINKS, batch(3, term=1, body=b"another"), ONE.position, "b", 2)
WRONG_TERM = of_batch(LINKS, batch(3, term=2), ONE.position, "a", 2)._replace(kind=EntryKind.BATCH)
LATER_TERM = of_batch(LINKS, batch(4, term=2), OPEN_B.position, "b", 2)

HERE = after(ONE, 10)
"""The reader of most cases: in term 1 of a, at event 2, message 10."""

CASES: dict[str, tuple[Cursor, Entry, type[Valid | Void | Broken]]] = {
    "the first message of a stream": (Cursor(), BASE, Valid),
    "the first OPEN": (Cursor(1), OPEN_A, Valid),
    "a batch behind its OPEN": (after(OPEN_A, 2), ONE, Valid),
    "a batch behind a batch": (HERE, TWO, Valid),
    "a batch that was sent before the one before it was sure": (HERE, TWO_UNSURE, Valid),
    "an OPEN of the next term": (HERE, OPEN_B, Valid),
    "a beat at the end": (HERE, without_events(EntryKind.BEAT, ONE.position, "a"), Valid),
    "a leader that resigns": (HERE, without_events(EntryKind.RESIGN, ONE.position, "a", body=b"b"), Valid),
    # Extending is not enough, and neither is leading: each half of "and" by itself.
    "a batch that extends, of another writer in this term": (HERE, SAME_TERM, Void),
    "a batch of the leader, a second time": (after(TWO, 11), ONE, Void),
    "a batch of the leader that came before the one before it": (HERE, THREE, Void),
    "a beat of another writer in this term": (HERE, without_events(EntryKind.BEAT, ONE.position, "b"), Void),
    "a beat of the leader at an earlier place": (
        HERE,
        without_events(EntryKind.BEAT, OPEN_A.position, "a"),
        Void,
    ),
    "a late batch of a leader that was replaced": (after(OPEN_B, 11), TWO, Void),
    "a late batch of it that fits nothing any more": (after(OPEN_B, 11), THREE, Void),
    "a late beat of it": (after(OPEN_B, 11), without_events(EntryKind.BEAT, ONE.position, "a"), Void),
    "a word of it about events that this log never had": (
        after(OPEN_B, 11),
        of_batch(LINKS, batch(9, term=1), Position(1, 8, bytes(16)), "a", 8),
        Void,
    ),
    "a BASE in the middle": (HERE, BASE, Void),
    "a BASE of another node at this place": (HERE, without_events(EntryKind.BASE, ONE.position, "b"), Valid),
    "a PROBE": (HERE, without_events(EntryKind.PROBE, ORIGIN, "b"), Void),
    # What cannot be there.
    "an OPEN that does not extend": (HERE, OPEN_B_EARLY, Broken),
    "an OPEN of this very term": (HERE, of_batch(LINKS, batch(1, term=1), ORIGIN, "b", 0), Broken),
    "an OPEN that raises no term": (HERE, TWO._replace(kind=EntryKind.OPEN), Broken),
    "a batch whose writer knows more than was read": (after(OPEN_A, 2), TWO, Broken),
    "a beat at a place that was not read": (HERE, without_events(EntryKind.BEAT, TWO.position, "a"), Broken),
    "a batch of a term whose OPEN was not read": (HERE, LATER_TERM, Broken),
    "a batch of the leader that extends, in a term that it has not opened": (HERE, WRONG_TERM, Broken),
    "a beat of a term whose OPEN was not read": (
        HERE,
        without_events(EntryKind.BEAT, Position(2, 2, bytes(16)), "b"),
        Broken,
    ),
}


@pytest.mark.parametrize("situation", CASES)
def test_every_situation(situation: str) -> None:
    cursor, entry, expected = CASES[situation]
    verdict = judge(LINKS, cursor, Message(cursor.stream_seq + 1, encode(LINKS, entry)))
    assert isinstance(verdict, expected), verdict
    match verdict:
        case Valid():
            assert verdict.entry == entry
            here = cursor.stream_seq + 1
            entry_seq = here if entry.events else cursor.entry_seq
            assert verdict.cursor == Cursor(here, entry.position, entry.writer, entry_seq)
        case Void():
            assert verdict.cursor == cursor._replace(stream_seq=cursor.stream_seq + 1)  # passed over, and nothing else
            assert verdict.reason
        case Broken():
            assert str(cursor.stream_seq + 1) in verdict.reason


@pytest.mark.parametrize("seq", [1, 10, 12, 100])
def test_a_jump_in_the_numbers_is_broken_whatever_comes(seq: int) -> None:
    assert isinstance(judge(LINKS, HERE, Message(seq, encode(LINKS, TWO))), Broken)


def test_what_is_no_entry_is_void_and_no_sign_of_life() -> None:
    for data in (b"", b"what is this?", bytes(1000), encode(Chain(bytes(16)), TWO)):
        verdict = judge(LINKS, HERE, Message(11, data))
        assert isinstance(verdict, Void)
        assert not verdict.alive


def test_who_shows_life() -> None:
    """Whoever may lead, or think so, keeps others from taking over; those of the past, and who asks only, do not."""
    beat = without_events(EntryKind.BEAT, OPEN_A.position, "a")
    for cursor, entry, alive in (
        (HERE, beat, True),
        (after(OPEN_B, 11), beat, False),
        (HERE, without_events(EntryKind.PROBE, ORIGIN, "c"), False),
    ):
        verdict = judge(LINKS, cursor, Message(cursor.stream_seq + 1, encode(LINKS, entry)))
        assert isinstance(verdict, Void)
        assert verdict.alive is alive


def test_what_was_read_last_is_known_again() -> None:
    beat = without_events(EntryKind.BEAT, ONE.position, "a")
    for entry, there in (
        (ONE, True),
        (beat, False),  # at the same place, and yet not what led there
        (TWO, False),
        (OPEN_A, False),
        (without_events(EntryKind.PROBE, ORIGIN, "a"), False),
    ):
        assert is_there(LINKS, HERE, Message(10, encode(LINKS, entry))) is there
    assert is_there(LINKS, HERE, Message(10, b"what is this?")) is False
    assert is_there(LINKS, HERE, Message(10, encode(LINKS, ONE)[:-1])) is None
    assert is_there(LINKS, HERE, None) is None
