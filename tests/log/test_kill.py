"""Real processes, real files: killed at any moment, and read by others meanwhile."""

from __future__ import annotations

import random
import subprocess
import sys
from pathlib import Path

import pytest

from tests.log.kill_victim import body_of
from truba.log.file import FileLog
from truba.log.inspect import frames, verify

VICTIM = Path(__file__).with_name("kill_victim.py")


@pytest.mark.parametrize("where", ["inline", "thread"])
def test_killed_at_any_moment_it_has_all_that_it_acknowledged(tmp_path: Path, where: str) -> None:
    dice = random.Random(where)
    told = 0
    for _ in range(4):
        with subprocess.Popen([sys.executable, VICTIM, tmp_path / "log", where], stdout=subprocess.PIPE) as victim:
            assert victim.stdout is not None
            for _ in range(dice.randint(1, 400)):
                told = int(victim.stdout.readline())
            victim.kill()
            told = max([told, *map(int, victim.stdout.read().split(b"\n")[:-1])])
        log = FileLog.open(tmp_path / "log", segment_bytes=128 << 10, reserve_bytes=0)
        assert log.tail.seq in (told, told + 1)
        for batch, position in log.read(log.begin.seq):
            assert batch.body == body_of(batch.first_seq)
            told = position.seq
        assert told == log.tail.seq
        log.close()


def test_a_log_that_is_being_written_reads_as_sound(tmp_path: Path) -> None:
    with subprocess.Popen([sys.executable, VICTIM, tmp_path / "log", "auto"], stdout=subprocess.PIPE) as victim:
        assert victim.stdout is not None
        victim.stdout.readline()
        last = 0
        for _ in range(20):
            report = verify(tmp_path / "log")
            assert report.sound, report.damage  # torn it may be: the writer may stand still in the middle of a write
            assert report.tail.seq >= last
            last = report.tail.seq
            for _ in range(20):
                victim.stdout.readline()
        victim.kill()
    assert last > 100
    lines = list(frames(tmp_path / "log"))
    assert lines[-1].position.seq >= last
    assert all(line.batch.body == body_of(line.batch.first_seq) for line in lines)
