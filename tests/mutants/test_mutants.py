"""The short version of `make mutants`: every bug still fits the source, and some are tried.

What the trial itself promises is tested too: it tells a bug that is seen from one that is not, from one that makes the
tests stand still, and from tests that cannot be run; and a process that a test starts has the bug as well.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from tests.mutants import trial
from tests.mutants.catalogue import ROOT, Mutant, catalogue
from tests.mutants.trial import Court

MUTANTS = catalogue()
QUICK = [
    "machine-delete-any-epoch",
    "frame-hash-unchecked",
    "rule-no-chain",
    "resume-doubled",
    "wire-wrong-arguments-stored",  # the test starts a process, which must have the bug too
]


@pytest.fixture
def court() -> Iterator[Court]:
    court = Court()
    yield court
    court.close()


def test_there_are_enough_everywhere() -> None:
    areas = Counter(mutant.area for mutant in MUTANTS.values())
    assert areas.total() >= 60
    assert min(areas.values()) >= 10, areas


@pytest.mark.parametrize("name", MUTANTS)
def test_it_fits_the_source(name: str) -> None:
    """Its old text is there once, what comes out is Python and another program, and its tests exist."""
    mutant = MUTANTS[name]
    source = mutant.path.read_text()
    mutated = compile(mutant.mutate(source), mutant.file, "exec", dont_inherit=True)
    assert mutated != compile(source, mutant.file, "exec", dont_inherit=True)
    assert mutant.means
    assert mutant.tests
    for test in mutant.tests:
        path, *names = test.partition("[")[0].split("::")
        assert (ROOT / path).exists(), test
        for each in names:
            assert each in (ROOT / path).read_text(), test


@pytest.mark.parametrize("name", QUICK)
def test_it_is_caught(name: str, court: Court) -> None:
    outcome = court.try_mutant(MUTANTS[name])
    assert outcome.caught, outcome


PACE = Mutant(
    id="test-pace",
    area="test",
    means="nothing",
    file="log/pace.py",
    old="        self._left -= 1\n",
    new="        self._left -= 1\n",
    tests=("tests/log/test_pace.py",),
)


def test_a_change_that_no_test_sees_survives(court: Court) -> None:
    outcome = court.try_mutant(replace(PACE, new="        self._left -= 1  # one less\n"))
    assert (outcome.verdict, outcome.test) == ("survived", ""), outcome


def test_standing_still_is_told(court: Court, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trial, "TEST_S", 2.0)
    outcome = court.try_mutant(replace(PACE, new="        while True: pass\n"))
    assert outcome.verdict == "hang", outcome
    assert outcome.test.startswith("tests/log/test_pace.py::")


@pytest.mark.parametrize(
    "mutant",
    [replace(PACE, new="        self._left -=\n"), replace(PACE, tests=("tests/log/test_pace.py::test_of_nothing",))],
)
def test_tests_that_cannot_be_run_prove_nothing(court: Court, mutant: Mutant) -> None:
    outcome = court.try_mutant(mutant)
    assert (outcome.verdict, outcome.caught) == ("broken", False), outcome


def test_a_bug_that_fits_twice_or_nowhere_is_refused() -> None:
    for old in ("        self._left", "nowhere"):
        mutant = replace(PACE, old=old)
        with pytest.raises(ValueError, match="times in log/pace"):
            mutant.mutate(mutant.path.read_text())


def test_the_copy_wins(court: Court, tmp_path: Path) -> None:
    """Otherwise the trial ends at once, and never says that anything was caught."""
    control = court.try_nothing(["tests/log/test_pace.py"])
    assert control.verdict == "survived", control
    monkeypatch = pytest.MonkeyPatch()
    environment = trial._environment  # noqa: SLF001
    with monkeypatch.context() as patch:
        patch.setattr(trial, "_environment", lambda place: environment(place) | {trial.SOURCE: str(tmp_path)})
        outcome = court.try_nothing(["tests/log/test_pace.py"])
    assert outcome.verdict == "broken"
    assert f"not from {tmp_path}" in outcome.why
