"""`truba resume` and `delete`: an operator decides about sessions that are stored or parked; `truba pause` and
`continue`: about whole kinds."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from typing import TYPE_CHECKING, TypeVar

import click

from truba.cli.failure import PROBLEM, UNKNOWN, as_failure
from truba.cli.options import TEXT, json_option, progress, say_json
from truba.cli.remote import Ask, asks_a_pipe
from truba.cli.sessions import IdType
from truba.errors import OperationError
from truba.types import Index, Phase

if TYPE_CHECKING:
    from truba.client.admin import Admin

T = TypeVar("T")

AT_ONCE = 128
"""Requests under way: enough that one sync of the log serves many, few enough to leave the pipe to its clients."""


@click.command
@click.argument("ids", metavar="[ID]...", nargs=-1, type=IdType())
@click.option("--kind", metavar="KIND", type=TEXT, help="With --all-parked: only this kind, by number or name.")
@click.option("--all-parked", is_flag=True, help="Every parked session, instead of ids.")
@asks_a_pipe
@json_option
def resume(ids: tuple[Index, ...], kind: str | None, all_parked: bool, as_json: bool, ask: Ask) -> None:
    """Have stored or parked sessions handed to their handler now, their attempts and age counted anew.

    Each answer comes when the decision is on stable storage. A kind that is paused stays so: see `truba continue`. With
    --json: one line for each session.

    \b
    Examples:
      truba resume 3-117 3-120
      truba resume --kind transfer --all-parked
    """
    if bool(ids) == all_parked or (kind and not all_parked):
        raise click.UsageError("give ids, or --all-parked with or without --kind")

    async def resume_them(admin: Admin) -> None:
        if ids:
            await _each(admin.resume, _given(ids), len(ids), "id", "resumed", as_json)
            return
        parked = (session.id async for session in admin.ls(kind=kind, phase=Phase.PARKED))
        await _each(admin.resume, parked, await _parked(admin, kind), "id", "resumed", as_json)

    ask(resume_them)


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
    ask(lambda admin: _each(admin.remove, _given(ids), len(ids), "id", "deleted", as_json))


@click.command
@click.argument("kinds", metavar="KIND...", nargs=-1, type=TEXT, required=True)
@asks_a_pipe
@json_option
def pause(kinds: tuple[str, ...], as_json: bool, ask: Ask) -> None:
    """Hand over nothing more of a kind, by number or name, until `truba continue`. Whatever restarts, it stays paused.

    Clients notice nothing, and handlers may finish what they hold. The answer comes when the decision is on stable
    storage. To pause what is paused is no error. With --json: one line for each kind.

    \b
    Examples:
      truba pause transfer
      truba pause 7 8 --json
    """
    ask(lambda admin: _each(admin.pause_kind, _given(kinds), len(kinds), "kind", "paused", as_json))


@click.command("continue")
@click.argument("kinds", metavar="KIND...", nargs=-1, type=TEXT, required=True)
@asks_a_pipe
@json_option
def go_on(kinds: tuple[str, ...], as_json: bool, ask: Ask) -> None:
    """Hand over the sessions of a paused kind again, by number or name: those that are due at once.

    The answer comes when the decision is on stable storage. To continue what is not paused is no error. With --json:
    one line for each kind.

    \b
    Examples:
      truba continue transfer
      truba continue 7 8 --json
    """
    ask(lambda admin: _each(admin.continue_kind, _given(kinds), len(kinds), "kind", "continued", as_json))


async def _each(
    act: Callable[[T], Awaitable[None]], them: AsyncIterator[T], total: int, what: str, done: str, as_json: bool
) -> None:
    """Do `act` to each, tell of each by the name of `what` it is, and end with the exit code of what went wrong."""
    refused: list[OperationError] = []
    count = 0

    async def one(named: T) -> None:
        nonlocal count
        try:
            await act(named)
        except OperationError as error:
            refused.append(error)
            if as_json:
                say_json({what: str(named), "ok": False, "error": str(error), "code": error.code})
            else:
                click.echo(f"{named}: {error}", err=True)
        else:
            count += 1
            if as_json:
                say_json({what: str(named), "ok": True})

    with progress() as bar:
        task = bar.add_task(done, total=total)
        async for group in _in_groups(them):
            await asyncio.gather(*map(one, group))
            bar.advance(task, len(group))
    if not as_json:
        click.echo(f"{done}: {count}" + (f"; refused: {len(refused)}" if refused else ""))
    if refused:
        click.get_current_context().exit(_exit_code(refused))


def _exit_code(refused: Iterable[OperationError]) -> int:
    """That of each, where they agree. One whose outcome is unknown must be looked at, whatever became of the others."""
    codes = {failure.exit_code for error in refused if (failure := as_failure(error)) is not None}
    return UNKNOWN if UNKNOWN in codes else codes.pop() if len(codes) == 1 else PROBLEM


async def _parked(admin: Admin, kind: str | None) -> int:
    """How many sessions are parked, for the progress bar."""
    return sum(one.sessions[Phase.PARKED] for one in (await admin.kinds(kind)).values())


async def _given(them: Iterable[T]) -> AsyncIterator[T]:
    for one in them:
        yield one


async def _in_groups(them: AsyncIterator[T]) -> AsyncIterator[list[T]]:
    group: list[T] = []
    async for one in them:
        group.append(one)
        if len(group) == AT_ONCE:
            yield group
            group = []
    if group:
        yield group
