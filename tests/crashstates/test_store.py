"""Log, store and installations, killed at any step, and the log without power beside any store."""

from __future__ import annotations

import random

import pytest

from tests.crashstates import together
from tests.crashstates.kill import Stage
from tests.crashstates.place import a_place
from tests.crashstates.sessions import history


def test_killed_at_steps_of_a_whole_life() -> None:
    """Every 23rd step; all of them in the long version."""
    dice = random.Random(7)
    with a_place() as place:
        stage = Stage(place, 7)
        with stage.victims:
            steps = stage.steps()
            assert steps > 300
            for step in range(1, steps + 1, 23):
                stage.kill(step, dice)


@pytest.mark.parametrize("n", [0, 1])
def test_the_log_loses_power_beside_any_store(n: int) -> None:
    with a_place() as place:
        met = together.explore(place, history(n, batches=16), random.Random(n), states=4)
    assert met.replayed > 50
    assert met.refused > 50
