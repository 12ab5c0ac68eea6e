"""Every target of `fuzz/` for a moment: what Hypothesis and the dice come upon, and all that was once found."""

from __future__ import annotations

import random
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fuzz.mutate import one
from fuzz.target import Target, check
from fuzz.targets import FOUND, TARGETS, found
from tests.service.process import ROOT, environment

SLOW = frozenset(("transfer", "arrival", "config", "mark"))
"""They write files."""

by_name = pytest.mark.parametrize("target", TARGETS.values(), ids=TARGETS)


@by_name
def test_the_property_holds(target: Target) -> None:
    examples = 20 if target.name in SLOW else 80

    @settings(
        max_examples=examples, deadline=None, derandomize=True, database=None, suppress_health_check=list(HealthCheck)
    )
    @given(
        st.integers(0, 2**32).map(lambda seed: one(target, random.Random(seed)))
        | st.lists(st.sampled_from(target.tokens or (b"",)) | st.binary(max_size=20), max_size=12).map(b"".join)
    )
    def holds(data: bytes) -> None:
        check(target, data)

    holds()


@by_name
def test_it_holds_for_what_the_dice_give(target: Target) -> None:
    dice = random.Random(3)
    for _ in range(60 if target.name in SLOW else 500):
        check(target, one(target, dice), measured=False)


@by_name
def test_it_holds_for_all_that_was_once_found(target: Target) -> None:
    for path in found(target):
        check(target, path.read_bytes())


def test_what_was_found_belongs_to_a_target() -> None:
    assert {path.name for path in FOUND.iterdir()} <= set(TARGETS)


@by_name
def test_a_seed_names_its_input(target: Target) -> None:
    assert [one(target, random.Random(seed)) for seed in range(9)] == [
        one(target, random.Random(seed)) for seed in range(9)
    ]


@by_name
def test_seeds_are_what_a_target_is_about(target: Target) -> None:
    """One that would take nothing for granted would also find nothing."""
    dice = random.Random(1)
    assert len({target.seed(dice) for _ in range(50)}) > 10


def test_memory_is_measured() -> None:
    greedy = Target("greedy", lambda data: bytes(20 << 20) and None, lambda dice: b"")
    with pytest.raises(AssertionError, match="of memory"):
        check(greedy, b"")


def test_the_program_says_what_it_does(tmp_path: Path) -> None:
    """Without atheris, too."""
    run = [sys.executable, "-m", "fuzz", "units", "--seconds", "0", "--seed", "3", "--dice"]
    done = subprocess.run(run, env=environment(), cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    assert "inputs from dice (as told), first seed 3" in done.stdout
    assert "1 inputs, the property holds" in done.stdout
    assert ROOT.joinpath("fuzz").is_dir()
