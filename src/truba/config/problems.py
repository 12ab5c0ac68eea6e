"""What can be wrong with a configuration, said in one way: file, line, key, what is wrong, what to write instead.

Values and words only; `truba.config.load` finds the problems.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from truba.errors import ConfigError


@dataclass(frozen=True, slots=True)
class Problem:
    file: Path
    line: int
    """From 1; 0 when the file as a whole is meant."""
    key: str
    """Dotted, as in `kinds.transfer.backoff.cap`; empty when no key is meant."""
    what: str
    instead: str
    """What to write or do; empty when `what` says it all."""
    column: int = 0
    """In characters from 1; 0 when the line as a whole is meant."""

    def __str__(self) -> str:
        place = ":".join(str(part) for part in (self.file, self.line, self.column) if part)
        key = f"{self.key}: " if self.key else ""
        instead = f"; {self.instead}" if self.instead else ""
        return f"{place}: {key}{self.what}{instead}"


class ConfigProblems(ConfigError):
    """A configuration file cannot be used. All its problems, in order of line; the message has one on each line."""

    def __init__(self, problems: Iterable[Problem]) -> None:
        self.problems = tuple(sorted(problems, key=lambda problem: (problem.line, problem.key)))
        super().__init__("\n".join(map(str, self.problems)))
