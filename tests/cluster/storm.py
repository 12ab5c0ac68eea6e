"""Storms: everything that may go wrong in a cluster goes wrong at random, by a seed, and no guarantee falls.

    python -m tests.cluster.storm 17 --verbose            one seed, its story as it happens
    python -m tests.cluster.storm --count 1000 --from 0   many

A storm runs real members, logs, followers, nodes and dispatchers on a simulated stream, clocks, disks, connections,
clients and handlers (tests/cluster/storms). It asserts, all the time: one history (G1, G6), equal states at equal
places (G6), records as their owners were told (G1, G2), nothing from a stale owner (G3), nothing early, nothing after
its Delete (G4, G5). Then the weather clears: all nodes agree, and every unfinished session gets delivered and finished
(G4), those of a kind with a dead handler last (G8).
"""

from __future__ import annotations

import asyncio
import gc
import sys
from collections.abc import Callable
from unittest.mock import patch

import click
from rich.progress import Progress

from tests.cluster.loop import StormLoop
from tests.cluster.storms.world import StormWorld
from truba.cluster import audit
from truba.testing.jump import JumpClock

SECONDS = 30.0
"""How long it storms, simulated; after that it takes as long as it takes."""

PAUSE_S = 0.7
"""Between two troubles, on the average."""

LONGEST_S = 600.0
"""Whatever takes longer than that will never end."""

TOLD = 60
"""Steps of the story that a failure shows."""


def storm(seed: int, show: Callable[[str], object] | None = None) -> StormWorld:
    """Run one; what it came to. Raises nothing that happens in it."""
    clock = JumpClock()
    worlds: list[StormWorld] = []

    async def main() -> None:
        world = StormWorld(seed, clock, show)
        worlds.append(world)
        try:
            async with asyncio.timeout(LONGEST_S):
                await world.run(SECONDS, PAUSE_S)
        except Exception as error:
            world.fail(error)

    # The leader's slow reading of the whole stream, slower still: it would be most of what a storm costs.
    with patch.object(audit, "APART_S", 0.5), asyncio.Runner(loop_factory=lambda: StormLoop(clock)) as runner:
        runner.run(main())
    return worlds[0]


def case(n: int) -> None:
    """Storm n. AssertionError: a guarantee fell; with the end of the story, and how to see all of it."""
    world = storm(n)
    if world.ruined:
        raise AssertionError(told(world))


def told(world: StormWorld) -> str:
    """What went wrong, and the last steps before it."""
    lines = world.story.lines
    at = next((place for place, line in enumerate(lines) if "WRONG" in line or "DEFECT" in line), len(lines))
    return "\n".join(
        [
            f"storm {world.seed}: {world.witness.wrong or world.failed}",
            f"the last steps of {len(lines)}, times in simulated seconds:",
            *lines[max(0, at - TOLD) : at + 3],
            f"all of it: python -m tests.cluster.storm {world.seed} --verbose",
        ]
    )


@click.command()
@click.argument("seed", type=int, required=False)
@click.option("--verbose", is_flag=True, help="Tell the whole story as it happens.")
@click.option("--count", type=int, default=1, help="How many seeds.")
@click.option("--from", "first", type=int, default=0, help="The first of them.")
def main(seed: int | None, verbose: bool, count: int, first: int) -> None:
    """Run one storm, or many; the exit code tells whether all went well."""
    if seed is not None:
        world = storm(seed, click.echo if verbose else None)
        click.echo(told(world) if world.ruined else f"storm {seed}: all is well ({summary(world)})")
        sys.exit(world.ruined)
    failed = []
    with Progress() as progress:
        task = progress.add_task("storms", total=count)
        for n in range(first, first + count):
            try:
                case(n)
            except AssertionError as error:
                failed.append(n)
                progress.console.print(str(error), markup=False, highlight=False)
            progress.update(task, advance=1, description=f"storm {n}, {len(failed)} failed")
    click.echo(f"{count} storms, {len(failed)} failed{': ' + ', '.join(map(str, failed)) if failed else ''}")
    sys.exit(bool(failed))


def summary(world: StormWorld) -> str:
    history = world.history
    return (
        f"{len(world.story.lines)} steps, {len(history.jobs)} sessions, {history.acknowledged} acknowledged,"
        f" {history.deliveries} pushes, term {world.sea.term}, story {world.story.digest[:16]}"
    )


if __name__ == "__main__":
    gc.freeze()
    main()
