"""Log and store that fail while the service starts or stops: it ends with the code for that, and tells why."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.service.process import kind
from truba import config, service
from truba.config import Config
from truba.log.disk import OsDisk
from truba.store.rocks import RocksStore


@pytest.fixture
def loaded(tmp_path: Path) -> Config:
    path = tmp_path / "truba.toml"
    path.write_text(f'[node]\nlisten = "127.0.0.1:0"\nsegment = "64KiB"\nreserve = "0B"\n{kind()}')
    return config.load(path)


async def serve_and_stop(loaded: Config) -> int:
    serving = asyncio.create_task(service.serve(loaded))
    await asyncio.sleep(0)  # it listens to signals now
    os.kill(os.getpid(), signal.SIGTERM)
    return await serving


async def test_without_failures_it_stops_with_0(loaded: Config) -> None:
    assert await serve_and_stop(loaded) == service.EXIT_OK


async def test_what_rocksdb_tells_only_when_it_is_closed_is_no_clean_stop(
    loaded: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    close = RocksStore.close

    def closes(store: RocksStore) -> None:
        close(store)
        raise OSError(5, "a table could not be written in the background")

    monkeypatch.setattr(RocksStore, "close", closes)
    assert await serve_and_stop(loaded) == service.EXIT_LOG_FAILED


async def test_a_log_that_fails_while_the_node_starts_is_a_log_that_failed(
    loaded: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    syncs: list[int] = []

    def fdatasync(fd: int) -> None:
        syncs.append(fd)
        if Path(f"/proc/self/fd/{fd}").readlink().suffix == ".log":
            raise OSError(5, "Input/output error")
        os.fdatasync(fd)

    monkeypatch.setattr(OsDisk, "fdatasync", staticmethod(fdatasync))
    assert await serve_and_stop(loaded) == service.EXIT_LOG_FAILED
    assert syncs


STOPS_ITSELF = """
import sys
from truba import service
from truba.cli.main import main

async def serve(*_):
    print("what a handler has said")
    return service.EXIT_LOG_FAILED

service.serve = serve
main(["serve", "--config", sys.argv[1]])
"""


def test_what_handlers_have_said_is_not_lost_with_a_process_that_stops_itself(loaded: Config, tmp_path: Path) -> None:
    command = [sys.executable, "-c", STOPS_ITSELF, str(tmp_path / "truba.toml")]
    buffered = os.environ | {"PYTHONUNBUFFERED": ""}
    ended = subprocess.run(command, env=buffered, capture_output=True, check=False)
    assert (ended.returncode, ended.stdout) == (service.EXIT_LOG_FAILED, b"what a handler has said\n")
