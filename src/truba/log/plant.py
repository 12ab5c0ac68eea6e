"""A log that begins in the middle of its history: after the position of a checkpoint that was taken elsewhere.

What such a log has no frames for is in the checkpoint. All that it needs of them is where they led: the position goes
into the header of its first segment, and the first batch must follow it. Never opens the log that it has made.
"""

from __future__ import annotations

from pathlib import Path

from truba.errors import DataForeign
from truba.log.directory import Directory, refusing
from truba.log.disk import Disk, OsDisk
from truba.log.opening import check_options, make_first
from truba.types import ORIGIN, Position


def plant(
    path: Path, log_id: bytes, begin: Position, *, segment_bytes: int = 32 << 20, disk: Disk | None = None
) -> None:
    """Make a log without batches whose tail is `begin`; `FileLog.open` then goes on from there.

    `log_id` (16 bytes) is the id of the log that `begin` is a position of, since chain hashes depend on it.
    Durable when it returns; a crash before leaves a directory without a log. Raises DataError: DataForeign when there
    is a log in `path` already.
    """
    check_options(segment_bytes, log_id)
    if begin.term < 0 or begin.seq < 0 or len(begin.chain) != len(ORIGIN.chain):
        raise ValueError(f"no log can begin at {begin}")
    directory = Directory.create(path, disk or OsDisk())
    try:
        with refusing(path):
            if names := directory.names():
                raise DataForeign(f"{path} holds a log already ({names[0]}); name a directory that holds none")
            directory.drop_temporary()
            make_first(directory, log_id, segment_bytes, None if begin == ORIGIN else begin)
    finally:
        directory.close()
