"""What a node keeps is replaced by what is newer, and by nothing else."""

from __future__ import annotations

import asyncio
import threading
import time
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from tests.cluster.played import SECRET, Played, opened
from tests.clustered.support import until
from truba import install
from truba.audit import AuditFile
from truba.clock import SystemClock
from truba.cluster.words import Exported
from truba.clustered.serve import EXIT_FAILED, serve_member
from truba.clustered.storage import NodeStorage
from truba.config import load
from truba.configured import listen_of, settings_of, transports_of
from truba.errors import DataDamaged, Unavailable
from truba.ports.store import Summary, staged_all
from truba.store.rocks import RocksStore
from truba.testing.log import batch, commit
from truba.testing.nats import NatsServers
from truba.testing.nodes import Nodes
from truba.types import Position

LOG_ID = bytes(range(16))


def exported(scratch: Path, position: Position) -> dict[str, bytes]:
    """The files of a checkpoint at that place."""
    store = RocksStore.open(scratch / "peer")
    try:
        store.commit(staged_all(store, ()), Summary(position, {}))
        store.export(scratch / "exported")
    finally:
        store.close()
    return {file.name: file.read_bytes() for file in (scratch / "exported").iterdir()}


async def test_a_checkpoint_that_is_older_than_the_own_log_is_not_taken(tmp_path: Path) -> None:
    """A peer that is ahead may yet be unable to write a new one."""
    host = Played(seq=100)
    position = Position(1, 2, bytes(16))
    host.exported = Exported(LOG_ID, position, b"")
    host.files = exported(tmp_path, position)
    async with opened(host, tmp_path / "scratch") as door:
        storage = NodeStorage(tmp_path / "data", LOG_ID, {"b": door.bound}, SECRET, segment_bytes=1 << 20)
        try:
            await commit(storage.log, batch(1), batch(2), batch(3))
            tail = storage.log.tail
            with pytest.raises(Unavailable, match="no peer gives a checkpoint beyond event 3"):
                await storage.replace()
            assert storage.log.tail == tail
        finally:
            storage.close()


@pytest.mark.parametrize("while_", ["it is sent", "it is installed"])
async def test_who_gives_up_a_checkpoint_on_its_way_is_left_with_one_or_the_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, while_: str
) -> None:
    act, reached, go_on = install._act, threading.Event(), threading.Event()  # noqa: SLF001 - made to take its time

    def slow(data: Path, step: install.Move | install.Remove) -> None:
        act(data, step)
        reached.set()
        go_on.wait()

    async def hangs(directory: Path) -> None:
        reached.set()
        await asyncio.sleep(60)

    host = Played(seq=100)
    position = Position(1, 100, bytes(16))
    host.exported = Exported(LOG_ID, position, b"")
    host.files = exported(tmp_path, position)
    if while_ == "it is sent":
        host.before_export = hangs
    else:
        monkeypatch.setattr(install, "_act", slow)
    async with opened(host, tmp_path / "scratch") as door:
        storage = NodeStorage(tmp_path / "data", LOG_ID, {"b": door.bound}, SECRET, segment_bytes=1 << 20)
        await commit(storage.log, batch(1), batch(2), batch(3))
        old = storage.log.tail
        replacing = asyncio.create_task(storage.replace())
        await asyncio.to_thread(reached.wait)
        replacing.cancel()
        await asyncio.sleep(0.1)
        go_on.set()
        with pytest.raises(asyncio.CancelledError):
            await asyncio.wait_for(replacing, 10)
        assert storage.log.tail == (old if while_ == "it is sent" else position)
        storage.close()
        install.Arrival(tmp_path / "data").close()


@pytest.mark.parametrize("done", range(6))
async def test_a_checkpoint_whose_installation_fails_half_way_is_there_at_the_next_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, done: int
) -> None:
    """Nothing may take the place of what has been moved away, and has not been replaced yet."""
    act = install._act  # noqa: SLF001 - each step is one that may fail
    left = done

    def fails(data: Path, step: install.Move | install.Remove) -> None:
        nonlocal left
        if not left:
            raise OSError(5, "Input/output error")
        left -= 1
        act(data, step)

    host = Played(seq=100)
    position = Position(1, 100, bytes(16))
    host.exported = Exported(LOG_ID, position, b"")
    host.files = exported(tmp_path, position)
    async with opened(host, tmp_path / "scratch") as door:
        places = (tmp_path / "data", LOG_ID, {"b": door.bound}, SECRET)
        storage = NodeStorage(*places, segment_bytes=1 << 20)
        await commit(storage.log, batch(1), batch(2), batch(3))
        monkeypatch.setattr(install, "_act", fails)
        with pytest.raises(OSError, match="Input/output"):
            await storage.replace()
        storage.close()
        monkeypatch.undo()
        storage = NodeStorage(*places, segment_bytes=1 << 20)
        assert storage.log.tail == storage.store.summary.applied == position
        storage.close()
    assert sorted(path.name for path in (tmp_path / "data").iterdir()) == ["log", "store"]


@pytest.mark.timeout(60)
async def test_an_error_at_its_closing_is_told_and_no_traceback(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """RocksDB may have met something in the background, and tells it when it is closed."""
    closing = RocksStore.close

    def close(store: RocksStore) -> None:
        closing(store)
        raise DataDamaged("a table is damaged")

    async with (
        await NatsServers.start(tmp_path / "nats", 1) as servers,
        Nodes(tmp_path / "nodes", servers, ["a"]) as nodes,
    ):
        config = load(nodes.config("a"))
        stop = asyncio.Event()
        audit = AuditFile(tmp_path / "audit.jsonl", SystemClock())
        settings = settings_of(config, audit)
        member = (
            listen_of(config),
            settings,
            transports_of(config, settings),
            {},
            [],
            audit,
            stop,
            None,
            time.monotonic(),
        )
        with capture_logs() as logged:
            serving = asyncio.create_task(serve_member(config, None, *member))

            async def ready() -> bool:
                return serving.done() or any(line["event"] == "ready" for line in logged)

            await until(ready)
            monkeypatch.setattr(RocksStore, "close", close)
            stop.set()
            assert await serving == EXIT_FAILED
        (line,) = [line for line in logged if line["log_level"] == "error"]
        assert (line["event"], line["error"]) == ("the store has failed", "a table is damaged")
