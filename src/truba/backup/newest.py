"""Which backup is the newest, of those that lie below one directory."""

from __future__ import annotations

import os
from pathlib import Path

import structlog

from truba.backup.manifest import NAME, UNFINISHED
from truba.backup.verify import manifest_of
from truba.errors import DataError

log = structlog.get_logger("truba.backup")


def newest(root: Path, log_id: str) -> int:
    """When the newest finished backup of the log with that id (hex) was begun, wall clock in ms; 0: there is none.

    Believes the manifests, and reads nothing else. One that cannot be read is told in the log, and counts for nothing.
    Blocks for as long as the file system does.
    """
    found_ms = 0
    for path, directories, files in os.walk(root):
        if UNFINISHED in files:
            directories.clear()
        elif NAME in files:
            try:
                manifest = manifest_of(Path(path))
            except (DataError, OSError) as error:
                log.warning("not taken for a backup", directory=path, error=str(error))
                continue
            directories.clear()  # nothing inside is another one
            if manifest.log_id == log_id:
                found_ms = max(found_ms, manifest.made_ms)
    return found_ms
