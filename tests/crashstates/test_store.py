"""Log, store and installations, killed at any step, and the log without power beside any store."""

from __future__ import annotations

import random

import pytest

from tests.crashstates import together
from tests.crashstates.kill import Stage
from tests.crashstates.place import a_place
from tests.crashstates.sessions import history


def test_killed_at_steps_of_a_whole_life() -> None:
    """All steps of two commits, every third one of the installation, every 25th of the rest; the long version: all."""
    dice = random.Random(7)
    with a_place() as place:
        stage = Stage(place, 7)
        with stage.victims:
            parts = stage.steps()
            assert len(parts) > 300
            commits = [step for step, part in enumerate(parts, 1) if part == "commit"]
            installing = [step for step, part in enumerate(parts, 1) if part == "install"]
            for step in sorted({*range(1, len(parts) + 1, 25), *installing[::3], *commits[3:9]}):
                stage.kill(step, dice)


@pytest.mark.parametrize("n", [0, 1])
def test_the_log_loses_power_beside_any_store(n: int) -> None:
    with a_place() as place:
        met = together.explore(place, history(n, batches=16), random.Random(n), states=4)
    assert met.replayed > 50
    assert met.refused > 50
