"""Store sessions in a pipe until there are so many, then die by SIGKILL: the next start finds the log as it was.

Records are random bytes: nothing compresses them.
"""

from __future__ import annotations

import os
import random
import signal
import time
from pathlib import Path

from bench.scale.child import progressed, say_result
from bench.scale.pipes import ASLEEP, LOCAL, RECORD_BYTES, RECORDS_EACH, SERVICE, memory_mib, pipe

TURN = 500
"""Sessions between two waits for durability."""

YEAR_MS, DAY_MS = 365 * 86_400_000, 86_400_000


async def measure(data: str, before: int, after: int, due: int) -> None:
    """`due` sessions of each kind that has a handler are strewn evenly among the others, which sleep for a year."""
    peak_mib = 0.0
    dice = random.Random(before)
    count = after - before
    every = max(count // due, 2) if due else count + 1
    async with pipe(Path(data)) as filled:
        node = filled.node
        began_mib = memory_mib()
        owner = node.presence.attach()
        began_s = time.perf_counter()
        for done in range(count):
            kind = {0: LOCAL, 1: SERVICE}.get(done % every, ASLEEP)
            hold = node.new(owner, kind, [dice.randbytes(RECORD_BYTES) for _ in range(RECORDS_EACH)])
            node.store(hold, YEAR_MS + dice.randrange(DAY_MS) if kind == ASLEEP else 0)
            if done % TURN == 0:
                await node.sequencer.flush()
            if done % 10_000 == 0:
                peak_mib = max(peak_mib, memory_mib())
                progressed(before + done)
        await node.sequencer.flush()
        seconds = time.perf_counter() - began_s
        peak_mib = max(peak_mib, memory_mib())
        say_result({"memory_mib": peak_mib - began_mib, "stored_per_s": count / max(seconds, 1e-9)})
        os.kill(os.getpid(), signal.SIGKILL)
