"""`python -m bench.race`, `make race`: the command."""

from __future__ import annotations

import signal
import sys
import tempfile
from pathlib import Path
from types import FrameType
from typing import NoReturn

import click
import msgspec

from bench.race import report
from bench.race.report import Result
from bench.race.run import Plan, run
from bench.race.sides import SIDES
from bench.race.sides.side import Side
from truba.cli.options import FILE, json_option, progress, say_json, say_table
from truba.errors import TrubaError

CLIENTS_MAX = 2_000
"""PostgreSQL starts a process for each."""


def _sides(ctx: click.Context, parameter: click.Parameter, value: str) -> tuple[Side, ...]:
    names = tuple(dict.fromkeys(value.split(",")))
    if unknown := [name for name in names if name not in SIDES]:
        raise click.BadParameter(f"no side is named {', '.join(unknown)}: there are {', '.join(SIDES)}")
    return tuple(side for name, side in SIDES.items() if name in names)


def _clients(ctx: click.Context, parameter: click.Parameter, value: str) -> tuple[int, ...]:
    try:
        numbers = tuple(dict.fromkeys(int(word) for word in value.split(",")))
    except ValueError:
        raise click.BadParameter(f"{value!r}: write numbers with commas between them, such as 1,64") from None
    if not all(1 <= number <= CLIENTS_MAX for number in numbers):
        raise click.BadParameter(f"{value!r}: from 1 to {CLIENTS_MAX} clients")
    return numbers


@click.command
@click.option("--sides", default=",".join(SIDES), show_default=True, callback=_sides, help="Who races.")
@click.option("--clients", default="1,64,256", show_default=True, callback=_clients, help="How many at once.")
@click.option("--seconds", type=click.FloatRange(0.1, 3600), default=5, show_default=True, help="Of each turn.")
@click.option("--rounds", type=click.IntRange(1, 100), default=3, show_default=True, help="Turns of each side.")
@click.option("--data", type=FILE, help="Race on the disk of this directory. [default: the temporary one]")
@click.option("--markdown", is_flag=True, help="Print the result as Markdown.")
@click.option("--update", type=FILE, multiple=True, help="Put the result into this page, between its marks.")
@json_option
def race(
    sides: tuple[Side, ...],
    clients: tuple[int, ...],
    seconds: float,
    rounds: int,
    data: Path | None,
    markdown: bool,
    update: tuple[Path, ...],
    as_json: bool,
) -> None:
    """The same job on truba and on others, durable before each answer, sides taking turns: rates, ratios, latency and
    processor time. Servers are started on loopback, in a temporary directory, and ended. Exit code 1: a side failed.
    """
    directory = Path(tempfile.gettempdir()) if data is None else data
    signal.signal(signal.SIGTERM, _terminated)
    try:
        if not directory.is_dir():
            raise TrubaError(f"{directory}: there is no such directory; make it, or name another one with --data")
        for page in update:
            report.check_page(page)
        result = _raced(Plan(sides, clients, seconds, rounds, directory))
        for page in update:
            report.rewrite(page, result)
    except (TrubaError, OSError) as error:
        click.echo(f"race: {error}", err=True)
        sys.exit(1)
    if as_json:
        say_json(msgspec.to_builtins(result, str_keys=True))
    elif markdown:
        click.echo(report.markdown(result), nl=False)
    else:
        for unit in report.units(result):
            names = report.columns(unit)
            say_table(names, report.table(result, unit), names[1:])
            click.echo()
        for line in report.summary(result):
            click.echo(line)
    if any(one.install is None for one in result.absent):
        sys.exit(1)


def _raced(plan: Plan) -> Result:
    with progress() as bar:
        task = bar.add_task("compiling the load", total=plan.steps)
        return run(plan, lambda what: bar.update(task, description=what), lambda: bar.advance(task))


def _terminated(signum: int, frame: FrameType | None) -> NoReturn:
    """SIGTERM ends the race like Ctrl-C does: with its servers."""
    sys.exit(128 + signum)


if __name__ == "__main__":
    race(prog_name="python -m bench.race")
