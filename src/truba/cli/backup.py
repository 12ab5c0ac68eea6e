"""`truba backup`, `truba backup verify`, `truba restore`: copies of a pipe, and pipes of copies."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from truba.cli.failure import DATA, PROBLEM, Failure
from truba.cli.options import FILE, json_option, progress, say_json, say_table
from truba.cli.remote import Ask, asks_a_pipe
from truba.errors import DataDamaged

if TYPE_CHECKING:
    from truba.backup.manifest import Manifest
    from truba.client.admin import Admin
    from truba.ports.backup import Progress

POLL_S = 0.1
"""Between two looks at a backup under way."""

Watch = Callable[[str, int, int], None]


class Backup(click.Group):
    """`truba backup NAME` is `truba backup make NAME`."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        if not args or (args[0] not in self.commands and args[0] not in ctx.help_option_names):
            args = ["make", *args]
        return super().parse_args(ctx, args)


@click.group(cls=Backup)
def backup() -> None:
    """Make a backup of a pipe, running or stopped (`make`, which need not be written), or verify one.

    \b
    Examples:
      truba backup                                       of the running pipe, named by the time
      truba backup monday --url truba://127.0.0.1:7433
      truba backup --data /var/lib/truba /mnt/backups/monday
      truba backup verify /mnt/backups/monday
    """


@backup.command
@click.argument("target", required=False)
@click.option("--data", type=FILE, help="Of this data directory, which no pipe has open; TARGET is a path then.")
@asks_a_pipe
@json_option
def make(target: str | None, data: Path | None, as_json: bool, ask: Ask) -> None:
    """Make a backup, and read all of it back. TARGET must be new or empty.

    Of a running pipe: TARGET is below the directory `backups` that its configuration names, on its own host; without
    one it is named by the time. The pipe goes on meanwhile, and so does the backup if this command is ended.

    \b
    Examples:
      truba backup
      truba backup make monday --json
      truba backup --data /var/lib/truba /mnt/backups/monday
    """
    if data is None:
        name = target or datetime.now(UTC).strftime("%Y%m%dT%H%M%SZ")
        made = ask(lambda admin: _running(admin, name))
        document = {
            "directory": made.directory, "term": made.term, "seq": made.seq, "sessions": made.sessions,
            "bytes": made.bytes,
        }  # fmt: skip
    else:
        if target is None:
            raise click.UsageError("--data needs a TARGET")
        from truba.backup.stopped import back_up

        with _watched() as watch:
            manifest = back_up(data, Path(target), watch)
        document = {
            "directory": target, "term": manifest.at.term, "seq": manifest.at.seq, "sessions": manifest.sessions,
            "bytes": manifest.bytes,
        }  # fmt: skip
    if as_json:
        say_json(document)
    else:
        click.echo(
            f"backup: {document['directory']} through {document['term']}-{document['seq']},"
            f" {document['sessions']} sessions, {document['bytes']} bytes"
        )


@backup.command
@click.argument("directory", metavar="DIR", type=FILE)
@json_option
def verify(directory: Path, as_json: bool) -> None:
    """Check every byte of a backup, put its state together in memory, and tell what is in it. Changes nothing.

    Exit code 1: it is not what was written. 7: it is unfinished, no backup, or cannot be looked at.

    \b
    Examples:
      truba backup verify /mnt/backups/monday
      truba backup verify /mnt/backups/monday --json
    """
    from truba.backup.verify import verify as judge

    try:
        with _watched() as watch:
            verdict = judge(directory, watch)
    except DataDamaged as error:  # the manifest itself: nothing can be told of the rest
        raise Failure(PROBLEM, str(error), "take an older backup") from error
    manifest, age_s = verdict.manifest, _age_s(verdict.manifest)
    if as_json:
        say_json(
            {"sound": verdict.sound, "problems": list(verdict.problems), "age_s": round(age_s), **_told(manifest)}
            | {"paused": sorted(verdict.paused)}
        )
    else:
        made = datetime.fromtimestamp(manifest.made_ms / 1000, UTC).isoformat(timespec="seconds")
        shown = (
            ("of", f"{manifest.host}:{manifest.data}"),
            ("made", f"{made}, {_span(age_s)} ago"),
            ("through", f"{manifest.at.term}-{manifest.at.seq}"),
            ("bytes", manifest.bytes),
            ("sessions", manifest.sessions),
            *((f"  kind {count.kind}, {count.phase}", count.sessions) for count in manifest.counts),
            *((f"  kind {kind}", "paused") for kind in sorted(verdict.paused)),
        )
        say_table(("backup", str(directory)), shown)
        for problem in verdict.problems:
            click.echo(f"problem: {problem}")
        click.echo("sound" if verdict.sound else "this backup cannot be restored: take an older one")
    if not verdict.sound:
        click.get_current_context().exit(PROBLEM)


@click.command
@click.argument("source", metavar="BACKUP", type=FILE)
@click.argument("data", type=FILE)
@click.option("--paused", is_flag=True, help="Hand nothing over of any kind before it is continued.")
@json_option
def restore(source: Path, data: Path, paused: bool, as_json: bool) -> None:
    """Make a data directory of a backup, which is verified first. DATA must be new or empty.

    The sessions are as they were then: one that was finished since is handed to its handler again. Nobody owns any of
    them: those that were active or with a handler are unfinished. Ids and epochs go on above all that were ever given.
    Run it again if it is interrupted; no pipe starts on what it has left.

    \b
    Examples:
      truba restore /mnt/backups/monday /var/lib/truba
      truba restore /mnt/backups/monday /var/lib/truba --paused
      truba restore /mnt/backups/monday /tmp/rehearsal --json
    """
    from truba.backup.restore import restore as carry_out

    try:
        with _watched() as watch:
            restored = carry_out(source, data, watch, paused=paused)
    except DataDamaged as error:
        raise Failure(DATA, str(error), "look at it with truba backup verify, and take an older one") from error
    manifest = restored.manifest
    if as_json:
        say_json(
            {"data": str(data), "term": restored.at.term, "seq": restored.at.seq, "disowned": restored.disowned}
            | {"paused": sorted(restored.paused), "backup": _told(manifest)}
        )
    else:
        click.echo(
            f"restored: {data} holds the {manifest.sessions} sessions of {manifest.at.term}-{manifest.at.seq},"
            f" {_span(_age_s(manifest))} old; {restored.disowned} of them had an owner and are unfinished now"
        )
        click.echo(f"  new ids are above {restored.at}", err=True)
        click.echo("  next: truba serve on this directory, with all the kinds that the sessions are of", err=True)
        for kind in sorted(restored.paused):
            click.echo(f"  kind {kind} is paused: truba continue {kind}", err=True)


async def _running(admin: Admin, name: str) -> Progress:
    """Begin it, and wait for its end."""
    directory = await admin.backup(name)
    with _watched() as watch:
        while (now := await admin.backup_progress()).state == "running":
            watch(now.stage, now.done, now.of)
            await asyncio.sleep(POLL_S)
    if now.directory != directory:
        raise Failure(PROBLEM, f"another backup was begun after that to {directory}", "verify it: truba backup verify")
    if now.state != "done":
        raise Failure(PROBLEM, f"no backup: {now.error or 'the pipe has started anew'}", "see to that, and try again")
    return now


@contextmanager
def _watched() -> Iterator[Watch]:
    """A bar for each stage, one after the other."""
    with progress() as bar:
        stage, task = "", bar.add_task("beginning", total=None)

        def watch(now: str, done: int, of: int) -> None:
            nonlocal task, stage
            if now != stage:
                bar.remove_task(task)
                stage, task = now, bar.add_task(now, total=of or None)
            bar.update(task, completed=done, total=of or None)

        yield watch


def _told(manifest: Manifest) -> dict[str, Any]:
    return {
        "host": manifest.host,
        "data": manifest.data,
        "made_ms": manifest.made_ms,
        "term": manifest.at.term,
        "seq": manifest.at.seq,
        "bytes": manifest.bytes,
        "digest": manifest.digest,
        "sessions": [{"kind": c.kind, "phase": c.phase.value, "sessions": c.sessions} for c in manifest.counts],
    }


def _age_s(manifest: Manifest) -> float:
    return time.time() - manifest.made_ms / 1000


def _span(seconds: float) -> str:
    for unit, length_s in (("days", 86_400), ("hours", 3_600), ("minutes", 60)):
        if seconds >= 2 * length_s:
            return f"{seconds / length_s:.0f} {unit}"
    return f"{seconds:.0f} s"
