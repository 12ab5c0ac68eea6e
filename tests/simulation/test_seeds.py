"""The short version: 2,000 runs, 23 ms each. The long one: `python -m tests.simulation --from M --count N`."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.simulation.case import case, play

CHUNK = 100
ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("first", range(0, 2_000, CHUNK))
def test_seeds(first: int) -> None:
    for seed in range(first, first + CHUNK):
        case(seed)


def test_a_seed_is_a_run() -> None:
    """The same steps, at the same times, however often it is played and whatever was played before."""
    seeds = range(40)
    first = [play(seed).story.digest() for seed in seeds]
    assert len(set(first)) == len(first)
    assert [play(seed).story.digest() for seed in reversed(seeds)] == first[::-1]


def test_a_seed_is_a_run_in_every_process() -> None:
    """Python draws another order of sets of texts for each process: it must not matter."""
    seed = 5
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT / "src"), str(ROOT)])}
    for hash_seed in ("1", "2"):
        told = subprocess.run(
            [sys.executable, "-m", "tests.simulation", str(seed), "--digest"],
            env={**environment, "PYTHONHASHSEED": hash_seed},
            cwd=ROOT,
            check=True,
            capture_output=True,
            text=True,
            timeout=100,
        )
        assert told.stdout.strip() == play(seed).story.digest()


def test_the_runs_are_dense() -> None:
    """Seeds that do nothing prove nothing."""
    runs = [play(seed) for seed in range(60)]
    assert sum(run.acknowledged for run in runs) > 60 * 60
    assert sum(run.deliveries for run in runs) > 60 * 10
    assert sum(run.deaths for run in runs) > 60
    what = {step[2] for run in runs for step in run.story.steps}
    for needed in ("loses power", "is killed", "is told to stop", "gives up:", "checkpoint", "jumps by ms:", "cut"):
        assert needed in what
