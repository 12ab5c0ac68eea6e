"""A process that appends and trims until it is killed. Prints the last seq of each batch once it is acknowledged."""

from __future__ import annotations

import asyncio
import os
import random
import sys
from pathlib import Path
from typing import Any

from truba.log.file import FileLog
from truba.ports.log import LogBatch
from truba.testing.log import commit


def body_of(first_seq: int) -> bytes:
    """What the batch that begins with this seq holds: of any size, some of it zeros."""
    dice = random.Random(first_seq)
    return dice.randbytes(dice.choice([10, 500, 5_000, 40_000])) + bytes(dice.choice([0, 3_000]))


async def work(path: Path, where: Any) -> None:
    log = FileLog.open(path, segment_bytes=128 << 10, reserve_bytes=0, commit=where)
    while True:
        seq = log.tail.seq + 1
        await commit(log, LogBatch(1, seq, 1, body_of(seq)))
        os.write(1, b"%d\n" % seq)
        if seq % 50 == 0:
            log.trim(seq - 100)


if __name__ == "__main__":
    asyncio.run(work(Path(sys.argv[1]), sys.argv[2]))
