"""Storms (see tests/cluster/storm.py): a few hundred seeds, that they repeat, and that they are storms."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections import Counter

import pytest

from tests.cluster.storm import case, storm, told

TOGETHER = 10
"""Seeds of one test: fewer names, and the same story when one of them fails."""


@pytest.mark.parametrize("first", range(0, 500, TOGETHER))
def test_g1_to_g8_hold_in_storms(first: int) -> None:
    for seed in range(first, first + TOGETHER):
        case(seed)


def test_a_seed_tells_the_same_story_every_time_and_in_every_process() -> None:
    """Else a failure could not be looked at again."""
    seeds = range(500, 504)
    stories = [storm(seed).story.digest for seed in seeds]
    assert [storm(seed).story.digest for seed in seeds] == stories
    script = "import sys; from tests.cluster.storm import storm; print(storm(int(sys.argv[1])).story.digest)"
    for seed, hash_seed in zip(seeds, "0123", strict=True):
        command = [sys.executable, "-c", script, str(seed)]
        run = subprocess.run(
            command,
            env=os.environ | {"PYTHONHASHSEED": hash_seed},
            capture_output=True,
            text=True,
            timeout=60,
            check=True,
        )
        assert run.stdout.strip() == stories[seed - 500]


def test_everything_happens_in_some_storm() -> None:
    """Else the seeds above would prove little: what was prepared has to come about, again and again."""
    seen: Counter[str] = Counter()
    for seed in range(1000, 1060):
        world = storm(seed)
        assert not world.ruined, told(world)
        history = world.history
        seen.update(world.weather.counts)
        seen["takeovers"] += world.sea.term
        seen["states compared"] += world.witness.compared
        seen["operations of unknown outcome that happened"] += history.unknown
        seen["operations of unknown outcome that did not"] += history.lost
        seen["pushes"] += history.deliveries
        seen["checkpoints from peers"] += sum(seat.disk.replaced for seat in world.seats.values())
        seen[f"disaster {world.disaster}"] += 1
        text = "\n".join(world.story.lines)
        for what in (
            "session parked", "cause=late", "cause=unreachable", "cause=lost", "restart",
            "is told by . that it holds .*operations", "answered by .: remove", "answered by .: resume", "deposed",
            "answered by .: pause", "answered by .: continue",
            "another node leads", "was taken from this connection", "has ended: OSError", "has ended: LogPoisoned",
            "has ended: LogRegression", "nearly full", "purged by somebody", "cannot be read", "made anew",
        ):  # fmt: skip
            seen[what] += len(re.findall(what, text))
    few = {what: count for what, count in seen.items() if count < 3}
    assert not few, few


def test_a_failing_seed_tells_its_last_steps_and_how_to_see_all_of_them() -> None:
    world = storm(1)
    world.witness.complain("it is said to be wrong")
    text = told(world)
    assert text.startswith("storm 1: it is said to be wrong\n")
    assert "WRONG" in text
    assert len(text.splitlines()) > 20
    assert text.endswith("python -m tests.cluster.storm 1 --verbose")
