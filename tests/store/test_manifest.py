"""The one damage on which RocksDB never returns is ruled out before RocksDB is asked."""

from __future__ import annotations

import zlib
from pathlib import Path
from struct import pack, unpack_from

import pytest

from truba.errors import DataDamaged
from truba.store.manifest import BLOCK_BYTES, endless_record
from truba.store.rocks import RocksStore, inspect_store
from truba.testing.store import commit

ENDLESS = (5, 6, 7, 8, 11)


def record(payload: bytes, kind: int = 1) -> bytes:
    return pack("<IHB", zlib.crc32(payload), len(payload), kind) + payload


def offsets(manifest: bytes) -> list[int]:
    found, at = [], 0
    while at < len(manifest):
        found.append(at)
        at += 7 + int(unpack_from("<H", manifest, at + 4)[0])
    return found


def test_a_sound_manifest_has_none() -> None:
    first = record(b"a" * 1000)
    left = BLOCK_BYTES - len(first) - 7
    parted = record(b"b" * left, 2) + record(b"b" * (BLOCK_BYTES - 7), 3) + record(b"b" * 9, 4)
    assert endless_record(b"") is None
    assert endless_record(first + parted + record(b"c") + bytes(64)) is None


@pytest.mark.parametrize("kind", ENDLESS)
def test_it_is_found_in_whichever_block_it_lies(kind: int) -> None:
    block = record(b"a" * (BLOCK_BYTES - 7 - 3)) + bytes(3)
    for blocks in range(3):
        assert endless_record(block * blocks + record(b"b") + record(b"c", kind)) == blocks * BLOCK_BYTES + 8


def test_a_header_that_is_cut_off_is_no_header() -> None:
    assert endless_record(record(b"a") + record(b"", 5)[:6]) is None


@pytest.mark.parametrize("kind", ENDLESS)
def test_a_store_with_it_is_refused_and_left_as_it_was(kind: int, tmp_path: Path) -> None:
    directory = tmp_path / "store"
    store = RocksStore.open(directory)
    commit(store, 1)
    store.close()
    manifest = next(directory.glob("MANIFEST-*"))
    sound = manifest.read_bytes()
    for at in offsets(sound):
        damaged = bytearray(sound)
        damaged[at + 6] = kind
        manifest.write_bytes(damaged)
        for opened in (RocksStore.open, inspect_store):
            with pytest.raises(DataDamaged, match=f"at offset {at}"):
                opened(directory)
        assert manifest.read_bytes() == damaged
    manifest.write_bytes(sound)
    RocksStore.open(directory).close()
