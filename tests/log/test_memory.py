"""The memory log's own: waiting batches, failing on purpose, and a shelf that outlives it."""

from __future__ import annotations

from typing import Any

import pytest

from truba.errors import DataDamaged, LogPoisoned
from truba.log.memory import MemoryLog, Shelf
from truba.testing.log import batch


def test_held_batches_wait_for_their_release() -> None:
    log = MemoryLog(window=2, held=True)
    heard: list[Any] = []
    log.append(batch(1, 3), lambda error: heard.append((1, error)))
    log.append(batch(4), lambda error: heard.append((4, error)))
    with pytest.raises(ValueError, match="window"):
        log.append(batch(5), lambda error: None)
    assert (heard, log.tail.seq) == ([], 0)
    assert log.release(1) == 1
    assert (heard, log.tail.seq) == ([(1, None)], 3)
    log.close()
    assert heard == [(1, None), (4, None)]


def test_a_failure_takes_what_is_under_way() -> None:
    shelf = Shelf()
    log = MemoryLog(shelf, held=True)
    heard: list[BaseException | None] = []
    log.append(batch(1), heard.append)
    log.release()
    log.append(batch(2), heard.append)
    log.fail(OSError(5, "gone"))
    assert heard[0] is None
    assert isinstance(heard[1], LogPoisoned)
    log.close()
    assert MemoryLog(shelf).tail.seq == 1


def test_a_dropped_log_leaves_what_was_durable() -> None:
    shelf = Shelf()
    log = MemoryLog(shelf, held=True)
    log.append(batch(1), lambda error: None)
    again = MemoryLog(shelf)
    assert again.tail.seq == 0


def test_a_trimmed_log_refuses_what_it_has_dropped() -> None:
    log = MemoryLog()
    for seq in range(1, 6):
        log.append(batch(seq), lambda error: None)
    log.trim(3)
    assert [each.first_seq for each, _ in log.read(3)] == [4, 5]
    with pytest.raises(DataDamaged, match="trimmed"):
        log.read(1)
