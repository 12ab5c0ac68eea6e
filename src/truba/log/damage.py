"""A place of the log whose bytes are not what was written, as a value and as an error."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from truba.errors import DataDamaged


class Damage(NamedTuple):
    """The first bad place. `seq`: the first event that cannot be read; 0 when the place does not tell."""

    name: str  # of the file
    offset: int
    seq: int
    reason: str


class LogDamaged(DataDamaged):
    """DataDamaged with its place in `damage`."""

    def __init__(self, damage: Damage, directory: Path | None = None) -> None:
        place = f"{damage.name}, offset {damage.offset}" + (f", seq {damage.seq}" if damage.seq else "")
        where = directory or "DIR"
        super().__init__(
            f"the log is damaged at {place}: {damage.reason}. Nothing was changed. `truba log verify {where}` shows"
            f" what is whole; `truba log repair {where}` cuts the log there and keeps the rest"
        )
        self.damage = damage
