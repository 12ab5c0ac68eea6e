"""`truba user`: what to write into a configuration in place of a password or a token."""

from __future__ import annotations

import os
import secrets
import sys
from pathlib import Path

import click

from truba.cli.failure import PROBLEM, Failure
from truba.cli.options import FILE, json_option, say_json


@click.group
def user() -> None:
    """Make what stands for a user's secret in the configuration: `password_hash` of [users.NAME].

    \b
    Examples:
      truba user hash
      truba user token /etc/truba/ann.token
    """


@user.command("hash")
@json_option
def hash_(as_json: bool) -> None:
    """Print the hash of a password, asked for at the terminal, or read from stdin (one newline at its end is dropped).

    \b
    Examples:
      truba user hash
      truba user hash < password.txt
    """
    from truba import passwords

    if sys.stdin.isatty():
        text = click.prompt("Password", hide_input=True, confirmation_prompt=True, err=True)
        password = text.encode(errors="surrogateescape")
    else:
        password = sys.stdin.buffer.read(passwords.PASSWORD_BYTES_MAX + 2).removesuffix(b"\n").removesuffix(b"\r")
    if not password or len(password) > passwords.PASSWORD_BYTES_MAX:
        raise click.UsageError(f"a password has 1 to {passwords.PASSWORD_BYTES_MAX} bytes")
    try:
        password.decode()
    except UnicodeDecodeError:
        raise click.UsageError("this password is not UTF-8, and so nobody could log in with it") from None
    _say(str(passwords.make(password, os.urandom(passwords.SALT_BYTES))), as_json)


@user.command
@click.argument("file", type=FILE)
@json_option
def token(file: Path, as_json: bool) -> None:
    """Write a new token of 256 random bits into FILE, for its user only, and print its hash.

    For programs: nobody guesses it, so it is checked without the cost that a password needs. FILE must not be there.

    \b
    Examples:
      truba user token /etc/truba/ann.token
    """
    from truba import passwords

    made = secrets.token_urlsafe(passwords.TOKEN_BYTES)
    try:
        handle = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    except FileExistsError as error:
        raise Failure(PROBLEM, f"{file} is there already, and stays as it is", "name a new file") from error
    with os.fdopen(handle, "w") as out:
        out.write(made + "\n")
    _say(str(passwords.make(made.encode(), os.urandom(passwords.SALT_BYTES), slow=False)), as_json)


def _say(made: str, as_json: bool) -> None:
    if as_json:
        say_json({"password_hash": made})
    else:
        click.echo(made)
