"""python -m tests.simulation SEED [--verbose] | --from M --count N: play seeds, tell what went wrong."""

from __future__ import annotations

import sys
import time
from contextlib import nullcontext

import click
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from tests.simulation.breaks import BREAKS, broken
from tests.simulation.case import LAST_STEPS, Run, play, told


@click.command(help="Play one SEED and tell its story; or --count seeds, and tell the stories of those that fail.")
@click.argument("seed", type=int, required=False)
@click.option("--verbose", is_flag=True, help="the whole story, not its end alone")
@click.option("--from", "first", type=int, default=0, help="first seed")
@click.option("--count", type=int, default=100, help="how many seeds")
@click.option("--break", "name", help="with that bug in the pipe, see tests/simulation/breaks.py")
@click.option(
    "--breaks", "part", help="with each bug that has this in its name (all: any): in how many seeds it is noticed"
)
@click.option("--digest", is_flag=True, help="only the digest of the story")
def main(
    seed: int | None, verbose: bool, first: int, count: int, name: str | None, part: str | None, digest: bool
) -> None:
    if part is not None:
        sys.exit(_all_breaks("" if part == "all" else part, first, count))
    with broken(name) if name else nullcontext():
        _play(seed, verbose, first, count, digest)


def _play(seed: int | None, verbose: bool, first: int, count: int, digest: bool) -> None:
    if seed is not None:
        run = play(seed)
        click.echo(run.story.digest() if digest else told(run, None if verbose else LAST_STEPS))
        if not digest:
            click.echo(_figures(run))
        sys.exit(run.error is not None)
    failed = _many(first, count)
    sys.exit(bool(failed))


def _many(first: int, count: int) -> list[int]:
    console = Console()
    failed: list[int] = []
    acknowledged = deliveries = deaths = 0
    simulated_s = 0.0
    started_s = time.process_time()
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console) as progress:
        task = progress.add_task("seeds", total=count)
        for seed in range(first, first + count):
            run = play(seed)
            acknowledged += run.acknowledged
            deliveries += run.deliveries
            deaths += run.deaths
            simulated_s += run.simulated_s
            if run.error is not None:
                failed.append(seed)
                console.print(told(run, LAST_STEPS), markup=False, highlight=False, soft_wrap=True)
            progress.update(task, advance=1, description=f"seed {seed}, {len(failed)} failed")
    took_s = time.process_time() - started_s
    console.print(
        f"{count} seeds from {first}: {len(failed)} failed {failed or ''}; {took_s:.1f} s of CPU,"
        f" {took_s / count * 1000:.0f} ms a seed; {acknowledged} operations acknowledged, {deliveries} deliveries,"
        f" {deaths} deaths of the pipe, {simulated_s / 3600:.1f} simulated hours",
        highlight=False,
        soft_wrap=True,
    )
    return failed


def _all_breaks(part: str, first: int, count: int) -> int:
    """How many bugs live."""
    lived = 0
    for name in [name for name in BREAKS if part in name]:
        noticed = [0] * count
        example = ""
        with broken(name):
            for number in range(count):
                run = play(first + number)
                noticed[number] = run.error is not None
                if run.error is not None and not example:
                    example = f"seed {first + number}: {run.error}"
        lived += not sum(noticed)
        click.echo(f"{sum(noticed):5} of {count}  {name}  ({example[:150]})")
    return lived


def _figures(run: Run) -> str:
    return (
        f"{run.simulated_s:.1f} simulated seconds, {run.acknowledged} operations acknowledged,"
        f" {run.deliveries} deliveries, {run.deaths} deaths of the pipe, {run.turns} turns of the loop"
    )


if __name__ == "__main__":
    main()
