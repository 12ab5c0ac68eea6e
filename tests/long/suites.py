"""The suites that can go on for ever: each is a function of a number, which alone decides what is done."""

from __future__ import annotations

import asyncio
import importlib
import inspect
from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class Suite:
    name: str
    where: str  # module:function
    asserts: str
    share: int = 1  # of the time, beside the others
    listed: bool = False  # the cases are a list, the most different ones first: it is begun at its beginning

    def load(self) -> Callable[[int], None]:
        """The case as a plain function. It raises when something is wrong."""
        module, _, function = self.where.partition(":")
        case = getattr(importlib.import_module(module), function)
        if not inspect.iscoroutinefunction(case):
            return case  # type: ignore[no-any-return]
        return lambda n: asyncio.run(case(n))


SUITES = (
    Suite(
        "simulation",
        "tests.simulation.case:case",
        "a pipe in a simulated world: all guarantees, all the time",
        share=3,
    ),
    Suite("storms", "tests.cluster.storm:case", "a cluster in a simulated world: all guarantees", share=3),
    Suite("disk", "tests.iofaults.seam:seam_case", "every call of the log's disk fails, one after the other"),
    Suite(
        "crashes",
        "tests.crashstates.case:crash_case",
        "every state that a crash may leave of the log: what was acknowledged, or a loud refusal",
    ),
    Suite(
        "checkpoints", "tests.crashstates.case:store_case", "log and store killed between any two steps, with RocksDB"
    ),
    Suite(
        "rot", "tests.crashstates.case:rot_case", "a data directory with one thing damaged: true, repaired, or refused"
    ),
    Suite(
        "calls",
        "tests.iofaults.case:case",
        "system calls of a real pipe fail: nothing acknowledged is lost, nothing hangs",
        listed=True,
    ),
    Suite("clocks", "tests.clocks.case:case", "clocks that jump, freeze and stand still: nothing early, nothing lost"),
    Suite("hell", "tests.hell.case:case", "handlers in all kinds of trouble beside healthy ones"),
    Suite(
        "fuzz",
        "fuzz.case:case",
        "whatever comes from outside: refused as documented, or read as every other reader does",
    ),
    Suite("kills", "tests.torture.case:case", "real processes killed and frozen, and their histories judged", share=2),
)
