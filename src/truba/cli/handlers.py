"""`truba handlers`: a service of its own for functions that finish unfinished sessions; pipes dial it."""

from __future__ import annotations

import asyncio
import errno
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from truba.cli.failure import PROBLEM, USAGE, Failure
from truba.cli.options import FILE, TEXT, given_secret, given_tls, insecure_option, tls_options
from truba.errors import ConfigError
from truba.kinds import KIND_MAX
from truba.signals import StopSignals

if TYPE_CHECKING:
    from truba.client.handlers import Serving


@click.command
@click.argument("target", metavar="MODULE:OBJECT")
@click.option(
    "--listen", default="127.0.0.1:7434", show_default=True, help="HOST:PORT, or unix:/path, for pipes to dial."
)
@click.option(
    "--secret-file",
    type=FILE,
    help="File of the secret that a pipe must show (its handler_secret_file), or the variable TRUBA_HANDLER_SECRET.",
)
@click.option("--user", type=TEXT, help="The user that this service names to the pipe.")
@click.option("--password-file", type=FILE, help="File of the pipe's password, or the variable TRUBA_PASSWORD.")
@tls_options(server=True)
@insecure_option
@click.option(
    "--credit", type=click.IntRange(1, 65_536), default=64, show_default=True, help="Sessions at once, per pipe."
)
@click.option("--patience", default="10s", show_default=True, help="How long a stop waits for handlers at work.")
@click.option("--json", "as_json", is_flag=True, help="Log JSON lines, on a terminal too.")
def handlers(
    target: str,
    listen: str,
    secret_file: Path | None,
    user: str | None,
    password_file: Path | None,
    client_ca: Path | None,
    certificate: Path | None,
    key: Path | None,
    insecure: bool,
    credit: int,
    patience: str,
    as_json: bool,
) -> None:
    """Serve handlers of unfinished sessions. OBJECT is a dictionary: number of a kind -> function.

    A function gets a RepeatData; returning deletes the session, raising has it handed over again later. Modules are
    looked for in the working directory too. SIGTERM or SIGINT stops it: nothing more is taken, handlers at work may
    finish. Logs go to stderr.

    \b
    Examples:
      truba handlers bank.recovery:HANDLERS
      truba handlers bank.recovery:HANDLERS --listen 10.0.0.9:7434 --certificate handler.pem --key handler.key
    """
    signals = StopSignals()
    signals.listen()

    from truba import logs
    from truba.client.handlers import serve_handlers
    from truba.config.units import seconds

    try:
        patience_s = seconds(patience)
    except ValueError as error:
        raise click.UsageError(f"--patience: {error.args[0]}; write {error.args[1]}") from error
    password = given_secret(password_file, "TRUBA_PASSWORD")
    if user and password is None:
        raise click.UsageError("--user needs --password-file")
    sys.path.insert(0, str(Path.cwd()))
    functions = _functions(target)
    logs.configure(form="json" if as_json else "auto")
    serving = serve_handlers(
        functions,
        listen,
        secret=given_secret(secret_file, "TRUBA_HANDLER_SECRET"),
        user=user,
        password=password,
        credit=credit,
        tls=given_tls(client_ca, certificate, key),
        insecure=insecure,
    )

    import uvloop

    try:
        uvloop.run(_until_signalled(signals, serving, sorted(functions), patience_s))
    except OSError as error:
        if error.errno in (errno.EADDRINUSE, errno.EADDRNOTAVAIL, errno.EACCES, errno.EEXIST, errno.ENOENT):
            next_step = "stop the process that listens there, or give another --listen"
            said = str(error.strerror)
            what = said if said.startswith("cannot listen") else f"cannot listen on {listen}: {said}"
            raise Failure(PROBLEM, what, next_step) from error
        raise
    signals.ignore()


async def _until_signalled(signals: StopSignals, serving: Serving, kinds: list[int], patience_s: float) -> None:
    import structlog

    log = structlog.get_logger("truba.handlers")
    stop = asyncio.Event()

    def trouble(what: str, error: BaseException | None) -> None:
        log.warning(what, exc_info=error)

    with signals.calling(stop.set):
        if stop.is_set():
            log.info("stopped", reason="told to, before it had begun")
            return
        server = await serving
        server.on_trouble = trouble
        log.info("ready", listen=server.address, kinds=kinds)
        await stop.wait()
        log.info("stopping", at_work=len(server.tasks))
        await server.close(patience_s)
        log.info("stopped", finished=server.finished, failed=server.failed)


def _functions(target: str) -> Mapping[int, Any]:
    from truba.transports.local import load_object

    try:
        found = load_object(target)
    except ConfigError as error:
        raise Failure(USAGE, str(error)) from error
    if not isinstance(found, Mapping) or not found:
        raise Failure(USAGE, f"{target} is no dictionary of handlers", "write HANDLERS = {7: function}")
    for number, function in found.items():
        if not isinstance(number, int) or not 0 <= number <= KIND_MAX:
            raise Failure(USAGE, f"{target}: {number!r} is no number of a kind", f"write one from 0 to {KIND_MAX}")
        if not callable(function):
            raise Failure(USAGE, f"{target}: the handler of kind {number} is no function")
    return found
