"""Clocks that jump, stand still and freeze, at random moments; the watch that judges is itself shown to judge."""

from __future__ import annotations

import pytest

from tests.clocks.case import Weather, case
from tests.clocks.watch import Watch
from tests.node.world import nobody
from truba.kinds import Kind
from truba.machine.events import Created, Deleted, Event, Opened, Parked, Repeated, Stored
from truba.testing.jump import JumpClock, run_jumping
from truba.types import Cause

CASES = 100  # about ten seconds


@pytest.mark.parametrize("tens", range(CASES // 10))
def test_g3_g4_g5_nothing_early_nothing_lost_nothing_unsafe(tens: int) -> None:
    for n in range(10 * tens, 10 * tens + 10):
        case(n)


def test_a_case_is_the_same_each_time() -> None:
    first, second = Weather(3), Weather(3)
    for weather in (first, second):
        run_jumping(weather.run(), weather.clock, threads=False)
    assert first.story == second.story
    assert len(first.story) > 60


KIND = Kind(7, "transfer", nobody, recovery_delay_s=5, jitter_s=0, idle_timeout_s=10, handler_timeout_s=10)
NEW = Created(7, 0, b"owner", 30_000, -1, [b"record"])


class Played:
    """A watch that is shown a log by hand."""

    def __init__(self) -> None:
        self.clock = JumpClock(wall_ms=0)
        self.watch = Watch(self.clock, KIND)
        self.saw(Opened(0, ""), NEW)
        self.number = 2

    def saw(self, *events: Event) -> None:
        self.watch.saw(list(events))

    def stored(self, cause: Cause, in_ms: int = 5_000) -> Stored:
        return Stored(self.number, self.clock.now_ms() + in_ms, cause)

    def told(self, delay_ms: int) -> Stored:
        self.watch.sessions[self.number].asked_delay_ms = delay_ms
        return self.stored(Cause.STORED, delay_ms)


@pytest.fixture
def played() -> Played:
    return Played()


def test_the_watch_refuses_an_owner_lost_within_its_grace(played: Played) -> None:
    played.watch.left(2)
    played.clock.wall_ms += 86_400_000  # a wall clock that jumps does not shorten it
    played.clock.advance(29.9)
    with pytest.raises(AssertionError, match="away for 29900 of 30000 ms"):
        played.saw(played.stored(Cause.LOST))
    played.clock.advance(0.1)
    played.saw(played.stored(Cause.LOST))


def test_the_watch_refuses_what_comes_before_its_time(played: Played) -> None:
    played.saw(played.told(60_000))
    played.clock.advance(59.9)
    with pytest.raises(AssertionError, match="100 ms early"):
        played.saw(Repeated(2, b"", 0))
    with pytest.raises(AssertionError, match="parked too early"):
        played.saw(Parked(2, Cause.STORED))
    played.clock.advance(0.1)
    played.saw(Repeated(2, b"", 0))
    with pytest.raises(AssertionError, match="silent for 0 of 10000 ms"):
        played.saw(played.stored(Cause.LATE))


def test_the_watch_refuses_an_owner_idle_too_early_and_a_loss_of_one_who_is_there(played: Played) -> None:
    played.clock.advance(29)
    with pytest.raises(AssertionError, match="silent for 29000 of 30000 ms"):  # its grace is longer than idle_timeout
        played.saw(played.stored(Cause.IDLE))
    with pytest.raises(AssertionError, match="its owner is there"):
        played.saw(played.stored(Cause.LOST))
    played.watch.left(2)
    played.clock.advance(1)
    with pytest.raises(AssertionError, match="its owner is away"):
        played.saw(played.stored(Cause.IDLE))


def test_the_watch_refuses_another_due_time_than_was_asked_for_or_is_the_kinds(played: Played) -> None:
    played.watch.sessions[2].asked_delay_ms = 1_000
    with pytest.raises(AssertionError, match="another time"):
        played.saw(played.stored(Cause.STORED, 999))
    played.watch.left(2)
    played.clock.advance(30)
    for in_ms in (4_999, 5_001):
        with pytest.raises(AssertionError, match=f"due in {in_ms} ms"):
            played.saw(played.stored(Cause.LOST, in_ms))


def test_the_watch_refuses_a_delete_that_nobody_asked_for_and_an_order_of_its_own(played: Played) -> None:
    with pytest.raises(AssertionError, match="nobody asked"):
        played.saw(Deleted(2))
    played = Played()
    played.saw(played.told(2_000), NEW)
    played.number = 4
    played.saw(played.told(1_000))
    played.clock.advance(5)
    with pytest.raises(AssertionError, match="comes before"):
        played.saw(Repeated(2, b"", 0))


@pytest.mark.parametrize("what", ["stored", "away", "silent", "jumped"])
def test_the_watch_sees_what_is_overdue(played: Played, what: str) -> None:
    match what:
        case "stored":
            played.saw(played.told(10_000))
            played.clock.advance(10)
        case "away":
            played.watch.left(2)
            played.clock.advance(30)
        case "silent":
            played.clock.advance(30)
        case "jumped":
            played.saw(played.told(10_000))
            played.clock.wall_ms += 3_600_000
    played.watch.check()
    played.clock.advance(1.2)
    with pytest.raises(AssertionError, match="overdue"):
        played.watch.check()
