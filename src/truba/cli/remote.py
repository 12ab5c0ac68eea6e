"""Options and connection of the commands that ask a running pipe, over its wire protocol."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from truba.cli.failure import UNREACHABLE, USAGE, Failure
from truba.cli.options import FILE, TEXT, given_secret, given_tls_of, insecure_option, tls_options
from truba.errors import Unavailable

if TYPE_CHECKING:
    from truba.client.admin import Admin

T = TypeVar("T")
Work = Callable[["Admin"], Coroutine[Any, Any, T]]
Ask = Callable[[Work[Any]], Any]
"""Runs one coroutine function with a connection to the pipe, and returns its result."""

DEFAULT_URL = "truba://127.0.0.1:7433"


def asks_a_pipe(command: Callable[..., None]) -> Callable[..., None]:
    """Gives a command --url, --user, --password-file and those of TLS, and in their stead the argument `ask`."""

    @click.option(
        "--url",
        envvar="TRUBA_URL",
        default=DEFAULT_URL,
        show_default=True,
        help="The pipe; trubas:// for TLS, or unix:///path. [env: TRUBA_URL]",
    )
    @click.option("--user", type=TEXT, envvar="TRUBA_USER", help="Who asks, if the pipe has users. [env: TRUBA_USER]")
    @click.option(
        "--password-file",
        type=FILE,
        envvar="TRUBA_PASSWORD_FILE",
        help="File with the pipe's password, or the variable TRUBA_PASSWORD. [env: TRUBA_PASSWORD_FILE]",
    )
    @tls_options()
    @insecure_option
    @wraps(command)
    def wrapped(
        *args: Any,
        url: str,
        user: str | None,
        password_file: Path | None,
        ca: Path | None,
        certificate: Path | None,
        key: Path | None,
        insecure: bool,
        **options: Any,
    ) -> None:
        def ask(work: Work[Any]) -> Any:
            password = given_secret(password_file, "TRUBA_PASSWORD")
            if user and password is None:
                raise Failure(USAGE, "--user needs --password-file")
            tls = given_tls_of(url, ca, certificate, key)
            how = {"user": user, "password": password, "tls": tls, "insecure": insecure}
            return asyncio.run(_connected(url, how, work))

        command(*args, ask=ask, **options)

    return wrapped


async def _connected(url: str, how: dict[str, Any], work: Work[T]) -> T:
    """`how`: the options of `Admin.connect`."""
    from truba.client.admin import Admin
    from truba.tls import HandshakeFailed

    try:
        admin = await Admin.connect(url, **how)
    except Unavailable as error:
        next_step = "is it running? name another one with --url truba://HOST:PORT"
        if isinstance(error.__cause__, HandshakeFailed):
            next_step = ""  # something answers there, and what it is about is said
        raise Failure(UNREACHABLE, str(error), next_step) from error
    try:
        return await work(admin)
    finally:
        await admin.close()
