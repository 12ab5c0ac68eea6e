"""Options and connection of the commands that ask a running pipe, over its wire protocol."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from truba.cli.failure import UNREACHABLE, USAGE, Failure
from truba.cli.options import FILE
from truba.errors import Unavailable

if TYPE_CHECKING:
    from truba.client.admin import Admin

T = TypeVar("T")
Work = Callable[["Admin"], Coroutine[Any, Any, T]]
Ask = Callable[[Work[Any]], Any]
"""Runs one coroutine function with a connection to the pipe, and returns its result."""

DEFAULT_URL = "truba://127.0.0.1:7433"


def asks_a_pipe(command: Callable[..., None]) -> Callable[..., None]:
    """Gives a command --url, --user and --password-file, and in their stead the argument `ask`."""

    @click.option(
        "--url",
        envvar="TRUBA_URL",
        default=DEFAULT_URL,
        show_default=True,
        help="The pipe, or unix:///path. [env: TRUBA_URL]",
    )
    @click.option("--user", envvar="TRUBA_USER", help="Who asks, if the pipe has users. [env: TRUBA_USER]")
    @click.option(
        "--password-file",
        type=FILE,
        envvar="TRUBA_PASSWORD_FILE",
        help="File with the pipe's password. [env: TRUBA_PASSWORD_FILE]",
    )
    @wraps(command)
    def wrapped(*args: Any, url: str, user: str | None, password_file: Path | None, **options: Any) -> None:
        def ask(work: Work[Any]) -> Any:
            return asyncio.run(_connected(url, user, password_file, work))

        command(*args, ask=ask, **options)

    return wrapped


async def _connected(url: str, user: str | None, password_file: Path | None, work: Work[T]) -> T:
    from truba.client.admin import Admin
    from truba.config import read_secret

    if user and not password_file:
        raise Failure(USAGE, "--user needs --password-file")
    password = read_secret(password_file).decode() if password_file else None
    try:
        admin = await Admin.connect(url, user=user, password=password)
    except Unavailable as error:
        raise Failure(
            UNREACHABLE, str(error), "is it running? name another one with --url truba://HOST:PORT"
        ) from error
    try:
        return await work(admin)
    finally:
        await admin.close()
