"""`truba bench`: operations a second, embedded and over TCP, beside what the disk does by itself."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from truba.cli.failure import PROBLEM, Failure
from truba.cli.options import FILE, json_option, progress, say_json, say_table

if TYPE_CHECKING:
    from truba.bench.race import Result


@click.command
@click.option("--embedded", "sides", flag_value="embedded", help="Only in-process.")
@click.option("--tcp", "sides", flag_value="tcp", help="Only over TCP.")
@click.option("--url", help="Measure this pipe, which runs already, over TCP; its data grows by nothing that stays.")
@click.option("--kind", type=int, default=7, show_default=True, help="Kind of the sessions, with --url.")
@click.option("--clients", default="1,16,64,256", show_default=True, help="How many at once, in turn.")
@click.option("--seconds", type=click.FloatRange(0.05, 600), default=3.0, show_default=True, help="Of each round.")
@click.option("--rounds", type=click.IntRange(1, 100), default=3, show_default=True, help="Medians are of these.")
@click.option("--record-bytes", type=click.IntRange(1, 1 << 20), default=256, show_default=True)
@click.option("--data", type=FILE, help="A directory on the disk to measure; default: the temporary one.")
@click.option("--markdown", is_flag=True, help="Print the table as Markdown.")
@json_option
def bench(
    sides: str | None,
    url: str | None,
    kind: int,
    clients: str,
    seconds: float,
    rounds: int,
    record_bytes: int,
    data: Path | None,
    markdown: bool,
    as_json: bool,
) -> None:
    """Measure: New, three Appends, Delete, each durable before its answer, by many at once.

    Quoted are medians over the rounds, which take turns. The last columns tell whether the maker of the load was the
    limit (its share of one core) and what an operation costs the pipe (microseconds of CPU, user and system).

    \b
    Examples:
      truba bench
      truba bench --tcp --clients 64 --seconds 10
      truba bench --data /var/lib --json
      truba bench --url truba://127.0.0.1:7433 --kind 7
    """
    from truba.bench.race import BenchError, Plan, race

    try:
        numbers = tuple(int(number) for number in clients.split(","))
    except ValueError:
        numbers = ()
    if not numbers or min(numbers) < 1 or max(numbers) > 10_000:
        raise click.UsageError("--clients takes numbers from 1 to 10000 with commas between, e.g. 1,16,64")
    if url and sides == "embedded":
        raise click.UsageError("--url and --embedded exclude each other")
    both = ("embedded", "tcp")
    chosen = (sides,) if sides else ("tcp",) if url else both
    plan = Plan(chosen, numbers, seconds, rounds, record_bytes, data, url, kind)
    with progress() as bar:
        task = bar.add_task("bench", total=None)
        try:
            result = race(plan, lambda done, of, what: bar.update(task, completed=done, total=of, description=what))
        except BenchError as error:
            raise Failure(PROBLEM, str(error)) from error
    if as_json:
        say_json(result.as_document())
    elif markdown:
        click.echo(as_markdown(result))
    else:
        _say(result)


TITLES = ("where", "at once", "operations/s", "p50 ms", "p99 ms", "load CPU", "pipe us/op")


def _cells(result: Result) -> list[tuple[str, ...]]:
    return [
        (
            row.side,
            str(row.clients),
            f"{row.per_second:,.0f}",
            f"{row.p50_ms:.2f}",
            f"{row.p99_ms:.2f}",
            f"{row.load_cpu:.0%}",
            f"{row.server_user_us:.1f} + {row.server_system_us:.1f}" if row.server_user_us else "(in the load)",
        )
        for row in result.rows
    ]


def _raw(result: Result) -> str:
    rate = 1e6 / result.raw_sync_us
    return f"write + fdatasync of 4 KiB on the same disk, same run: {result.raw_sync_us:.0f} us, {rate:,.0f}/s"


def _say(result: Result) -> None:
    say_table(TITLES, _cells(result), numeric=TITLES[1:])
    click.echo(_raw(result))


def as_markdown(result: Result) -> str:
    """The table for the README."""
    lines = ["| " + " | ".join(TITLES) + " |", "| --- |" + " ---: |" * (len(TITLES) - 1)]
    lines += ["| " + " | ".join(cells) + " |" for cells in _cells(result)]
    return "\n".join([*lines, "", _raw(result) + "."])
