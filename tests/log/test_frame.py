"""The frame: whatever happens to its bytes, it is whole, torn or damaged, and never something else."""

from __future__ import annotations

import struct
from zlib import crc32

import pytest
from hypothesis import given
from hypothesis import strategies as st

from truba.errors import DataNewer
from truba.log.frame import SECTOR, Flaw, Frame, Framing, count_zero_sectors, frame_bytes, is_zero
from truba.ports.log import LogBatch
from truba.types import ORIGIN, Position

LOG_ID = bytes(range(16))
FRAMING = Framing(LOG_ID)

Case = tuple[Position, LogBatch]

bodies = st.one_of(
    st.binary(max_size=1500),
    st.builds(lambda byte, count: bytes([byte]) * count, st.integers(0, 255), st.integers(0, 4000)),
    st.builds(
        lambda a, zeros, b: a + bytes(zeros) + b, st.binary(max_size=600), st.integers(0, 3000), st.binary(max_size=600)
    ),
)


@st.composite
def batches(draw: st.DrawFn) -> Case:
    after = Position(
        draw(st.integers(0, 2**63)), draw(st.integers(0, 2**63)), draw(st.binary(min_size=16, max_size=16))
    )
    term = draw(st.integers(after.term, 2**64 - 1))
    return after, LogBatch(term, after.seq + 1, draw(st.integers(1, 2**32 - 1)), draw(bodies))


def encoded(after: Position, batch: LogBatch, segment: int = 3) -> bytearray:
    return bytearray(b"".join(FRAMING.encode(segment, after, batch).parts))


def decoded(data: bytes | bytearray, after: Position, segment: int = 3, declared: int | None = None) -> Frame | Flaw:
    return FRAMING.decode(memoryview(data), 0, segment, declared or len(data), after)


@given(batches())
def test_what_is_encoded_is_decoded(case: Case) -> None:
    after, batch = case
    frame = FRAMING.encode(3, after, batch)
    data = b"".join(frame.parts)
    assert len(data) == frame.size == frame_bytes(len(batch.body))
    assert len(data) % SECTOR == 0
    assert decoded(data, after) == Frame(0, frame.size, batch, Position(batch.term, batch.last_seq, frame.chain))
    assert FRAMING.chain(after, batch) == frame.chain


@given(batches(), st.data())
def test_unwritten_sectors_show(case: Case, data: st.DataObject) -> None:
    after, batch = case
    frame = encoded(after, batch)
    lost = data.draw(st.sets(st.integers(0, len(frame) // SECTOR - 1), min_size=1))
    torn = bytearray(frame)
    for sector in lost:
        torn[sector * SECTOR : (sector + 1) * SECTOR] = bytes(SECTOR)
    if torn == frame:
        assert isinstance(decoded(torn, after), Frame)  # those sectors were zeros of a record
    else:
        found = decoded(torn, after)
        assert isinstance(found, Flaw)
        assert found.kind == ("end" if 0 in lost else "torn")


@given(batches(), st.data())
def test_a_changed_bit_is_damage_unless_a_sector_becomes_zeros(case: Case, data: st.DataObject) -> None:
    after, batch = case
    frame = encoded(after, batch)
    at = data.draw(st.integers(0, len(frame) - 1))
    frame[at] ^= 1 << data.draw(st.integers(0, 7))
    found = decoded(frame, after)
    assert isinstance(found, Flaw)
    sectors_of_zeros = count_zero_sectors(frame) > count_zero_sectors(encoded(after, batch))
    assert found.kind == ("torn" if sectors_of_zeros else "damaged")


@pytest.mark.parametrize("body_bytes", [0, 1, 407, 408, 409, 500, 920, 2000])
@pytest.mark.parametrize("body_byte", [0, 7])
def test_cut_at_every_byte_it_is_torn(body_bytes: int, body_byte: int) -> None:
    batch = LogBatch(1, 1, 1, bytes([body_byte]) * body_bytes)
    frame = encoded(ORIGIN, batch)
    for cut in range(len(frame)):
        zeroed = decoded(frame[:cut].ljust(len(frame), b"\0"), ORIGIN)
        assert isinstance(zeroed, Flaw)
        assert zeroed.kind == ("end" if cut == 0 else "torn"), cut
        truncated = decoded(frame[:cut], ORIGIN, declared=len(frame))
        assert isinstance(truncated, Flaw)
        assert truncated.kind == ("end" if cut == 0 else "torn"), cut


def test_a_frame_of_another_log_or_segment_is_no_frame_here() -> None:
    batch = LogBatch(1, 1, 1, b"body")
    other = b"".join(Framing(bytes(16)).encode(3, ORIGIN, batch).parts)
    found = decoded(other, ORIGIN)
    assert isinstance(found, Flaw)
    assert found.kind == "damaged"
    for segment in (2, 4):  # recycled, or copied from a later one
        elsewhere = decoded(encoded(ORIGIN, batch, segment=segment), ORIGIN)
        assert isinstance(elsewhere, Flaw)
        assert (elsewhere.kind, elsewhere.reason) == ("damaged", f"the frame was written for segment {segment}")


def test_a_frame_must_follow_the_one_before() -> None:
    batch = LogBatch(2, 5, 1, b"body")
    right = Position(1, 4, b"c" * 16)
    assert isinstance(decoded(encoded(right, batch), right), Frame)
    for wrong in (Position(1, 3, right.chain), Position(2, 4, right.chain), Position(1, 4, b"d" * 16)):
        found = decoded(encoded(right, batch), wrong)
        assert isinstance(found, Flaw)
        assert found.kind == "damaged"


def test_no_length_is_believed() -> None:
    frame = encoded(ORIGIN, LogBatch(1, 1, 1, b"body"))
    frame[8:16] = (0xFFFFFF00).to_bytes(4, "little") + (0xFF).to_bytes(4, "little")
    found = decoded(frame, ORIGIN)
    assert isinstance(found, Flaw)
    assert found.kind == "damaged"


def test_a_newer_frame_says_so() -> None:
    frame = encoded(ORIGIN, LogBatch(1, 1, 1, b"body"))
    frame[4] = 2
    frame[88:92] = struct.pack("<I", crc32(frame[:88], crc32(LOG_ID)))
    with pytest.raises(DataNewer, match="version 2"):
        decoded(frame, ORIGIN)


@given(st.integers(0, 200_000), st.none() | st.integers(0, 199_999))
def test_is_zero(size: int, at: int | None) -> None:
    data = bytearray(size)
    if at is not None and at < size:
        data[at] = 1
    assert is_zero(memoryview(data)) == (not any(data))
