"""The command `truba`: names its commands without importing them, so that help and short commands start quickly."""

from __future__ import annotations

import os
import sys
from importlib import import_module
from io import TextIOWrapper
from pathlib import Path

import click

from truba.cli.failure import EXIT_CODES, as_failure

COMMANDS = {
    "serve": ("truba.cli.serve:serve", "Run a pipe."),
    "check": ("truba.cli.check:check", "Judge a configuration without starting, and try its handlers."),
    "handlers": ("truba.cli.handlers:handlers", "Serve handlers of unfinished sessions."),
    "ls": ("truba.cli.sessions:ls", "Count or list the sessions of a running pipe."),
    "show": ("truba.cli.sessions:show", "Show one session, with its records if asked."),
    "why": ("truba.cli.sessions:why", "Say why a session is unfinished, and what happens next."),
    "resume": ("truba.cli.operate:resume", "Have stored or parked sessions handed over now."),
    "delete": ("truba.cli.operate:delete", "Delete stored or parked sessions for good."),
    "pause": ("truba.cli.operate:pause", "Hand over nothing more of a kind until it is continued."),
    "continue": ("truba.cli.operate:go_on", "Hand over a paused kind again."),
    "backup": ("truba.cli.backup:backup", "Back up a pipe, running or stopped; verify a backup."),
    "restore": ("truba.cli.backup:restore", "Make a data directory of a backup."),
    "user": ("truba.cli.user:user", "Hash a password, or make a token, for [users] of the configuration."),
    "cluster": ("truba.cli.cluster:cluster", "Look at a cluster: status; have its leader step down."),
    "bench": ("truba.cli.bench:bench", "Measure operations a second beside what the disk does by itself."),
    "demo": ("truba.cli.demo:demo", "See work that killed processes left behind get finished."),
    "torture": ("truba.cli.torture:torture", "Kill everything again and again on your disk, check every answer."),
    "log": ("truba.cli.log:log", "Look into a log on disk: dump, verify, repair."),
}
"""Command -> where it is, and its line in `truba --help`."""


class Commands(click.Group):
    """A group whose commands are imported when used, and whose errors are told as failures instead of tracebacks."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        module, _, name = COMMANDS[cmd_name][0].partition(":")
        command = getattr(import_module(module), name)
        assert isinstance(command, click.Command)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, line) for name, (_, line) in COMMANDS.items()])
        with formatter.section("Exit codes"):
            formatter.write_dl([(str(code), meaning) for code, meaning in EXIT_CODES.items()])

    def invoke(self, ctx: click.Context) -> object:
        for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
            # Closed by whoever started us: nobody asks or hears, and the exit code still tells.
            if getattr(sys, name) is None:
                setattr(sys, name, Path(os.devnull).open(mode))  # noqa: SIM115 - for the life of the process
        if os.environ.get("NO_COLOR"):  # https://no-color.org
            ctx.color = False
        if isinstance(sys.stdout, TextIOWrapper):  # a file may have any bytes for its name; stderr is so from the start
            sys.stdout.reconfigure(errors="backslashreplace")
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt:
            ctx.exit(130)
        except click.Abort as abort:
            if isinstance(abort.__context__, KeyboardInterrupt):  # at a question; else it was answered with no
                ctx.exit(130)
            raise
        except Exception as error:
            failure = as_failure(error)
            if failure is None:
                raise
            raise failure from error


def _version(ctx: click.Context, _parameter: click.Parameter, value: bool) -> None:
    if value:
        from importlib.metadata import version

        click.echo(f"truba {version('truba')}")
        ctx.exit()


@click.group(
    cls=Commands,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},
)
@click.option(
    "--version", is_flag=True, is_eager=True, expose_value=False, callback=_version, help="Print the version."
)
def main() -> None:
    """A write-ahead log grouped by session: work that a dead process left behind is handed to its handler.

    \b
    Examples:
      truba check --config truba.toml       is the configuration right, do the handlers answer?
      truba serve --config truba.toml       run the pipe
      truba ls                              how many sessions, by kind and phase
      truba resume --kind 7 --all-parked    try again what was given up

    Every command has --help with examples, and --json for machines: one document, or one for each line.
    """
