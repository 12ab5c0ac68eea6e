"""A pipe of a backup: the same sessions, nobody's, and nothing is given out twice."""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import BinaryIO

import pytest
from click.testing import CliRunner

from tests.backup.sample import TOKEN, Sample, backed_up, digest_of, kinds, sample
from tests.backup.sample import opened as small
from tests.service.process import environment
from truba import clock
from truba.backup import restore as restoring
from truba.backup.manifest import NAME, RESTORING, UNFINISHED
from truba.backup.restore import restore
from truba.backup.verify import verify
from truba.cli.main import main
from truba.compose import Parts, build
from truba.errors import ConfigError, DataDamaged, DataForeign, DataLocked, DataUnwritable
from truba.log import inspect
from truba.ports.store import Head
from truba.store.rocks import RocksStore, inspect_store
from truba.types import Cause, Index, Phase


@pytest.fixture
async def source(tmp_path: Path) -> Sample:
    return await sample(tmp_path / "data")


@pytest.fixture
async def backup(source: Sample, tmp_path: Path) -> Path:
    backed_up(source, tmp_path / "backup")
    return tmp_path / "backup"


def heads_of(parts: Parts) -> dict[Index, Head]:
    return {head.id: head for head in parts.node.machine.scan()}


async def opened(data: Path, start: bool = True) -> Parts:
    parts = small(data)
    if start:
        await parts.node.start()
    return parts


WHOSE = ("epoch", "owner", "grace_ms", "tag", "chunks")
"""What a restore changes of a session, and how its records are cut, which nobody sees."""


def plain(head: Head) -> dict[str, object]:
    return {name: getattr(head, name) for name in head.__struct_fields__ if name not in WHOSE}


async def test_the_sessions_are_those_of_the_named_index(source: Sample, backup: Path, tmp_path: Path) -> None:
    restored = restore(backup, tmp_path / "new")
    old, new = await opened(source.data, start=False), await opened(tmp_path / "new", start=False)
    try:
        before, after = heads_of(old), heads_of(new)
        assert {index: plain(head) for index, head in before.items()} == {i: plain(h) for i, h in after.items()}
        for head in before.values():
            assert new.node.machine.records(head.number) == old.node.machine.records(head.number)
        assert new.node.machine.paused == old.node.machine.paused == {8}
        assert new.node.machine.counts == old.node.machine.counts
        assert restored.disowned == len(old.node.machine.owned) == len(source.active)
        assert restored.manifest.digest == source.digest
        assert (new.node.machine.term, new.node.machine.seq) == restored.at
        assert restored.at.seq == old.node.machine.seq + 1
        assert {kind: new.store.due(kind, None, 100) for kind in (7, 8)} == {
            kind: old.store.due(kind, None, 100) for kind in (7, 8)
        }
    finally:
        old.release()
        new.release()
    assert verify(backup).sound


async def test_g3_no_owner_of_before_is_believed(source: Sample, backup: Path, tmp_path: Path) -> None:
    old = await opened(source.data)  # there the owner may come back
    assert {str(row[0]) for row in old.node.presence.name_owner(old.node.presence.attach(), TOKEN, 60_000)} == set(
        source.active
    )
    await old.close()
    restore(backup, tmp_path / "new")
    parts = await opened(tmp_path / "new")
    try:
        assert parts.node.presence.name_owner(parts.node.presence.attach(), TOKEN, 60_000) == []
        heads = {str(index): head for index, head in heads_of(parts).items()}
        assert {heads[index].phase for index in source.active} == {Phase.STORED}
        assert {heads[index].cause for index in source.active} == {Cause.RESTART}
    finally:
        await parts.close()


async def test_nothing_is_given_out_twice(source: Sample, backup: Path, tmp_path: Path) -> None:
    """Neither ids nor epochs: not those that the pipe gave after the backup, nor those of another restore of it."""
    ids: list[Index] = []
    epochs: list[int] = []
    for at, data in enumerate((source.data, tmp_path / "first", tmp_path / "second")):
        if at:
            restore(backup, data)
        for _ in range(2):
            parts = await opened(data)
            ids.append(parts.node.new(parts.node.presence.attach(), 7, [b"new"]).id)
            await parts.node.sequencer.flush()
            await parts.close()
        if at:
            parts = await opened(data, start=False)
            epochs.append(min(head.epoch for head in heads_of(parts).values() if head.id not in ids))
            parts.release()
    assert len(set(ids)) == len(ids)
    assert ids[2] > max(ids[:2])
    assert ids[-1] > max(ids[:-2])
    assert 1_000_000_000_000 < epochs[0] < epochs[1]


async def _closed(data: Path) -> Parts:
    parts = await opened(data, start=False)
    parts.release()
    return parts


async def test_a_second_restore_is_above_the_first(
    backup: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = restore(backup, tmp_path / "first")
    now_ms = clock.SystemClock().now_ms()
    monkeypatch.setattr(clock.SystemClock, "now_ms", lambda self: now_ms + 60_000)
    assert restore(backup, tmp_path / "second").at > first.at


async def test_it_is_a_log_of_its_own(source: Sample, backup: Path, tmp_path: Path) -> None:
    """No segment of the old one fits to it."""
    restore(backup, tmp_path / "new")
    old, new = inspect.verify(source.data / "log"), inspect.verify(tmp_path / "new" / "log")
    assert new.log_id != old.log_id
    assert new.tail == inspect_store(tmp_path / "new" / "store").applied
    shutil.copy(source.data / "log" / "segment-0000000001.log", tmp_path / "new" / "log" / "segment-0000000002.log")
    with pytest.raises((DataForeign, DataDamaged)):
        small(tmp_path / "new")


async def test_a_restored_pipe_lives_on_and_can_be_backed_up(backup: Path, tmp_path: Path) -> None:
    restore(backup, tmp_path / "new")
    parts = await opened(tmp_path / "new")
    hold = parts.node.new(parts.node.presence.attach(), 8, [b"after"])
    await parts.node.checkpoint()
    await parts.close()
    digest = digest_of(tmp_path / "new")
    again = Sample(tmp_path / "new", digest, ())
    assert backed_up(again, tmp_path / "again").digest == digest
    second = restore(tmp_path / "again", tmp_path / "newer")
    assert second.at > hold.id
    await _closed(tmp_path / "newer")


async def test_many_sessions_are_rewritten_group_by_group(
    backup: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(restoring, "GROUP_SESSIONS", 2)
    restore(backup, tmp_path / "new")
    parts = await _closed(tmp_path / "new")
    store = RocksStore.open(tmp_path / "new" / "store")
    heads = list(store.scan(-1))
    store.close()
    assert len(heads) == sum(parts.node.machine.counts.values()) > 4
    assert {head.epoch for head in heads} == {parts.node.machine.term}
    assert {head.owner for head in heads} == {b""}


async def test_a_damaged_backup_makes_nothing(backup: Path, tmp_path: Path) -> None:
    table = next((backup / "store").glob("*.sst"))
    data = bytearray(table.read_bytes())
    data[40] ^= 1
    table.write_bytes(data)
    with pytest.raises(DataDamaged, match="Take an older one"):
        restore(backup, tmp_path / "new")
    assert not (tmp_path / "new").exists()


async def test_a_target_that_holds_something_is_refused(source: Sample, backup: Path, tmp_path: Path) -> None:
    before = digest_of(source.data)
    with pytest.raises(DataForeign, match="not empty"):
        restore(backup, source.data)
    assert digest_of(source.data) == before
    (tmp_path / "empty").mkdir()
    restore(backup, tmp_path / "empty")
    await _closed(tmp_path / "empty")


async def test_an_unfinished_backup_is_refused(backup: Path, tmp_path: Path) -> None:
    (backup / NAME).rename(backup / UNFINISHED)
    with pytest.raises(DataForeign, match="unfinished"):
        restore(backup, tmp_path / "new")


async def test_a_clock_before_the_backup_is_refused(
    backup: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(clock.SystemClock, "now_ms", lambda self: 1_000)
    with pytest.raises(DataUnwritable, match="set the clock"):
        restore(backup, tmp_path / "new")
    assert not (tmp_path / "new").exists()


async def test_a_kind_that_is_missing_is_refused_as_ever(backup: Path, tmp_path: Path) -> None:
    restore(backup, tmp_path / "new")
    with pytest.raises(ConfigError, match="kind 8"):
        build(tmp_path / "new", kinds()[:1])


def doomed(act: str, source: Path, directory: Path) -> list[Path]:
    """What each killed try has left; the one after them all was not killed."""
    directory.mkdir()
    command = [sys.executable, "-m", "tests.backup.doomed", act, str(source), str(directory)]
    done = subprocess.run(command, env=environment(), capture_output=True, text=True, timeout=100, check=False)
    assert done.returncode == 0, done.stderr
    return [directory / str(at) for at in range(1, int(done.stdout))]


async def test_killed_at_any_step_a_restore_is_no_data_directory(backup: Path, tmp_path: Path) -> None:
    targets = doomed("restore", backup, tmp_path / "tries")
    assert len(targets) > 30
    finished = 0
    for at, target in enumerate(targets):
        if (target / RESTORING).exists():
            with pytest.raises(DataForeign, match="run that again"):
                small(target)
            if at % 4:  # the others would take too long
                continue
            restore(backup, target)
        elif target.exists() and any(target.iterdir()):
            finished += 1  # only the last sync was missing
        else:
            continue
        await _closed(target)
    assert 1 <= finished <= 2


async def test_killed_at_any_step_a_backup_is_unfinished(source: Sample, tmp_path: Path) -> None:
    targets = doomed("make", source.data, tmp_path / "tries")
    assert len(targets) > 20
    finished = 0
    for target in targets:
        if (target / NAME).exists():
            assert verify(target).sound
            finished += 1
        elif target.exists():
            with pytest.raises(DataForeign, match="unfinished backup" if any(target.iterdir()) else "is no backup"):
                verify(target)
    assert 1 <= finished <= 3


@pytest.mark.parametrize("where", ["copy_file", "replay"])
@pytest.mark.parametrize("kind", [OSError, DataUnwritable])
async def test_a_full_disk_leaves_nothing_that_a_pipe_would_start_on(
    where: str, kind: type[Exception], backup: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise kind(os.strerror(28))

    with monkeypatch.context() as patch:
        patch.setattr(restoring, where, full)
        with pytest.raises(DataUnwritable, match=r"No space left on device\. What is there is incomplete"):
            restore(backup, tmp_path / "new")
    with pytest.raises(DataForeign, match="run that again"):
        small(tmp_path / "new")
    restore(backup, tmp_path / "new")
    await _closed(tmp_path / "new")


async def test_two_at_once_do_not_mix(backup: Path, tmp_path: Path) -> None:
    data = tmp_path / "new"
    data.mkdir()
    (data / RESTORING).touch()
    with (data / RESTORING).open("rb") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        with pytest.raises(DataLocked, match="another process"):
            restore(backup, data)
    restore(backup, data)
    await _closed(data)


@pytest.mark.parametrize("when", ["before it is opened", "before it is locked"])
async def test_one_that_was_finished_by_another_process_just_now_is_left_alone(
    backup: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, when: str
) -> None:
    """A pipe may have started on it by now."""
    data = tmp_path / "new"
    real = restoring.open_regular, fcntl.flock
    restore(backup, data)
    (data / RESTORING).touch()

    def opening(path: Path) -> BinaryIO:
        if path.name == RESTORING and when == "before it is opened":
            path.unlink()
        return real[0](path)

    def locking(file: BinaryIO | int, how: int) -> None:
        if not isinstance(file, int) and when == "before it is locked":
            (data / RESTORING).unlink()
        real[1](file, how)

    monkeypatch.setattr(restoring, "open_regular", opening)
    monkeypatch.setattr(restoring.fcntl, "flock", locking)
    with pytest.raises(DataLocked, match="another process"):
        restore(backup, data)
    monkeypatch.undo()
    await _closed(data)


async def test_paused_nothing_is_handed_over(backup: Path, tmp_path: Path) -> None:
    restore(backup, tmp_path / "new", paused=True)
    parts = await opened(tmp_path / "new", start=False)
    assert parts.node.machine.paused == {7, 8}
    parts.release()


@pytest.mark.parametrize(("words", "paused"), [(["--paused"], [7, 8]), ([], [8])])
async def test_the_command_says_how_paused_kinds_go_on(
    backup: Path, tmp_path: Path, words: list[str], paused: list[int]
) -> None:
    """Those that were paused when the backup was made are so in any case."""
    command = ["restore", str(backup), *words]
    done = CliRunner().invoke(main, [*command, str(tmp_path / "new")])
    assert done.exit_code == 0, done.output
    said = [line for line in done.stderr.splitlines() if "paused" in line]
    assert said == [f"  kind {kind} is paused: truba continue {kind}" for kind in paused]
    done = CliRunner().invoke(main, [*command, str(tmp_path / "again"), "--json"])
    assert json.loads(done.stdout)["paused"] == paused


async def test_a_verified_backup_tells_which_kinds_are_paused_in_it(backup: Path) -> None:
    shown = CliRunner().invoke(main, ["backup", "verify", str(backup)]).stdout
    assert ["kind", "8", "paused"] in [line.split() for line in shown.splitlines()]
    told = json.loads(CliRunner().invoke(main, ["backup", "verify", str(backup), "--json"]).stdout)
    assert (told["sound"], told["paused"]) == (True, [8])
