"""One thing in a data directory is not what was written: no start takes it for good."""

from __future__ import annotations

import random
from itertools import islice

import pytest

from tests.crashstates.case import rot_log
from tests.crashstates.place import a_place
from tests.crashstates.rot import Grown, RottenDirectory
from tests.crashstates.sessions import history


@pytest.mark.parametrize("n", range(4))
def test_damage_to_a_log(n: int) -> None:
    rot_log(n, mutants=150)


@pytest.mark.parametrize(
    ("grown", "steps"),
    [
        (Grown(20, 0, 0), None),  # no checkpoint yet: all is in the log
        (Grown(30, 28, 28), None),  # two commits, the last one of which is needed: the log before it is gone
        (Grown(20, 0, 0), 0),
        (Grown(20, 0, 0), 1),
        (Grown(20, 10, 10), 3),
    ],
)
def test_damage_to_a_directory(grown: Grown, steps: int | None) -> None:
    """Also in the middle of an installation, after so many of its steps."""
    dice = random.Random(grown.stored)
    with a_place() as place:
        directory = RottenDirectory(place, history(1, batches=50), grown, steps)
        for mutant in (*directory.files(), *islice(directory.bits(), 3, None, 41), *directory.mutants(dice, 10)):
            directory.start(mutant)
    assert directory.counts["true"]
    assert directory.counts["refused"]
