"""Options that several commands share, and the few ways in which commands write."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

if TYPE_CHECKING:
    from rich.progress import Progress

    from truba.tls import Tls

F = TypeVar("F", bound=Callable[..., Any])

FILE = click.Path(path_type=Path)  # whether it exists is told by what opens it, with what to do about it


class TextType(click.ParamType[str]):
    """A name that is sent to a pipe or shown to it: an argument may be any bytes, and this is text."""

    name = "text"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        text = str(value)
        try:
            text.encode()
        except UnicodeEncodeError:
            self.fail(f"{text!r} is not UTF-8", param, ctx)
        return text


TEXT = TextType()

json_option = click.option("--json", "as_json", is_flag=True, help="Write JSON to stdout, for machines.")
config_option = click.option(
    "-c", "--config", "config_path", type=FILE, default=Path("truba.toml"), show_default=True, help="The TOML file."
)
insecure_option = click.option(
    "--insecure", is_flag=True, envvar="TRUBA_INSECURE",
    help="Plain text beyond this machine is right here. [env: TRUBA_INSECURE]",
)  # fmt: skip


def tls_options(server: bool = False) -> Callable[[F], F]:
    """--ca, --certificate and --key, of a side that dials; for one that listens, --client-ca in place of --ca."""

    def decorate(command: F) -> F:
        ca, whose = ("client-ca", "clients must come from") if server else ("ca", "the pipe's certificate comes from")
        for name, env, text in (
            ("key", "TRUBA_KEY", "File of that certificate's key, if it is not in the same file."),
            ("certificate", "TRUBA_CERTIFICATE", "File of the certificate to show."),
            (ca, f"TRUBA_{ca.upper().replace('-', '_')}", f"File of the authorities that {whose}."),
        ):
            option = click.option(f"--{name}", type=FILE, envvar=env, help=f"{text} [env: {env}]")
            command = option(command)
        return command

    return decorate


def given_tls(ca: Path | None, certificate: Path | None, key: Path | None) -> Tls | None:
    """None: none of them is given."""
    from truba.tls import Tls

    return Tls(ca, certificate, key) if ca or certificate or key else None


def given_tls_of(url: str, ca: Path | None, certificate: Path | None, key: Path | None) -> Tls | None:
    """For this address of a pipe. The variables of the environment stand for all of them: they are of no account where
    no TLS is spoken."""
    return given_tls(ca, certificate, key) if url.startswith("trubas:") else None


def given_secret(file: Path | None, env: str) -> str | None:
    """In a file, or in that variable of the environment. ConfigError."""
    from truba.config import Secret

    if file is not None:
        return Secret(file, None).text()
    return Secret(None, env).text() if os.environ.get(env) else None


def say_json(value: Any) -> None:
    """One JSON document on one line of stdout."""
    click.echo(json.dumps(value, ensure_ascii=False, separators=(",", ":")))


def say_table(columns: Sequence[str], rows: Iterable[Sequence[object]], numeric: Iterable[str] = ()) -> None:
    """A table on stdout; columns named in `numeric` stand right. What a cell says may be a client's own words."""
    from rich.box import SIMPLE_HEAD
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    from truba.cli.preview import printable

    table = Table(box=SIMPLE_HEAD, pad_edge=False, show_edge=False)
    right = set(numeric)
    for column in columns:
        table.add_column(column, justify="right" if column in right else "left", overflow="fold")
    for row in rows:
        table.add_row(*(Text(printable(str(cell))) for cell in row))
    console = Console(file=sys.stdout, width=None if sys.stdout.isatty() else 200)
    with console.capture() as captured:
        console.print(table)
    for line in captured.get().splitlines():
        click.echo(line.rstrip())


def progress() -> Progress:
    """A progress bar on stderr, shown only on a terminal."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        console=Console(stderr=True),
        disable=not sys.stderr.isatty(),
        transient=True,
    )
