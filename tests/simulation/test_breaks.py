"""The simulation can fail: bugs put into the pipe on purpose are noticed (`python -m tests.simulation --breaks`)."""

from __future__ import annotations

import pytest

from tests.simulation.breaks import BREAKS, broken
from tests.simulation.case import case, play
from tests.simulation.checker import Violation

SEEDS_MAX = 600

RARE = {name for name, each in BREAKS.items() if each.rare}


@pytest.mark.parametrize("name", [name for name in BREAKS if name not in RARE])
def test_a_bug_is_noticed(name: str) -> None:
    with broken(name):
        assert any(play(seed).error is not None for seed in range(SEEDS_MAX))


def test_a_failing_seed_tells_its_story() -> None:
    with broken("delivered early"):
        seed = next(seed for seed in range(SEEDS_MAX) if "early; cause" in str(play(seed).error))
        with pytest.raises(AssertionError, match="early; cause") as failed:
            case(seed)
        told = str(failed.value).splitlines()
        assert told[0].startswith(f"seed {seed}: ")
        assert told[-1] == f"again: python -m tests.simulation {seed} --verbose"
        assert any("is handed" in line for line in told)
        again = play(seed)
        assert isinstance(again.error, Violation)
        assert str(again.error) in told[-2]
    assert play(seed).error is None
