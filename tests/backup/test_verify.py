"""A backup is what it says: made of a stopped pipe, judged byte by byte."""

from __future__ import annotations

import os
import shutil
import socket
import stat
import tempfile
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest
from click.testing import CliRunner

from tests.backup.sample import Sample, backed_up, kinds, sample
from truba.backup.manifest import NAME, UNFINISHED, Manifest
from truba.backup.marks import refuse_unfit
from truba.backup.restore import restore
from truba.backup.stopped import back_up
from truba.backup.verify import manifest_of, verify
from truba.cli.main import main
from truba.compose import build
from truba.errors import DataDamaged, DataForeign, DataLocked, DataUnwritable
from truba.log import inspect
from truba.types import Phase


@pytest.fixture
async def source(tmp_path: Path) -> Sample:
    return await sample(tmp_path / "data")


def tree(directory: Path) -> dict[str, bytes]:
    return {
        path.relative_to(directory).as_posix(): path.read_bytes()
        for path in sorted(directory.rglob("*"))
        if path.is_file()
    }


async def test_it_holds_the_state_through_the_named_index(source: Sample, tmp_path: Path) -> None:
    manifest = backed_up(source, tmp_path / "backup")
    assert manifest.digest == source.digest
    assert manifest.at.position == inspect.verify(source.data / "log").tail
    assert 0 < manifest.store.seq < manifest.at.seq  # part of it is in the store, part in the log alone
    assert {(count.kind, count.phase) for count in manifest.counts} >= {(7, Phase.ACTIVE), (8, Phase.STORED)}
    verdict = verify(tmp_path / "backup")
    assert verdict.sound
    assert verdict.paused == {8}
    assert verdict.manifest == manifest == manifest_of(tmp_path / "backup")


async def test_nothing_is_shared_with_the_original_and_nothing_is_readable_by_others(
    source: Sample, tmp_path: Path
) -> None:
    backed_up(source, tmp_path / "backup")
    for path in (tmp_path / "backup").rglob("*"):
        assert stat.S_IMODE(path.stat().st_mode) == (0o700 if path.is_dir() else 0o600), path
        assert path.is_dir() or path.stat().st_nlink == 1
    assert stat.S_IMODE((tmp_path / "backup").stat().st_mode) == 0o700


async def test_verifying_changes_nothing(source: Sample, tmp_path: Path) -> None:
    backed_up(source, tmp_path / "backup")
    before = tree(tmp_path / "backup")
    times = {path: path.stat().st_mtime_ns for path in (tmp_path / "backup").rglob("*")}
    assert verify(tmp_path / "backup").sound
    assert tree(tmp_path / "backup") == before
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "backup").rglob("*")} == times


async def test_every_flipped_byte_of_every_file_is_noticed(tmp_path: Path) -> None:
    source = await sample(tmp_path / "data", sessions=2)
    backed_up(source, tmp_path / "backup")
    rooms = set()
    for path in sorted(path for path in (tmp_path / "backup").rglob("*") if path.is_file()):
        rooms.add(path.relative_to(tmp_path / "backup").parts[0])
        whole = path.read_bytes()
        with path.open("r+b", buffering=0) as file:
            for at in range(len(whole)):
                os.pwrite(file.fileno(), bytes([whole[at] ^ 1 << at % 8]), at)
                assert _noticed(tmp_path / "backup"), f"{path}, byte {at}"
                os.pwrite(file.fileno(), whole[at : at + 1], at)
    assert rooms == {NAME, "log", "store"}
    assert verify(tmp_path / "backup").sound


def _noticed(backup: Path) -> bool:
    try:
        return not verify(backup).sound
    except DataDamaged:
        return True


async def test_a_missing_a_foreign_and_a_short_file_are_named(source: Sample, tmp_path: Path) -> None:
    backup = tmp_path / "backup"
    backed_up(source, backup)
    table = next((backup / "store").glob("*.sst"))
    (backup / "store" / "x.sst").write_bytes(b"")
    segment = backup / "log" / "segment-0000000001.log"
    segment.write_bytes(segment.read_bytes()[:-512])
    table.unlink()
    problems = verify(backup).problems
    assert [problem.partition(":")[0] for problem in problems] == [
        "store/x.sst",
        "log/segment-0000000001.log",
        f"store/{table.name}",
    ]


def _link(path: Path) -> None:
    path.symlink_to(path.parent / "elsewhere")


def _socket(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as bound:
        bound.bind(str(path))


@pytest.mark.timeout(30)  # to open a FIFO takes until somebody else does
@pytest.mark.parametrize("make", [os.mkfifo, _socket, _link])
@pytest.mark.parametrize("name", [NAME, "store/CURRENT", "log/segment-0000000001.log"])
async def test_a_backup_is_of_regular_files_and_nothing_else_is_opened(
    name: str, make: Callable[[Path], None], source: Sample, tmp_path: Path
) -> None:
    backup = tmp_path / "b"
    backed_up(source, backup)
    path = backup / name
    path.rename(path.parent / "elsewhere")
    make(path)
    if name == NAME:
        with pytest.raises(DataForeign, match="no backup: MANIFEST in it is no regular file"):
            verify(backup)
    else:
        elsewhere, problem = verify(backup).problems
        assert elsewhere.endswith("/elsewhere: the backup did not have it")
        assert problem.startswith(f"{name}: it is no regular file")
    with pytest.raises((DataForeign, DataDamaged), match="no regular file"):
        restore(backup, tmp_path / "new")
    assert not (tmp_path / "new").exists()


async def test_a_link_to_a_directory_is_none(source: Sample, tmp_path: Path) -> None:
    backed_up(source, tmp_path / "backup")
    (tmp_path / "backup" / "log").rename(tmp_path / "log")
    (tmp_path / "backup" / "log").symlink_to(tmp_path / "log")
    assert [problem.partition(":")[0] for problem in verify(tmp_path / "backup").problems] == [
        "log",
        "log/segment-0000000001.log",
    ]
    (tmp_path / "latest").symlink_to(tmp_path / "again")  # the whole of one may be reached by a link
    backed_up(source, tmp_path / "again")
    assert verify(tmp_path / "latest").sound


@pytest.mark.parametrize("where", ["missing", "full"])
async def test_want_of_a_place_to_look_from_is_no_verdict(
    where: str, source: Sample, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else a sound backup would be given up for an older one."""
    backed_up(source, tmp_path / "backup")
    if where == "missing":
        monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "nowhere"))
    else:

        def full(*_args: object, **_options: object) -> None:
            raise Exception("IO error: No space left on device: While appending to file")

        monkeypatch.setattr("truba.store.rocks_setup.Rdict", full)
    with pytest.raises(DataUnwritable, match=r"cannot be looked at: .*No (space|such).* TMPDIR"):
        verify(tmp_path / "backup")
    with pytest.raises(DataUnwritable, match="cannot be looked at"):
        restore(tmp_path / "backup", tmp_path / "restored")
    assert not (tmp_path / "restored").exists()
    result = CliRunner().invoke(main, ["backup", "verify", str(tmp_path / "backup")])
    assert (result.exit_code, "older" in result.output) == (7, False)


async def test_whole_files_of_another_state_are_noticed(source: Sample, tmp_path: Path) -> None:
    """If whoever wrote the manifest was wrong, the state says so."""
    backup = tmp_path / "backup"
    manifest = backed_up(source, backup)
    changes: dict[str, dict[str, object]] = {
        "not the one": {"digest": "0" * 64},
        "other sessions": {"counts": manifest.counts[1:]},
        "the store holds": {"store": manifest.at},
        "does not lead": {"at": _elsewhere(manifest)},
    }
    for told, change in changes.items():
        fields = {name: getattr(manifest, name) for name in manifest.__struct_fields__}
        (backup / NAME).write_bytes(Manifest(**(fields | change)).encode())
        problems = verify(backup).problems
        assert any(told in problem for problem in problems), (told, problems)


def _elsewhere(manifest: Manifest) -> object:
    return msgspec.structs.replace(manifest.at, chain="00" * 16)


def test_no_backup_and_an_unfinished_one_are_told_apart(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        verify(tmp_path / "nothing")
    (tmp_path / "other").mkdir()
    with pytest.raises(DataForeign, match="is no backup"):
        verify(tmp_path / "other")
    (tmp_path / "other" / UNFINISHED).touch()
    with pytest.raises(DataForeign, match="unfinished backup"):
        verify(tmp_path / "other")


async def test_a_target_that_holds_something_is_refused(source: Sample, tmp_path: Path) -> None:
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "letter").write_text("dear")
    (tmp_path / "file").write_text("x")
    with pytest.raises(DataForeign, match="not empty"):
        backed_up(source, tmp_path / "full")
    with pytest.raises(DataForeign, match="not empty"):
        backed_up(source, tmp_path / "file")
    assert tree(tmp_path / "full") == {"letter": b"dear"}
    (tmp_path / "empty").mkdir()
    backed_up(source, tmp_path / "empty")
    with pytest.raises(DataForeign, match="not empty"):
        backed_up(source, tmp_path / "empty")


async def test_inside_a_backup_or_its_own_data_is_no_place(source: Sample, tmp_path: Path) -> None:
    """However it is made, finished or not: what is put there would spoil what is there."""
    backed_up(source, tmp_path / "backup")
    (tmp_path / "unfinished").mkdir()
    (tmp_path / "unfinished" / UNFINISHED).touch()
    (tmp_path / "link").symlink_to(tmp_path / "backup" / "store")
    for inside in ("backup/in", "backup/deep/er", "link/in", "unfinished/in"):
        with pytest.raises(DataForeign, match="is a backup, and"):
            backed_up(source, tmp_path / inside)
        with pytest.raises(DataForeign, match="is a backup, and"):
            restore(tmp_path / "backup", tmp_path / inside)
    for inside in ("", "new", "log/new", "backing-up"):
        with pytest.raises(DataForeign, match="the pipe's own, and no place for backups"):
            backed_up(source, source.data / inside)
    assert verify(tmp_path / "backup").sound
    (tmp_path / NAME).touch()  # whatever that is, it is no backup
    backed_up(source, tmp_path / "beside")


async def test_a_pipe_that_runs_is_not_copied_from_outside(tmp_path: Path) -> None:
    parts = build(tmp_path / "data", kinds())
    await parts.node.start()
    try:
        with pytest.raises(DataLocked):
            back_up(tmp_path / "data", tmp_path / "backup", print)
    finally:
        await parts.close()
    assert not (tmp_path / "backup").exists()


async def test_no_pipe_starts_on_a_backup(source: Sample, tmp_path: Path) -> None:
    backup = tmp_path / "backup"
    backed_up(source, backup)
    before = tree(backup)
    with pytest.raises(DataForeign, match="is a backup, and no data directory"):
        build(backup, kinds())
    assert tree(backup) == before
    (backup / NAME).rename(backup / UNFINISHED)
    with pytest.raises(DataForeign, match="is a backup"):
        build(backup, kinds())
    refuse_unfit(source.data)


@pytest.mark.parametrize("room", ["log", "store"])
async def test_damage_of_the_original_is_found_while_it_is_copied(room: str, source: Sample, tmp_path: Path) -> None:
    pattern = "segment-*1.log" if room == "log" else "*.sst"
    path = next((source.data / room).glob(pattern))
    data = bytearray(path.read_bytes())
    data[700 if room == "log" else 30] ^= 1
    path.write_bytes(data)
    with pytest.raises(DataDamaged):
        backed_up(source, tmp_path / "backup")
    assert not (tmp_path / "backup").exists()


async def test_a_torn_tail_is_left_out(source: Sample, tmp_path: Path) -> None:
    segment = source.data / "log" / "segment-0000000001.log"
    tail = inspect.verify(source.data / "log").tail
    end = max(line.offset + line.size for line in inspect.frames(source.data / "log"))
    with segment.open("r+b") as file:
        file.seek(end)
        file.write(b"TR")
    assert inspect.verify(source.data / "log").torn is not None
    assert backed_up(source, tmp_path / "backup").at.position == tail
    assert verify(tmp_path / "backup").sound


async def test_a_pipe_that_has_never_taken_a_checkpoint(tmp_path: Path) -> None:
    source = await sample(tmp_path / "data", checkpoint=False)
    manifest = backed_up(source, tmp_path / "backup")
    assert manifest.store.seq == 0
    assert manifest.digest == source.digest


async def test_a_store_without_its_log_is_no_pipe(source: Sample, tmp_path: Path) -> None:
    shutil.rmtree(source.data / "log")
    with pytest.raises(DataForeign, match="no log and store"):
        backed_up(source, tmp_path / "backup")
    with pytest.raises(FileNotFoundError):
        back_up(tmp_path / "nothing", tmp_path / "backup", print)


async def test_a_disk_that_has_no_room_is_told_before_it_is_full(
    source: Sample, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda path: type("usage", (), {"free": 100})())
    (tmp_path / "there").mkdir()
    for target in ("new", "there"):
        with pytest.raises(DataUnwritable, match="100 bytes free"):
            backed_up(source, tmp_path / target)
    assert not (tmp_path / "new").exists()
    assert tree(tmp_path / "there") == {}
