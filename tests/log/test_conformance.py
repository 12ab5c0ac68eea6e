"""Both logs keep the contract, the file log in each way of committing and with segments small enough to turn over, with
an id that it was given, and where it begins in the middle."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.log.support import FaultyDisk
from truba.log.file import FileLog
from truba.log.memory import MemoryLog, Shelf
from truba.log.plant import plant
from truba.ports.log import Done, Log, LogBatch
from truba.testing.log import LogSuite, Opener
from truba.types import ORIGIN, Position


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
    log_id: bytes | None = None

    @pytest.fixture
    def opener(self, tmp_path: Path, commit: Any, segment_bytes: int) -> Opener:
        return self.opening(tmp_path, commit, segment_bytes)

    def opening(self, tmp_path: Path, commit: Any, segment_bytes: int) -> Opener:
        self.disk = FaultyDisk()

        def open_again() -> Log:
            self.disk.fails = lambda name, number: None
            return FileLog.open(
                tmp_path / "log",
                segment_bytes=segment_bytes,
                reserve_bytes=0,
                commit=commit,
                disk=self.disk,
                log_id=self.log_id,
            )

        return open_again

    def break_log(self, log: Log) -> None:
        self.disk.fails = lambda name, number: 5 if name == "fdatasync" else None


class TestNamedLog(TestFileLog):
    """A log that was given its id, and is asked for it at every opening."""

    log_id: bytes | None = b"sixteen bytes id"


BEGIN = Position(6, 1_000, b"chain of a peer.")


class FromZero:
    """A planted log under the numbers that the suite counts in: seqs from 0, terms from 0."""

    def __init__(self, log: FileLog) -> None:
        self.log = log

    def __getattr__(self, name: str) -> Any:
        return getattr(self.log, name)

    @property
    def tail(self) -> Position:
        return self.down(self.log.tail)

    def down(self, position: Position) -> Position:
        if position == BEGIN:
            return ORIGIN
        return Position(position.term - BEGIN.term, position.seq - BEGIN.seq, position.chain)

    def append(self, batch: LogBatch, done: Done) -> None:
        self.log.append(LogBatch(batch.term + BEGIN.term, batch.first_seq + BEGIN.seq, batch.count, batch.body), done)

    def read(self, after_seq: int) -> Iterator[tuple[LogBatch, Position]]:
        for each, at in self.log.read(after_seq + BEGIN.seq):
            yield (
                LogBatch(each.term - BEGIN.term, each.first_seq - BEGIN.seq, each.count, each.body),
                self.down(at),
            )

    def position_at(self, seq: int) -> Position | None:
        if seq == 0:
            return ORIGIN  # as any log says, trimmed or not
        found = self.log.position_at(seq + BEGIN.seq)
        return None if found is None else self.down(found)

    def trim(self, through_seq: int) -> None:
        self.log.trim(through_seq + BEGIN.seq)


class TestPlantedLog(TestFileLog):
    @pytest.fixture
    def opener(self, tmp_path: Path, commit: Any, segment_bytes: int) -> Opener:
        plant(tmp_path / "log", b"sixteen bytes id", BEGIN, segment_bytes=segment_bytes)
        open_again = self.opening(tmp_path, commit, segment_bytes)
        return lambda: FromZero(open_again())  # type: ignore[arg-type, return-value]
