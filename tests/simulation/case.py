"""Run n of the simulation: everything in it follows from that number.

`case(n)` raises AssertionError with the end of the story when a guarantee is broken. `python -m tests.simulation n`
tells the same story again, at length if wanted.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import Any
from unittest.mock import patch

import structlog

from tests.simulation.loop import SimulatedLoop, run_simulated
from tests.simulation.plan import Plan, make_plan
from tests.simulation.story import Story
from tests.simulation.world import World
from truba.testing.jump import JumpClock

LAST_STEPS = 60


@dataclass(frozen=True, slots=True)
class Run:
    """What became of one seed."""

    plan: Plan
    story: Story
    error: BaseException | None
    simulated_s: float
    acknowledged: int
    deliveries: int
    deaths: int
    turns: int


def play(seed: int) -> Run:
    """Run that seed. What went wrong is in the result."""
    clock = JumpClock(seed=seed)
    plan = make_plan(seed)
    worlds: list[World] = []
    started_s = clock.steady_s
    error: BaseException | None = None

    async def main(loop: SimulatedLoop) -> None:
        worlds.append(World(plan, clock, loop))
        loop.slow_down(plan.turn_s)
        await worlds[0].run()

    before = structlog.get_config()
    structlog.configure(processors=[_drop], wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    sizes = dict.fromkeys(("LOST_AT_ONCE", "LOST_AT_START", "MOVED_AT_ONCE"), plan.at_once)
    try:
        with patch.multiple("truba.node.presence", **sizes):
            run_simulated(main, clock)
    except Exception as caught:
        error = caught
    finally:
        structlog.configure(**before)
    world = worlds[0]
    return Run(
        plan,
        world.story,
        error,
        clock.steady_s - started_s,
        world.checker.acknowledged,
        world.checker.deliveries,
        world.deaths,
        world.loop.turns,
    )


def case(n: int) -> None:
    """One run; AssertionError with its last steps when something is wrong."""
    run = play(n)
    if run.error is not None:
        raise AssertionError(told(run, LAST_STEPS)) from run.error


def told(run: Run, last: int | None = None) -> str:
    """The plan, the steps, the end, and how to see it again."""
    end = "all is well" if run.error is None else f"{type(run.error).__name__}: {run.error}"
    return "\n".join(
        [
            f"{run.plan}",
            *run.story.lines(last),
            end,
            f"again: python -m tests.simulation {run.plan.seed} --verbose",
        ]
    )


def _drop(logger: Any, name: str, event: Any) -> Any:
    raise structlog.DropEvent
