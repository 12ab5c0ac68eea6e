"""`python -m bench.scale`, `make scale`: the command."""

from __future__ import annotations

import asyncio
import sys
import tempfile
from pathlib import Path

import click
import msgspec

from bench.scale import report
from bench.scale.results import Result, verdicts
from bench.scale.run import CASES, full, quick, run
from truba.cli.options import FILE, json_option, progress, say_json, say_table
from truba.errors import TrubaError


def _cases(ctx: click.Context, parameter: click.Parameter, value: str) -> tuple[str, ...]:
    names = tuple(dict.fromkeys(value.split(",")))
    if unknown := [name for name in names if name not in CASES]:
        raise click.BadParameter(f"no case is named {', '.join(unknown)}: there are {', '.join(CASES)}")
    return names


@click.command
@click.option("--sessions", type=click.IntRange(1_000), help="Stored in the end. [default: 10,000,000; quick: 20,000]")
@click.option("--quick", "is_quick", is_flag=True, help="A few seconds of each, to see that it works.")
@click.option("--cases", default=",".join(CASES), show_default=True, callback=_cases, help="What is measured.")
@click.option("--data", type=FILE, help="On the disk of this directory. [default: the temporary one]")
@click.option("--charts", type=FILE, help="Draw pictures into this directory.")
@click.option("--update", type=FILE, help="Put the tables into this page, between its marks.")
@click.option("--from", "earlier", type=FILE, help="Measure nothing: show what an earlier --json said.")
@json_option
def scale(
    sessions: int | None,
    is_quick: bool,
    cases: tuple[str, ...],
    data: Path | None,
    charts: Path | None,
    update: Path | None,
    earlier: Path | None,
    as_json: bool,
) -> None:
    """What ten million stored sessions, a million active ones, long sessions and large records cost.

    Takes 2 KB of disk for each session, and ten minutes with ten million of them. Exit status 1 when a goal is missed.
    """
    try:
        if earlier is not None:
            result = msgspec.json.decode(earlier.read_bytes(), type=Result)
        else:
            plan = quick(sessions or 20_000, cases) if is_quick else full(sessions or 10_000_000, cases)
            with tempfile.TemporaryDirectory(prefix="truba-scale-", dir=data) as directory, progress() as bar:
                task = bar.add_task("begin", total=1)

                def tell(what: str, at: int, of: int) -> None:
                    bar.update(task, description=what, completed=at, total=of)

                result = asyncio.run(run(plan, Path(directory), tell))
        if update is not None:
            report.rewrite(update, report.markdown(result))
    except msgspec.DecodeError as error:
        raise click.ClickException(f"{earlier} is not what --json wrote: {error}") from error
    except (TrubaError, OSError) as error:
        raise click.ClickException(str(error)) from error
    if charts is not None:
        from bench.scale.charts import draw  # matplotlib takes a second to import

        draw(result, charts)
    if as_json:
        say_json(msgspec.to_builtins(result))
    else:
        say(result)
    if any(not verdict.met for verdict in verdicts(result)) and not is_quick:
        sys.exit(1)


def say(result: Result) -> None:
    click.echo(report.origin(result) + "\n")
    if result.steps:
        say_table(report.STEP_COLUMNS, map(report.step_row, result.steps), report.STEP_COLUMNS)
        click.echo()
    say_table(("what", "result"), report.cases(result))
    click.echo()
    say_table(("goal", "found", "met"), report.goals(result))


if __name__ == "__main__":
    scale()
