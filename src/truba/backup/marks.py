"""Directories that look like a pipe's and are none: a backup, and what an interrupted restore left."""

from __future__ import annotations

from pathlib import Path

from truba.backup.manifest import NAME, RESTORING, UNFINISHED
from truba.errors import DataForeign


def refuse_unfit(data: Path) -> None:
    """DataForeign where nothing may be served from, whatever else lies there."""
    if (data / NAME).exists() or (data / UNFINISHED).exists():
        raise DataForeign(
            f"{data} is a backup, and no data directory: `truba restore {data} DATA` makes one of it; nothing was"
            " changed"
        )
    if (data / RESTORING).exists():
        raise DataForeign(
            f"{data} is what an interrupted `truba restore` left: run that again, it begins anew; nothing was changed"
        )
