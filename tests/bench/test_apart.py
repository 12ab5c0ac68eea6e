"""Processors of their own, for as long as is measured."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from truba.bench.apart import apart

PROCESSORS = os.sched_getaffinity(0)

TWO_THREADS = """
import threading
other = threading.Thread(target=input)
other.start()
print(flush=True)
other.join()
"""


@pytest.fixture
def process() -> Iterator[subprocess.Popen[bytes]]:
    command = [sys.executable, "-I", "-c", TWO_THREADS]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        try:
            assert process.stdout is not None
            process.stdout.readline()
            yield process
        finally:
            process.kill()


def where(pid: int) -> list[set[int]]:
    return [os.sched_getaffinity(int(thread.name)) for thread in Path(f"/proc/{pid}/task").iterdir()]


@pytest.mark.skipif(len(PROCESSORS) < 2, reason="there is one processor only")
def test_each_has_its_own_and_then_all(process: subprocess.Popen[bytes]) -> None:
    with apart(process.pid):
        assert os.sched_getaffinity(0) == {max(PROCESSORS)}
        assert where(process.pid) == [PROCESSORS - {max(PROCESSORS)}] * 2
    assert os.sched_getaffinity(0) == PROCESSORS
    assert where(process.pid) == [PROCESSORS] * 2


@pytest.mark.skipif(len(PROCESSORS) < 2, reason="there is one processor only")
def test_one_that_ends_meanwhile_is_left_alone(process: subprocess.Popen[bytes]) -> None:
    with apart(process.pid):
        process.kill()
        process.wait()
    assert os.sched_getaffinity(0) == PROCESSORS


def test_who_has_one_processor_keeps_it(process: subprocess.Popen[bytes]) -> None:
    only = {min(PROCESSORS)}
    os.sched_setaffinity(0, only)
    try:
        with apart(process.pid):
            assert os.sched_getaffinity(0) == only
            assert where(process.pid) == [PROCESSORS] * 2
    finally:
        os.sched_setaffinity(0, PROCESSORS)


def test_nobody_else_is_moved_when_nobody_is_named(process: subprocess.Popen[bytes]) -> None:
    with apart(None):
        assert where(process.pid) == [PROCESSORS] * 2
    assert os.sched_getaffinity(0) == PROCESSORS
