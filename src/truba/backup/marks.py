"""Directories that look like a pipe's and are none: a backup, and what an interrupted restore left."""

from __future__ import annotations

import os
from pathlib import Path

from truba.backup.manifest import NAME, RESTORING, UNFINISHED
from truba.errors import DataForeign


def refuse_inside(place: Path) -> None:
    """DataForeign for a place in a backup, finished or not, which whatever is put there would spoil."""
    for above in Path(os.path.realpath(place)).parents:
        # The name alone is that of many a file; a finished backup has a store beside it.
        if (above / UNFINISHED).exists() or ((above / NAME).exists() and (above / "store").is_dir()):
            raise DataForeign(f"{above} is a backup, and {place} inside would spoil it: name another place")


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
