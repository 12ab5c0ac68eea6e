"""Backups of a real pipe that goes on meanwhile: under load, stopped half-way, killed half-way."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.backup.sample import children
from tests.service.process import PATIENCE_S, Server, Servers, environment, kind
from tests.service.wire import Refused, Wire, fields, request, until
from truba.backup.manifest import NAME, UNFINISHED
from truba.backup.newest import newest
from truba.backup.restore import restore
from truba.backup.state import replay
from truba.backup.verify import verify
from truba.compose import build
from truba.errors import DataForeign
from truba.kinds import Kind
from truba.machine.digest import state_digest
from truba.machine.machine import Machine
from truba.session import RepeatData
from truba.store.memory import MemoryStore
from truba.store.rocks import RocksStore
from truba.types import ORIGIN, Index, Phase

ADMIN = '[admin]\nlisten = "127.0.0.1:0"\n'
KINDS = kind(recovery_delay="1h")
NODE = 'data = "data"\nbackups = "backups"\n'
BUSY_NODE = NODE + 'checkpoint = "64KiB"\nsegment = "64KiB"\nreserve = "0"\n'


def truba(*words: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "truba", *words]
    return subprocess.run(command, env=environment(), capture_output=True, text=True, timeout=PATIENCE_S, check=False)


def progress(server: Server) -> dict[str, Any]:
    with Wire.dial(server.address) as wire:
        return fields(wire.ask("BACKUP"))


def ended(server: Server) -> dict[str, Any]:
    """How it went."""
    return until(lambda: progress(server), lambda found: found["state"] != b"running")


@contextmanager
def half_way(server: Server, name: str) -> Iterator[int]:
    """A backup whose process stands still before its end; its pid. It goes on afterwards, if it is there."""
    with Wire.dial(server.address) as wire:
        assert wire.ask("BACKUP", name).endswith(name.encode())
    (child,) = until(lambda: children(server.pid), len)
    os.kill(child, signal.SIGSTOP)
    try:
        yield child
    finally:
        if server.process.poll() is None and child in children(server.pid):
            os.kill(child, signal.SIGCONT)


class Load:
    """One client that opens, appends, stores and deletes until told to stop. `kept`: acknowledged, and not deleted."""

    def __init__(self, server: Server) -> None:
        self.kept: dict[str, list[bytes]] = {}
        self.operations = 0
        self._wire = Wire.dial(server.address)
        self._enough = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def _run(self) -> None:
        at = 0
        while not self._enough.is_set():
            at += 1
            records = [b"%d" % at, bytes(at % 700)]
            name = self._wire.ask("NEW", 7, *records).decode()
            if at % 3:
                self._wire.ask("DELETE", name)
            else:
                self._wire.ask("APPEND", name, b"more")
                if at % 2:
                    self._wire.ask("STORE", name, 3600)
                self.kept[name] = [*records, b"more"]
            self.operations += 1

    def __enter__(self) -> Load:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._enough.set()
        self._thread.join(PATIENCE_S)
        self._wire.close()


async def never(repeat: RepeatData) -> None:
    raise AssertionError("nothing is due here")


async def test_under_load_it_is_exactly_the_state_of_the_named_index(pipes: Servers) -> None:
    server = pipes.start(KINDS, node=NODE)
    with Load(server) as load:
        until(lambda: load.operations, lambda done: done > 200)
        before = {name: list(records) for name, records in load.kept.copy().items()}
        made = truba("backup", "one", "--url", server.url, "--json")
        assert made.returncode == 0, made.stderr
        reached = load.operations
        until(lambda: load.operations, lambda done: done > reached)
    server.kill()  # a clean stop would let the log go
    document = json.loads(made.stdout)
    verdict = verify(pipes.directory / "backups" / "one")
    assert verdict.sound
    at = verdict.manifest.at.position
    assert (document["term"], document["seq"]) == (at.term, at.seq)
    # Played again from its first event, the pipe's own log leads to that very state.
    assert state_digest(replay(MemoryStore(), pipes.directory / "data" / "log", ORIGIN, at)) == verdict.manifest.digest
    restore(pipes.directory / "backups" / "one", pipes.directory / "new")
    store = RocksStore.open(pipes.directory / "new" / "store")
    machine = Machine(store, {})
    for name, records in before.items():
        assert machine.records(Index.parse(name).seq) == records
    store.close()


async def test_while_checkpoints_come_and_the_log_is_trimmed(pipes: Servers) -> None:
    """Old segments are recycled all the time, but for those that a backup still needs."""
    server = pipes.start(KINDS, node=BUSY_NODE)
    with Load(server) as load, Wire.dial(server.address) as wire:
        info: dict[str, str] = {}
        for number in range(30):
            if number >= 3 and int(info["checkpoints"]) > 3:
                break
            before = load.kept.copy()
            wire.ask("BACKUP", name := str(number))
            found = ended(server)
            assert found["state"] == b"done", found
            backup = pipes.directory / "backups" / name
            verdict = verify(backup)
            assert verdict.sound, verdict.problems
            assert verdict.manifest.sessions >= len(before)
            info = dict(line.split(":", 1) for line in wire.ask("INFO").decode().splitlines() if ":" in line)
        assert int(info["checkpoints"]) > 3
        assert info["backup"] == "done"
    # Nobody reads it any more: it is let go again.
    with Load(server):
        until(lambda: len(list((pipes.directory / "data" / "log").glob("segment-*.log"))), lambda count: count < 20)
    assert not (pipes.directory / "data" / "backing-up").exists()
    assert server.terminate() == 0


def test_one_at_a_time_and_the_pipe_goes_on(pipes: Servers) -> None:
    server = pipes.start(KINDS, node=NODE)
    with half_way(server, "one"), Wire.dial(server.address) as wire:
        with pytest.raises(Refused, match=r"BUSY a backup to .*/one is under way"):
            wire.ask("BACKUP", "two")
        assert wire.ask("DELETE", wire.ask("NEW", 7, b"x")) == b"OK"
        assert truba("backup", "verify", str(pipes.directory / "backups" / "one")).returncode in (4, 7)
    assert ended(server)["state"] == b"done"
    assert verify(pipes.directory / "backups" / "one").sound


def test_killed_with_the_pipe_it_is_unfinished_and_its_process_ends_too(pipes: Servers) -> None:
    server = pipes.start(KINDS, node=NODE)
    with Wire.dial(server.address) as wire:
        for _ in range(100):
            wire.asked(request("NEW", 7, b"x" * 1000) for _ in range(100))
    with half_way(server, "one") as child:
        server.kill()
        until(lambda: _gone(child), bool)
    server = pipes.start_again(server.config)
    with Wire.dial(server.address) as wire:
        wire.ask("BACKUP", "one")
        (child,) = until(lambda: children(server.pid), len)
        backup = pipes.directory / "backups" / "one"
        until((backup / UNFINISHED).exists, bool)
    server.kill()
    until(lambda: _gone(child), bool)
    assert not (backup / NAME).exists()
    with pytest.raises(DataForeign, match="unfinished backup"):
        verify(backup)
    assert truba("restore", str(backup), str(pipes.directory / "new")).returncode == 7
    assert not (pipes.directory / "new").exists()
    again = pipes.start_again(server.config)
    made = truba("backup", "two", "--url", again.url)
    assert made.returncode == 0, made.stderr
    assert not (pipes.directory / "data" / "backing-up").exists()
    assert verify(pipes.directory / "backups" / "two").manifest.sessions == 10_000


def _gone(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] in "ZX"
    except (FileNotFoundError, ProcessLookupError):
        return True


def test_its_process_killed_the_pipe_goes_on_and_tells(pipes: Servers) -> None:
    server = pipes.start(KINDS, node=NODE)
    with half_way(server, "one") as child:
        os.kill(child, signal.SIGKILL)
        found = ended(server)
    assert found["state"] == b"failed"
    assert b"ended early" in found["error"]
    server.wait_line('"event": "backup failed"')
    assert truba("backup", "two", "--url", server.url).returncode == 0


def test_the_command_killed_the_backup_goes_on(pipes: Servers) -> None:
    server = pipes.start(KINDS, node=NODE)
    command = subprocess.Popen(
        [sys.executable, "-m", "truba", "backup", "one", "--url", server.url],
        env=environment(), stdout=subprocess.DEVNULL,
    )  # fmt: skip
    (child,) = until(lambda: children(server.pid), len)
    os.kill(child, signal.SIGSTOP)
    command.kill()
    command.wait(PATIENCE_S)
    os.kill(child, signal.SIGCONT)
    assert ended(server)["state"] == b"done"
    assert verify(pipes.directory / "backups" / "one").sound


def test_a_pipe_that_stops_ends_it(pipes: Servers) -> None:
    server = pipes.start(KINDS, node=NODE)
    with half_way(server, "one"):
        assert server.terminate() == 0
    assert not (pipes.directory / "backups" / "one" / NAME).exists()
    assert not (pipes.directory / "data" / "backing-up").exists()


def test_where_it_may_go(pipes: Servers) -> None:
    server = pipes.start(KINDS, node=NODE)
    (pipes.directory / "backups").mkdir()
    (pipes.directory / "backups" / "away").symlink_to(pipes.directory)
    with Wire.dial(server.address) as wire:
        for name in ("", ".", "../data", "away/data", "/etc/truba", "x" * 300, "two\nlines", b"\xff"):
            with pytest.raises(Refused, match="nothing was begun"):
                wire.ask("BACKUP", name)
        with pytest.raises(Refused, match="nothing was begun"):
            wire.ask("BACKUP", "one", "two")
        assert fields(wire.ask("BACKUP"))["state"] == b"none"
        assert wire.ask("BACKUP", f"{pipes.directory}/backups/deep/er") == os.fsencode(
            pipes.directory / "backups" / "deep" / "er"
        )
    assert ended(server)["state"] == b"done"
    refused = truba("backup", "deep/er", "--url", server.url)
    assert refused.returncode == 1
    assert "not empty" in refused.stderr
    inside = truba("backup", "deep/er/store/in", "--url", server.url)
    assert inside.returncode == 1
    assert f"{pipes.directory}/backups/deep/er is a backup" in inside.stderr
    assert verify(pipes.directory / "backups" / "deep" / "er").sound


def test_none_goes_into_what_is_the_pipes_own(pipes: Servers) -> None:
    """The configuration keeps them apart; this is for whoever moves the directories about meanwhile."""
    (pipes.directory / "place").mkdir()
    (pipes.directory / "backups").symlink_to("place")
    server = pipes.start(KINDS, node=NODE)
    (pipes.directory / "backups").unlink()
    (pipes.directory / "backups").symlink_to(".")
    with Wire.dial(server.address) as wire:
        for name in ("data/log/x", "data/store/x", "data/backing-up", "data/x"):
            with pytest.raises(Refused, match="no place for backups; nothing was begun"):
                wire.ask("BACKUP", name)


@pytest.mark.parametrize("backups", [".", "data", "data/backups", "link"])
def test_a_pipe_starts_with_its_backups_beside_its_data_only(pipes: Servers, backups: str) -> None:
    (pipes.directory / "link").symlink_to("data")
    code, said = pipes.refused(pipes.configure(KINDS, node=f'data = "data"\nbackups = "{backups}"\n'))
    assert code == 2
    assert "lie in each other; name a directory beside it" in said
    assert not (pipes.directory / "data").exists()


def last_backup(server: Server) -> float:
    text = httpx.get(f"http://{server.ready['admin']}/v1/metrics", timeout=PATIENCE_S).text
    (value,) = re.findall(r"^truba_last_backup_timestamp_seconds (\S+)$", text, re.MULTILINE)
    return float(value)


def test_the_time_of_the_last_one_is_scraped_and_outlives_a_restart(pipes: Servers) -> None:
    server = pipes.start(ADMIN + KINDS, node=NODE)
    assert last_backup(server) == 0
    for name in ("one", "deep/er"):
        assert truba("backup", name, "--url", server.url).returncode == 0
    made_ms = verify(pipes.directory / "backups" / "deep" / "er").manifest.made_ms
    assert last_backup(server) == made_ms / 1000
    server.kill()
    (pipes.directory / "backups" / "unfinished").mkdir()
    (pipes.directory / "backups" / "unfinished" / UNFINISHED).touch()
    os.mkfifo(pipes.directory / "backups" / NAME)
    again = pipes.start_again(server.config)
    assert until(lambda: last_backup(again), bool) == made_ms / 1000


def test_backups_of_another_pipe_count_for_nothing(pipes: Servers) -> None:
    server = pipes.start(KINDS, node=NODE)
    assert truba("backup", "one", "--url", server.url).returncode == 0
    log_id = verify(pipes.directory / "backups" / "one").manifest.log_id
    backups = pipes.directory / "backups"
    assert newest(backups, log_id) == verify(backups / "one").manifest.made_ms
    assert newest(backups, "00" * 16) == 0
    assert newest(backups / "nowhere", log_id) == 0


def test_without_a_place_for_them_none_is_made(pipes: Servers) -> None:
    server = pipes.start(KINDS)
    refused = truba("backup", "one", "--url", server.url)
    assert refused.returncode == 1
    assert "write backups = " in refused.stderr


def test_a_disk_without_room_for_it_is_not_filled(pipes: Servers) -> None:
    """It shares the pipe's disk, and leaves the pipe what the pipe reserves for itself."""
    free = os.statvfs(pipes.directory)
    server = pipes.start(KINDS, node=NODE + f'reserve = "{free.f_bavail * free.f_frsize // 2**20 + 1000}MiB"\n')
    refused = truba("backup", "one", "--url", server.url)
    assert refused.returncode == 1
    assert "bytes free" in refused.stderr
    assert not (pipes.directory / "backups" / "one").exists()


async def test_a_restored_pipe_serves_and_knows_no_old_owner(pipes: Servers) -> None:
    server = pipes.start(KINDS, node=NODE)
    token = "a token of sixteen bytes"
    with Wire.dial(server.address) as wire:
        wire.ask("OWNER", token, "GRACE", 60)
        held = wire.ask("NEW", 7, "TAG", 1, b"held").decode()
        made = truba("backup", "one", "--url", server.url, "--json")
        assert made.returncode == 0, made.stderr
        wire.ask("DELETE", held)  # finished since
        later = Index.parse(wire.ask("NEW", 7, b"later"))
    server.kill()
    told = truba("restore", str(pipes.directory / "backups" / "one"), str(pipes.directory / "new"), "--json")
    assert told.returncode == 0, told.stderr
    assert json.loads(told.stdout)["disowned"] == 1
    restored = pipes.start_again(server.config, "--data", str(pipes.directory / "new"))
    with Wire.dial(restored.address) as wire:
        assert wire.ask("OWNER", token, "GRACE", 60) == []
        session = fields(wire.ask("SHOW", held))
        assert (session["phase"], session["cause"], session["records"]) == (b"stored", b"restart", [b"held"])
        with pytest.raises(Refused, match="FENCED"):
            wire.ask("APPEND", held, b"from the past")
        assert Index.parse(wire.ask("NEW", 7, "TAG", 1, b"new")) > later


async def test_no_pipe_starts_on_a_backup(pipes: Servers) -> None:
    server = pipes.start(KINDS, node=NODE)
    assert truba("backup", "one", "--url", server.url).returncode == 0
    config = pipes.configure(KINDS, name="other.toml")
    code, said = pipes.refused(config, "--data", str(pipes.directory / "backups" / "one"))
    assert code == 7
    assert "is a backup, and no data directory" in said
    with pytest.raises(DataForeign):
        build(pipes.directory / "backups" / "one", [Kind(7, "transfer", handler=never)])
    assert verify(pipes.directory / "backups" / "one").sound
    assert Phase.ACTIVE not in {count.phase for count in verify(pipes.directory / "backups" / "one").manifest.counts}
