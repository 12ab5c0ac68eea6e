"""Entries as bytes: nothing but what was written is ever read, and the layout stays what it is."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.cluster.world import CLUSTER
from truba.cluster.entry import Damaged, Entry, EntryKind, Foreign, decode, encode, of_batch, without_events
from truba.codec.chain import Chain
from truba.ports.log import LogBatch
from truba.types import Position

LINKS = Chain(CLUSTER)
U63 = st.integers(0, 2**63 - 1)
positions = st.builds(Position, st.integers(0, 2**32), st.integers(0, 2**62), st.binary(min_size=16, max_size=16))
writers = st.text(max_size=16)


@st.composite
def entries(draw: st.DrawFn) -> Entry:
    before, writer = draw(positions), draw(writers)
    if draw(st.booleans()):
        term = before.term + draw(st.integers(0, 1))
        body = draw(st.binary(max_size=200))
        batch = LogBatch(term, before.seq + 1, draw(st.integers(1, 2**32 - 1)), body)
        return of_batch(LINKS, batch, before, writer, draw(U63))
    kind = draw(st.sampled_from([EntryKind.BASE, EntryKind.BEAT, EntryKind.RESIGN, EntryKind.PROBE]))
    return without_events(kind, before, writer, draw(U63), draw(st.binary(max_size=64)))


@given(entries())
def test_what_is_written_is_read(entry: Entry) -> None:
    assert decode(LINKS, encode(LINKS, entry)) == entry


@given(entries())
def test_another_cluster_reads_nothing(entry: Entry) -> None:
    assert isinstance(decode(Chain(bytes(16)), encode(LINKS, entry)), Foreign)


@given(entries(), st.data())
def test_a_flipped_bit_or_a_cut_is_never_another_entry(entry: Entry, data: st.DataObject) -> None:
    whole = encode(LINKS, entry)
    bit = data.draw(st.integers(0, len(whole) * 8 - 1))
    flipped = bytearray(whole)
    flipped[bit // 8] ^= 1 << bit % 8
    assert isinstance(decode(LINKS, bytes(flipped)), Damaged)
    cut = data.draw(st.integers(0, len(whole) - 1))
    assert isinstance(decode(LINKS, whole[:cut]), Damaged | Foreign)
    assert isinstance(decode(LINKS, whole + b"\0"), Damaged | Foreign)


@pytest.mark.parametrize("kind", [EntryKind.OPEN, EntryKind.BEAT])
def test_every_byte_counts(kind: EntryKind) -> None:
    position = Position(3, 9, bytes(range(16)))
    if kind is EntryKind.OPEN:
        entry = of_batch(LINKS, LogBatch(4, 10, 2, b"the events"), position, "node", 9)
    else:
        entry = without_events(kind, position, "node", 9)
    whole = encode(LINKS, entry)
    for at in range(len(whole)):
        for value in (whole[at] ^ 1, whole[at] ^ 0x80):
            changed = whole[:at] + bytes([value]) + whole[at + 1 :]
            assert isinstance(decode(LINKS, changed), Damaged), at


def test_the_layout_is_what_it_was() -> None:
    """Nodes of two versions read each other's entries: a change here is a new version."""
    entry = of_batch(LINKS, LogBatch(4, 10, 2, b"body"), Position(3, 9, bytes(range(16))), "ab", 8)
    assert encode(LINKS, entry).hex() == "".join(GOLDEN)


GOLDEN = (
    "5452424501010200020000004995b8b3",
    "000102030405060708090a0b0c0d0e0f",
    "04000000000000000a00000000000000",
    "08000000000000000300000000000000",
    "000102030405060708090a0b0c0d0e0f",
    "f9139d8dc0adeec9be90d7db0da02797",
    "6162626f6479",
)
