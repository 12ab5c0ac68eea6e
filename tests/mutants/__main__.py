"""Bugs on purpose, each of which the tests must see: `make mutants`.

    python -m tests.mutants                            all of them
    python -m tests.mutants log cluster-rule-no-chain  those of an area, or named
    python -m tests.mutants --list                     what there is

First the same tests run on an unchanged copy: they must pass. Exit status 1 when they do not, or when a bug survives.
"""

from __future__ import annotations

import json
import sys
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import asdict

import click
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from tests.mutants.catalogue import Mutant, catalogue
from tests.mutants.trial import Court, Outcome

STYLES = {"caught": "green", "hang": "yellow", "survived": "red", "broken": "red"}


def chosen(_context: click.Context, _parameter: click.Parameter, names: tuple[str, ...]) -> list[Mutant]:
    """All, or those with these ids or of these areas."""
    known = catalogue()
    areas = {mutant.area for mutant in known.values()}
    if unknown := [name for name in names if name not in known and name not in areas]:
        raise click.BadParameter(f"{unknown[0]!r} is neither a mutant nor an area ({', '.join(sorted(areas))})")
    mutants = [mutant for mutant in known.values() if not names or {mutant.id, mutant.area} & set(names)]
    for mutant in mutants:
        try:
            mutant.mutate(mutant.path.read_text())
        except ValueError as stale:
            raise click.ClickException(str(stale)) from None
    return mutants


def judge(mutants: list[Mutant], jobs: int, console: Console) -> tuple[Outcome, dict[str, Outcome]]:
    """The control, and each mutant's outcome."""
    court = Court()
    outcomes: dict[str, Outcome] = {}
    columns = (TextColumn("{task.description:<28}"), BarColumn(30), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console) as progress, ThreadPoolExecutor(jobs) as pool:
        task = progress.add_task("mutants", total=len(mutants) + 1)
        try:
            control = pool.submit(court.try_nothing, {test for mutant in mutants for test in mutant.tests})
            control.add_done_callback(lambda _: progress.advance(task))
            trials = {pool.submit(court.try_mutant, mutant): mutant for mutant in mutants}
            for trial in as_completed(trials):
                mutant, outcome = trials[trial], trial.result()
                outcomes[mutant.id] = outcome
                progress.update(task, advance=1, description=mutant.id)
                if not outcome.caught:
                    progress.console.print(f"[red]{outcome.verdict}[/]: {mutant.id}", highlight=False)
            return control.result(), outcomes
        except BaseException:
            court.close()
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def report(mutants: list[Mutant], control: Outcome, outcomes: dict[str, Outcome], console: Console) -> None:
    table = Table("mutant", "verdict", "by", "seconds", box=None, header_style="bold")
    for mutant in mutants:
        one = outcomes[mutant.id]
        table.add_row(mutant.id, f"[{STYLES[one.verdict]}]{one.verdict}[/]", _short(one.test), f"{one.seconds:.1f}")
    console.print(table)
    for mutant in mutants:
        one = outcomes[mutant.id]
        if not one.caught:
            console.print(f"[red]{one.verdict}[/] {mutant.id}: {mutant.means}", highlight=False)
            console.print(one.why, markup=False, highlight=False)
    caught = sum(one.caught for one in outcomes.values())
    console.print(f"{caught} of {len(mutants)} caught, {sum(one.verdict == 'hang' for one in outcomes.values())} of"
                  " them by standing still", highlight=False)  # fmt: skip
    if control.verdict != "survived":
        console.print("[red]the unchanged copy fails the same tests, so all this proves nothing[/]:", control.test)
        console.print(control.why, markup=False, highlight=False)


def _short(test: str) -> str:
    """Without its parameters, which may be anything."""
    path, _, name = test.partition("[")[0].removeprefix("tests/").partition("::")
    return f"{path} {name}"


@click.command(help=__doc__.replace("\n\n    ", "\n\n\b\n    "))
@click.argument("mutants", nargs=-1, callback=chosen, metavar="[ID|AREA]...")
@click.option("--jobs", default=2, type=click.IntRange(1), help="Mutants at a time [2].")
@click.option("--json", "as_json", is_flag=True, help="One JSON object on standard output, the rest elsewhere.")
@click.option("--list", "listing", is_flag=True, help="Show the mutants.")
def main(mutants: list[Mutant], jobs: int, as_json: bool, listing: bool) -> None:
    console = Console(stderr=as_json, width=None if sys.stdout.isatty() else 200)
    if listing:
        table = Table("mutant", "what a user would suffer", box=None, header_style="bold")
        for mutant in mutants:
            table.add_row(mutant.id, mutant.means)
        console.print(table)
        return
    control, outcomes = judge(mutants, jobs, console)
    report(mutants, control, outcomes, console)
    held = control.verdict == "survived"
    if as_json:
        found = [{"id": m.id, "area": m.area, "means": m.means} | asdict(outcomes[m.id]) for m in mutants]
        print(json.dumps({"control": asdict(control), "mutants": found}))  # noqa: T201
    sys.exit(0 if held and all(one.caught for one in outcomes.values()) else 1)


if __name__ == "__main__":
    main()
