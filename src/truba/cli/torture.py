"""`truba torture`: on the disk that will be used, everything is killed again and again, and every answer is checked."""

from __future__ import annotations

import asyncio
import signal
from pathlib import Path
from typing import TYPE_CHECKING

import click

from truba.cli.failure import MISSING, PROBLEM, Failure
from truba.cli.options import FILE, json_option, progress, say_json, say_table
from truba.config.units import seconds, time_text

if TYPE_CHECKING:
    from truba.torture.run import Report


def _time(ctx: click.Context, parameter: click.Parameter, value: str) -> float:
    try:
        time_s = seconds(value)
    except ValueError as error:
        what, wanted = error.args
        raise click.BadParameter(f"{what}: write {wanted}") from None
    if time_s <= 0:
        raise click.BadParameter(f"{value!r}: it must be above zero")
    return time_s


@click.command
@click.argument("directory", type=FILE)
@click.option("--time", "time_s", default="1m", show_default=True, callback=_time, help="For how long, about.")
@click.option("--seed", type=click.IntRange(0), default=1, show_default=True, help="Of the first round; then the next.")
@json_option
def torture(directory: Path, time_s: float, seed: int, as_json: bool) -> None:
    """Have a pipe, its clients and its handlers killed on this disk, and check every answer they got.

    In rounds of about fifteen seconds: a pipe, three clients and two handlers work at full speed, each a process of
    its own, and are killed (SIGKILL) and frozen (SIGSTOP) at random moments, the pipe during its recovery and its
    checkpoints, too. Then all that was asked and answered is checked, session by session. How to read the result:
    docs/torture.md.

    It works in a new directory inside DIRECTORY and touches nothing else there. That is removed at the end, or kept
    when something was found, which is exit code 1.

    \b
    Examples:
      truba torture /var/lib/truba
      truba torture --time 10m /var/lib/truba
      truba torture --seed 7 --time 1s /tmp     one round, that of seed 7
    """
    if not directory.is_dir():
        raise Failure(MISSING, f"{directory}: there is no such directory", "make it, or name another one")
    try:
        report = asyncio.run(_run(directory.absolute(), time_s, seed))
    except asyncio.CancelledError:  # by SIGTERM; everything is ended and removed as after Ctrl-C
        click.get_current_context().exit(130)
    if as_json:
        say_json(report.as_dict())
    else:
        _tell(report)
    if report.findings:
        click.get_current_context().exit(PROBLEM)


async def _run(directory: Path, time_s: float, seed: int) -> Report:
    from truba.torture.run import run

    main = asyncio.current_task()
    assert main is not None
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, main.cancel)
    with progress() as bar:
        task = bar.add_task("starting", total=round(time_s))

        def tell(report: Report, text: str, passed_s: float) -> None:
            bar.update(task, completed=min(round(passed_s), round(time_s)), description=text)

        return await run(directory, time_s, seed, tell=tell)


def _tell(report: Report) -> None:
    kills, freezes, calls = report.harm.kills, report.harm.freezes, report.outcomes
    rows: list[tuple[object, str]] = [
        (report.rounds, f"rounds, of seeds {report.seed} to {report.seed + report.rounds - 1}"),
        (kills["pipe"], f"kills of the pipe, {report.harm.kills_in_start} of them aimed at its recovery"),
        (kills["client"], "kills of clients"),
        (kills["handler"], "kills of handlers"),
        (freezes.total(), "freezes, of all three"),
        (report.harm.stops, "clean stops of the pipe, most of them killed in their last checkpoint"),
        ("", ""),
        (calls["ok"], f"calls acknowledged, {report.acknowledged_per_s:,.0f} a second while all were at work"),
        (calls["refused"], "calls refused"),
        (calls["unknown"], "calls with unknown outcome"),
        (report.deliveries, "sessions handed over"),
        (report.sessions, "sessions checked, each call of each"),
    ]
    say_table(("", f"after {time_text(round(report.took_s))}"), rows, numeric=("",))
    click.echo()
    if not report.findings:
        click.secho("Every answer is right: nothing lost, doubled, early, or written by a stale owner.", fg="green")
        return
    click.secho(f"Round {report.failed_seed} cannot be explained: {len(report.findings)} findings.", fg="red")
    for line in report.story():
        click.echo(line)
    click.echo(f"  kept: {report.kept} (data, journals, logs)")
    click.echo(f"  next: {report.command} plays that round again")
