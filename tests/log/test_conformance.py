"""Both logs keep the contract, the file log in each way of committing and with segments small enough to turn over."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.log.support import FaultyDisk
from truba.log.file import FileLog
from truba.log.memory import MemoryLog, Shelf
from truba.ports.log import Log
from truba.testing.log import LogSuite, Opener


class TestMemoryLog(LogSuite):
    @pytest.fixture
    def opener(self) -> Opener:
        shelf = Shelf()
        return lambda: MemoryLog(shelf)

    def break_log(self, log: Log) -> None:
        assert isinstance(log, MemoryLog)
        log.fail(OSError(5, "broken"))


@pytest.mark.parametrize("commit", ["inline", "thread", "auto"], scope="class")
@pytest.mark.parametrize("segment_bytes", [4 * 512, 32 * 512, 1 << 20], scope="class")
class TestFileLog(LogSuite):
    @pytest.fixture
    def opener(self, tmp_path: Path, commit: Any, segment_bytes: int) -> Opener:
        self.disk = FaultyDisk()

        def open_again() -> Log:
            self.disk.fails = lambda name, number: None
            return FileLog.open(
                tmp_path / "log", segment_bytes=segment_bytes, reserve_bytes=0, commit=commit, disk=self.disk
            )

        return open_again

    def break_log(self, log: Log) -> None:
        self.disk.fails = lambda name, number: 5 if name == "fdatasync" else None
