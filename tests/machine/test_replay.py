"""What a log may not ask of the machine, and what the digest of a state covers."""

from __future__ import annotations

import pytest

from truba.codec.batch import decode_batch, encode_batch
from truba.errors import DataDamaged
from truba.kinds import Kind
from truba.machine.digest import state_digest
from truba.machine.events import Appended, Created, Deleted, Event, Opened, Stored
from truba.machine.machine import Machine
from truba.store.memory import MemoryStore
from truba.types import Cause

KINDS = {7: Kind(7, "transfer", "local:nobody:here")}
OPENED = Opened(0, "a")


def created(*records: bytes, kind: int = 7) -> Created:
    return Created(kind, 1_000, b"", 0, -1, list(records))


def replayed(*batches: tuple[int, list[Event]]) -> Machine:
    machine = Machine(MemoryStore(), KINDS)
    for term, events in batches:
        machine.replay(term, events)
    return machine


def test_a_term_may_stay_or_rise_but_not_fall() -> None:
    machine = replayed((3, [OPENED, created(b"x")]), (3, [Appended(2, [b"y"])]), (5, [OPENED]))
    with pytest.raises(DataDamaged, match="goes back from term 5 to term 4 after event 4"):
        machine.replay(4, [Appended(2, [b"z"])])
    assert machine.records(2) == [b"x", b"y"]


@pytest.mark.parametrize("event", [Appended(9, [b"x"]), Deleted(9), Stored(9, 0, Cause.LOST), Appended(1, [b"x"])])
def test_an_event_of_a_session_that_is_not_there_is_damage(event: Event) -> None:
    with pytest.raises(DataDamaged, match="event 1-3 of the log does not fit the state"):
        replayed((1, [OPENED, created(b"x"), event]))


def test_a_batch_that_does_not_decode_is_damage() -> None:
    whole = encode_batch([OPENED, created(b"x"), Stored(2, 5, Cause.LOST, "why")])
    assert decode_batch(whole) == [OPENED, created(b"x"), Stored(2, 5, Cause.LOST, "why")]
    for end in range(len(whole)):
        with pytest.raises(DataDamaged, match="does not decode"):
            decode_batch(whole[:end])
    for wrong in (b"\x01", whole + b"\x00", encode_batch([OPENED]).replace(b"\x93\x00", b"\x93\x63")):
        with pytest.raises(DataDamaged, match="does not decode"):
            decode_batch(wrong)


STATES = {
    "one": [(1, [OPENED, created(b"x")])],
    "another record": [(1, [OPENED, created(b"y")])],
    "records cut otherwise": [(1, [OPENED, created(b"x", b"")])],
    "another kind": [(1, [OPENED, created(b"x", kind=8)])],
    "stored": [(1, [OPENED, created(b"x"), Stored(2, 5, Cause.LOST)])],
    "stored for another time": [(1, [OPENED, created(b"x"), Stored(2, 6, Cause.LOST)])],
    "stored for another reason": [(1, [OPENED, created(b"x"), Stored(2, 5, Cause.LATE)])],
    "another term": [(2, [OPENED, created(b"x")])],
    "nothing": [(1, [OPENED])],
    "nothing, later": [(1, [OPENED, created(b"x"), Deleted(2)])],
    "nothing, in another term": [(2, [OPENED])],
}


def test_states_that_differ_have_digests_that_differ() -> None:
    digests = {name: state_digest(replayed(*batches)) for name, batches in STATES.items()}
    assert len(set(digests.values())) == len(STATES), digests


def test_a_digest_does_not_depend_on_how_events_were_batched() -> None:
    events: list[Event] = [created(b"x"), Appended(2, [b"y"]), created(b"z"), Deleted(4)]
    apart = replayed((1, [OPENED]), *((1, [event]) for event in events))
    assert state_digest(apart) == state_digest(replayed((1, [OPENED, *events])))
