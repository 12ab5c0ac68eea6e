"""`truba serve`: a pipe from a configuration file, until SIGTERM or SIGINT."""

from __future__ import annotations

import contextlib
import errno
import os
import sys
from pathlib import Path

import click

from truba.cli.failure import PROBLEM, Failure
from truba.cli.options import FILE, config_option, insecure_option
from truba.signals import ReloadSignals, StopSignals


@click.command
@config_option
@click.option("--listen", metavar="HOST:PORT", help="Listen here instead of where the file says.")
@click.option("--data", type=FILE, help="Use this data directory instead of the file's.")
@insecure_option
@click.option("--json", "as_json", is_flag=True, help="Log JSON lines, on a terminal too.")
def serve(config_path: Path, listen: str | None, data: Path | None, insecure: bool, as_json: bool) -> None:
    """Run a pipe. SIGTERM or SIGINT stops it cleanly, at its start too: no new work, everything acknowledged is
    durable, exit 0. SIGHUP: take what the file says now, all of it or nothing; the log tells what changed, or why
    nothing did.

    Logs go to stderr, readable on a terminal and as JSON lines otherwise.

    \b
    Examples:
      truba serve --config truba.toml
      truba serve --config truba.toml --listen 127.0.0.1:7555 --data /var/lib/truba
    """
    signals, reloads = StopSignals(), ReloadSignals()
    signals.listen()
    reloads.listen()

    from truba import config, logs

    def read() -> config.Config:
        found = config.load(config_path, listen=listen, data=data, insecure=insecure)
        if as_json:  # for a reload as for the start
            found = found.model_copy(update={"node": found.node.model_copy(update={"log_format": "json"})})
        return found

    loaded = read()
    sys.path.insert(0, str(config_path.absolute().parent))  # `local:` handlers and hooks may live beside the file
    logs.configure(loaded.node.log_level, loaded.node.log_format)

    import asyncio

    import uvloop

    from truba import service

    try:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            code = runner.run(service.serve(loaded, read, signals, reloads))
            if code:  # all is told; to close the loop takes descriptors and threads, the want of which may be why
                for said in (sys.stdout, sys.stderr):  # by handlers in this process, too
                    with contextlib.suppress(OSError, ValueError):  # nobody reads it any more
                        said.flush()
                os._exit(code)
    except OSError as error:
        raise _cannot_listen(error) from error
    signals.ignore()
    click.get_current_context().exit(code)


def _cannot_listen(error: OSError) -> Exception:
    match error.errno:
        case errno.EADDRINUSE:
            next_step = "stop the process that listens there, or give --listen HOST:PORT"
        case errno.EADDRNOTAVAIL | errno.EACCES | errno.EPERM if error.filename is None:
            next_step = "give --listen an address of this machine, and a port above 1023"
        case _ if error.filename is None and "cannot listen" in str(error):
            next_step = "give an address or a path that is free to take; the text says why this one is not"
        case _:
            return error
    return Failure(PROBLEM, str(error.strerror), next_step)
