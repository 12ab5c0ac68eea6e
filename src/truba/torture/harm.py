"""Who is killed or frozen in a round, and when: all from its seed."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from truba.torture.kept import Kept

Part = Literal["pipe", "client", "handler"]

PARTS: tuple[Part, ...] = ("pipe", "client", "handler")

PAUSE_STARTS = 0.7
PAUSE_S_MIN = 0.2
"""Between two acts of harm, on average: so many times what a start of the pipe takes on this machine. Where a start
takes long, nobody would get any work done otherwise."""

FREEZE_S = (0.05, 0.3, 1.2, 2.5)
"""The long ones are beyond every grace and timeout of a round."""

LAST_CHECKPOINT_S = 0.02
"""When a pipe that was told to stop is killed, on average: in the middle of its last checkpoint."""


@dataclass(slots=True)
class Harm:
    """What was done, counted."""

    kills: Counter[Part] = field(default_factory=Counter)
    kills_in_start: int = 0
    """Of these, how many fell into a start of the pipe: its recovery."""
    freezes: Counter[Part] = field(default_factory=Counter)
    stops: int = 0
    """SIGTERM to the pipe."""

    def add(self, other: Harm) -> None:
        self.kills += other.kills
        self.kills_in_start += other.kills_in_start
        self.freezes += other.freezes
        self.stops += other.stops


async def harm(everybody: Sequence[Kept], dice: random.Random, over: Callable[[], bool], done: Harm) -> None:
    """Harm one after the other until it is over."""
    by_part: dict[Part, list[Kept]] = {"pipe": [], "client": [], "handler": []}
    for one in everybody:
        by_part[one.part].append(one)
    (pipe,) = by_part["pipe"]
    while True:
        await asyncio.sleep(dice.expovariate(1.0) * max(PAUSE_S_MIN, PAUSE_STARTS * pipe.start_s))
        if over():
            return
        part = dice.choices(PARTS, (5, 3, 2))[0]
        act = dice.choices(("kill", "freeze", "start", "stop", "all"), (35, 20, 25, 10, 10))[0]
        victim = dice.choice(by_part[part])
        match act:
            case "freeze":
                done.freezes[part] += 1
                await victim.freeze(dice.choice(FREEZE_S) * dice.uniform(0.5, 1.0))
            case "start" if part == "pipe":
                kills = await victim.killed_in_start(dice.uniform(0.6, 1.05))
                done.kills[part] += kills
                done.kills_in_start += 1
            case "stop" if part == "pipe":
                done.stops += victim.ask_to_stop()
                await asyncio.sleep(dice.expovariate(1 / LAST_CHECKPOINT_S))
                if dice.random() < 0.7:
                    done.kills[part] += victim.kill()
            case "all":  # as if the host had died, but for what its kernel still writes
                for one in everybody:
                    done.kills[one.part] += one.kill()
            case _:
                done.kills[part] += victim.kill()
