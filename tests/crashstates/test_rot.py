"""One thing in a data directory is not what was written: no start takes it for good."""

from __future__ import annotations

import random

import pytest

from tests.crashstates.case import rot_log
from tests.crashstates.place import a_place
from tests.crashstates.rot import RottenDirectory
from tests.crashstates.sessions import history


@pytest.mark.parametrize("n", range(4))
def test_damage_to_a_log(n: int) -> None:
    rot_log(n, mutants=250)


@pytest.mark.parametrize("steps", [None, 0, 1, 3])
def test_damage_to_a_directory(steps: int | None) -> None:
    """Also in the middle of an installation, after so many of its steps."""
    n = -1 if steps is None else steps
    dice = random.Random(n)
    with a_place() as place:
        directory = RottenDirectory(place, history(n, batches=50), dice, steps)
        for mutant in (*list(directory.small())[n + 1 :: 31], *directory.mutants(dice, 20)):
            directory.start(mutant)
    assert directory.counts["true"]
    assert directory.counts["refused"]
