"""`truba resume` and `truba delete`: an operator decides about sessions that are stored or parked."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from typing import TYPE_CHECKING

import click

from truba.cli.failure import MISSING, PROBLEM, as_failure
from truba.cli.options import json_option, progress, say_json
from truba.cli.remote import Ask, asks_a_pipe
from truba.cli.sessions import IdType
from truba.errors import NoSession, OperationError
from truba.types import Index, Phase

if TYPE_CHECKING:
    from truba.client.admin import Admin

AT_ONCE = 128
"""Requests under way: enough that one sync of the log serves many, few enough to leave the pipe to its clients."""


@click.command
@click.argument("ids", metavar="[ID]...", nargs=-1, type=IdType())
@click.option("--kind", metavar="KIND", help="With --all-parked: only this kind, by number or name.")
@click.option("--all-parked", is_flag=True, help="Every parked session, instead of ids.")
@asks_a_pipe
@json_option
def resume(ids: tuple[Index, ...], kind: str | None, all_parked: bool, as_json: bool, ask: Ask) -> None:
    """Have stored or parked sessions handed to their handler now, their attempts and age counted anew.

    Each answer comes when the decision is on stable storage. With --json: one line for each session.

    \b
    Examples:
      truba resume 3-117 3-120
      truba resume --kind transfer --all-parked
    """
    if bool(ids) == all_parked or (kind and not all_parked):
        raise click.UsageError("give ids, or --all-parked with or without --kind")
    ask(lambda admin: _each(admin, admin.resume, ids, kind, "resumed", as_json))


@click.command
@click.argument("ids", metavar="ID...", nargs=-1, type=IdType(), required=True)
@click.option("--yes", is_flag=True, help="Do not ask.")
@asks_a_pipe
@json_option
def delete(ids: tuple[Index, ...], yes: bool, as_json: bool, ask: Ask) -> None:
    """Delete stored or parked sessions with all their records, for good: nobody will finish their work.

    A session that an owner holds is refused. With --json: one line for each session.

    \b
    Examples:
      truba delete 3-117
      truba delete 3-117 3-120 --yes
    """
    if not yes:
        if not sys.stdin.isatty():
            raise click.UsageError("nobody is there to ask; give --yes")
        click.confirm(f"Delete {len(ids)} session(s) with all records?", abort=True, err=True)
    ask(lambda admin: _each(admin, admin.remove, ids, None, "deleted", as_json))


async def _each(
    admin: Admin,
    act: Callable[[Index], Awaitable[None]],
    ids: tuple[Index, ...],
    kind: str | None,
    done: str,
    as_json: bool,
) -> None:
    """Do `act` to every session, tell of each, and end with the exit code of what went wrong."""
    refused: list[OperationError] = []
    count = 0

    async def one(number: Index) -> None:
        nonlocal count
        try:
            await act(number)
        except OperationError as error:
            refused.append(error)
            if as_json:
                say_json({"id": str(number), "ok": False, "error": str(error), "code": error.code})
            else:
                failure = as_failure(error)
                click.echo(f"{number}: {failure.message if failure else error}", err=True)
        else:
            count += 1
            if as_json:
                say_json({"id": str(number), "ok": True})

    with progress() as bar:
        task = bar.add_task(done, total=len(ids) or await _parked(admin, kind))
        source = _given(ids) if ids else (session.id async for session in admin.ls(kind=kind, phase=Phase.PARKED))
        async for group in _in_groups(source):
            await asyncio.gather(*map(one, group))
            bar.advance(task, len(group))
    if not as_json:
        click.echo(f"{done}: {count}" + (f"; refused: {len(refused)}" if refused else ""))
    if refused:
        gone = all(isinstance(error, NoSession) for error in refused)
        click.get_current_context().exit(MISSING if gone else PROBLEM)


async def _parked(admin: Admin, kind: str | None) -> int:
    """How many sessions are parked, for the progress bar."""
    counts = await admin.counts()
    return sum(n.get(Phase.PARKED, 0) for number, (name, n) in counts.items() if kind in (None, name, str(number)))


async def _given(ids: Iterable[Index]) -> AsyncIterator[Index]:
    for number in ids:
        yield number


async def _in_groups(ids: AsyncIterator[Index]) -> AsyncIterator[list[Index]]:
    group: list[Index] = []
    async for number in ids:
        group.append(number)
        if len(group) == AT_ONCE:
            yield group
            group = []
    if group:
        yield group
