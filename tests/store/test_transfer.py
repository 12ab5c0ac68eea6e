"""Files of a copy on their way: what is listed, what is answered for, and what is believed on arrival."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from truba.errors import DataDamaged, DataUnwritable
from truba.store.transfer import PIECE_BYTES_MAX, Incoming, Manifest, SentFile, describe, read_piece
from truba.types import Position

LOG_ID = b"sixteen bytes id"
AT = Position(3, 70, b"chain of a peer.")


@pytest.fixture
def sent(tmp_path: Path) -> tuple[Path, Manifest]:
    source = tmp_path / "source"
    source.mkdir()
    (source / "CURRENT").write_bytes(b"MANIFEST-000005\n")
    (source / "000004.log").touch()
    (source / "000012.sst").write_bytes(bytes(range(256)) * 5_000)  # more than one piece
    (source / "000099.log").touch()
    return source, describe(source, LOG_ID, AT)


def arriving(tmp_path: Path, manifest: Manifest) -> Incoming:
    (tmp_path / "target").mkdir(exist_ok=True)
    return Incoming(tmp_path / "target", manifest)


def test_files_arrive_as_they_were_sent(tmp_path: Path, sent: tuple[Path, Manifest]) -> None:
    source, manifest = sent
    manifest = Manifest.decode(manifest.encode())
    assert manifest == sent[1]
    assert (manifest.log_id, manifest.applied, manifest.size_bytes) == (LOG_ID, AT, 256 * 5_000 + 16)
    incoming = arriving(tmp_path, manifest)
    pieces = []
    while (wanted := incoming.wanted) is not None:
        pieces.append(wanted)
        incoming.feed(read_piece(source, manifest, *wanted))
    incoming.close()
    assert pieces == [("000012.sst", 0), ("000012.sst", PIECE_BYTES_MAX), ("CURRENT", 0)]
    assert {path.name: path.read_bytes() for path in (tmp_path / "target").iterdir()} == {
        path.name: path.read_bytes() for path in source.iterdir()
    }
    assert all(path.stat().st_mode & 0o777 == 0o600 for path in (tmp_path / "target").iterdir())
    with pytest.raises(DataDamaged, match="after its end"):
        incoming.feed(b"x")


def test_a_file_that_is_not_what_was_sent(tmp_path: Path, sent: tuple[Path, Manifest]) -> None:
    source, manifest = sent
    incoming = arriving(tmp_path, manifest)
    data = bytearray(source.joinpath("000012.sst").read_bytes())
    data[777] ^= 1
    incoming.feed(bytes(data[:-1]))
    with pytest.raises(DataDamaged, match=r"000012\.sst arrived, but is not what was sent"):
        incoming.feed(bytes(data[-1:]))
    assert incoming.wanted is not None
    incoming.close()


def test_an_empty_file_has_a_hash_too(tmp_path: Path) -> None:
    with pytest.raises(DataDamaged, match="its hash differs"):
        arriving(tmp_path, Manifest(LOG_ID, *AT, (SentFile("CURRENT", 0, bytes(32)),)))


def test_more_than_was_said(tmp_path: Path, sent: tuple[Path, Manifest]) -> None:
    incoming = arriving(tmp_path, sent[1])
    with pytest.raises(DataDamaged, match="has 1280000 bytes, but more arrived"):
        incoming.feed(bytes(1_280_001))
    incoming.close()


def test_no_room(tmp_path: Path) -> None:
    with pytest.raises(DataUnwritable, match="make room"):
        arriving(tmp_path, Manifest(LOG_ID, *AT, (SentFile("000012.sst", 1 << 60, bytes(32)),)))


@pytest.mark.parametrize(("name", "offset"), [("../secret", 0), ("LOCK", 0), ("CURRENT", 16), ("CURRENT", -1)])
def test_only_what_is_listed_is_read(sent: tuple[Path, Manifest], name: str, offset: int) -> None:
    source, manifest = sent
    (source.parent / "secret").write_bytes(b"secret")
    (source / "LOCK").write_bytes(b"x")
    with pytest.raises(KeyError):
        read_piece(source, manifest, name, offset)


@pytest.mark.parametrize("name", ["", "..", "a/b", "/etc/passwd", ".hidden", "a\n", "a" * 101, "ä", "a\0"])
def test_names_that_no_copy_has(name: str) -> None:
    with pytest.raises(DataDamaged, match="cannot have a file named"):
        Manifest.decode(Manifest(LOG_ID, *AT, (SentFile(name, 1, bytes(32)),)).encode())


@pytest.mark.parametrize(
    "fields",
    [
        (LOG_ID[:15], *AT, []),
        (LOG_ID, 3, -1, AT.chain, []),
        (LOG_ID, 3, 70, b"short", []),
        (LOG_ID, *AT, [("CURRENT", -1, bytes(32))]),
        (LOG_ID, *AT, [("CURRENT", 1, bytes(31))]),
        (LOG_ID, *AT, [("CURRENT", 1, bytes(32))] * 2),
        (LOG_ID, *AT, [(f"{n}.sst", 1, bytes(32)) for n in range(100_001)]),
        (LOG_ID,),
        "nothing",
    ],
)
def test_lists_that_are_not_believed(fields: object) -> None:
    with pytest.raises(DataDamaged, match="the list of a checkpoint's files"):
        Manifest.decode(msgspec.msgpack.encode(fields))


@given(st.binary(max_size=200))
def test_no_bytes_are_more_than_refused(data: bytes) -> None:
    with suppress(DataDamaged):
        Manifest.decode(data)
