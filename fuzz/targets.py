"""All targets by name, and what was once found.

`fuzz/found/NAME/` holds inputs that showed a defect, mended since, or one that was put in by hand to see it shown.
"""

from __future__ import annotations

from pathlib import Path

from fuzz import cluster, disk, text, wire
from fuzz.target import Target

TARGETS: dict[str, Target] = {
    target.name: target for room in (wire, disk, cluster, text) for target in room.TARGETS
}  # fmt: skip

FOUND = Path(__file__).with_name("found")


def found(target: Target) -> list[Path]:
    room = FOUND / target.name
    return sorted(room.iterdir()) if room.is_dir() else []
