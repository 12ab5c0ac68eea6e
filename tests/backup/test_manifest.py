"""The manifest as a value: what it holds is what was written, or it is refused."""

from __future__ import annotations

import msgspec
import pytest

from truba.backup.manifest import FORMAT, Count, File, Manifest, Place, read_manifest
from truba.errors import DataDamaged, DataNewer
from truba.types import Phase, Position

SOME = Manifest(
    format=FORMAT,
    truba="0.1.0",
    made_ms=1_700_000_000_000,
    host="a",
    data="/var/lib/truba",
    log_id="00" * 16,
    at=Place.of(Position(3, 117, bytes(range(16)))),
    store=Place(3, 100, "0f" * 16),
    digest="ab" * 32,
    counts=[Count(7, Phase.ACTIVE, 2), Count(7, Phase.PARKED, 1)],
    files=[File("store/CURRENT", 16, "cd" * 32), File("log/segment-0000000001.log", 512, "ef" * 32)],
)


def test_it_comes_back_as_it_was() -> None:
    back = read_manifest(SOME.encode(), "here")
    assert back == SOME
    assert back.at.position == Position(3, 117, bytes(range(16)))
    assert (back.sessions, back.bytes) == (3, 528)


def test_any_flipped_bit_is_noticed() -> None:
    text = SOME.encode()
    for at in range(len(text)):
        for bit in range(8):
            with pytest.raises(DataDamaged, match="is not what was written"):
                read_manifest(text[:at] + bytes([text[at] ^ 1 << bit]) + text[at + 1 :], "MANIFEST")


def test_any_cut_is_noticed() -> None:
    text = SOME.encode()
    for end in range(len(text)):
        with pytest.raises(DataDamaged):
            read_manifest(text[:end], "MANIFEST")
    with pytest.raises(DataDamaged):
        read_manifest(text + b"\n", "MANIFEST")


def test_a_newer_one_is_told_as_such() -> None:
    newer = msgspec.structs.replace(SOME, format=FORMAT + 1)
    with pytest.raises(DataNewer, match="use a newer truba"):
        read_manifest(newer.encode(), "MANIFEST")
