"""Very many sessions with an owner at once: memory, work beside them, a checkpoint, and the loss of that owner."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

from bench.scale.child import progressed, say_result
from bench.scale.parts.fill import TURN
from bench.scale.pauses import Pauses
from bench.scale.pipes import ASLEEP, RECORD, memory_mib, pipe, work


async def measure(data: str, sessions: int, seconds: float, die: bool) -> None:
    """`die`: by SIGKILL, once they are open, for the start that follows; else all the rest."""
    async with pipe(Path(data)) as busy:
        node = busy.node
        await work(busy, 0.2)
        began_mib, began_s = memory_mib(), time.perf_counter()
        owner = node.presence.attach()
        for done in range(sessions):
            node.new(owner, ASLEEP, [RECORD])
            if done % TURN == 0:
                await node.sequencer.flush()
            if done % 10_000 == 0:
                progressed(done)
        await node.sequencer.flush()
        opened_s = time.perf_counter() - began_s
        if die:
            say_result({})
            os.kill(os.getpid(), signal.SIGKILL)
        await node.checkpointer.wait()
        each = (memory_mib() - began_mib) * 2**20 / sessions
        with Pauses() as beside:
            await work(busy, seconds)
        with Pauses() as checkpoint:
            began_s = time.perf_counter()
            await node.checkpoint()
            checkpoint_s = time.perf_counter() - began_s
        with Pauses() as lost:
            began_s = time.perf_counter()
            node.presence.detach(owner)
            while owner.holds:
                await work(busy, 0.01)
            await node.sequencer.flush()
            lost_s = time.perf_counter() - began_s
        said = {
            "sessions": sessions,
            "bytes_each": each,
            "opened_per_s": sessions / opened_s,
            "work_late": beside.late,
            "checkpoint_s": checkpoint_s,
            "checkpoint_late": checkpoint.late,
            "lost_s": lost_s,
            "lost_late": lost.late,
        }
    say_result(said)
