"""Bugs made by hand: what each would mean to a user, the change of the source, and the tests that must see it.

They are written in `bugs/*.toml`, one file for each area:

    [id]
    means = "what a user would suffer"
    file = "machine/machine.py"         under src/truba
    old = '''...'''                     occurs there exactly once
    new = '''...'''
    tests = ["tests/..."]               a few: a mutant costs seconds

Nothing here runs anything.
"""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
BUGS = Path(__file__).parent / "bugs"


@dataclass(frozen=True, slots=True)
class Mutant:
    id: str
    area: str
    means: str
    file: str
    old: str
    new: str
    tests: tuple[str, ...]

    @property
    def path(self) -> Path:
        return ROOT / "src" / "truba" / self.file

    def mutate(self, source: str) -> str:
        """The source with the bug. ValueError: it has changed since the bug was thought of."""
        found = source.count(self.old)
        if found != 1:
            raise ValueError(f"{self.id}: its old text occurs {found} times in {self.file}, not once")
        return source.replace(self.old, self.new)


def read_area(path: Path) -> list[Mutant]:
    return [
        Mutant(id=name, area=path.stem, tests=tuple(bug.pop("tests")), **bug)
        for name, bug in tomllib.loads(path.read_text()).items()
    ]


def catalogue() -> dict[str, Mutant]:
    """All of them by id. ValueError when two areas use one."""
    found: dict[str, Mutant] = {}
    for path in sorted(BUGS.glob("*.toml")):
        for mutant in read_area(path):
            if mutant.id in found:
                raise ValueError(f"two mutants are called {mutant.id}")
            found[mutant.id] = mutant
    return found
