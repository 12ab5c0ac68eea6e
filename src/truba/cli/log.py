"""`truba log dump|verify|repair`: reads a log on disk. Needs no pipe; the first two change nothing and take no lock."""

from __future__ import annotations

import base64
import sys
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from truba.cli.failure import DATA, MISSING, PROBLEM, Failure
from truba.cli.options import FILE, json_option, progress, say_json, say_table
from truba.cli.preview import preview, printable
from truba.errors import DataDamaged

if TYPE_CHECKING:
    from truba.log.damage import Damage
    from truba.types import Position

YEAR_10000_MS = 253_402_300_800_000
"""Python knows no later times; a session that is to sleep for ever may be due then."""

directory_argument = click.argument("directory", metavar="DIR", type=FILE)


@click.group
def log() -> None:
    """Look into a log on disk. DIR is the data directory, or the log directory inside it.

    \b
    Examples:
      truba log verify data
      truba log dump data --session 117
    """


@log.command
@directory_argument
@click.option("--after", "after_seq", type=click.IntRange(min=0), default=0, help="Begin after this seq.")
@click.option("--limit", type=click.IntRange(min=1), help="Print at most so many events.")
@click.option(
    "--session", "number", type=click.IntRange(min=1), help="Only events of the session with this seq: 117 of 3-117."
)
@click.option("--records", is_flag=True, help="Show records too; they may hold anybody's secrets.")
@json_option
def dump(directory: Path, after_seq: int, limit: int | None, number: int | None, records: bool, as_json: bool) -> None:
    """Print the events of a log, in order: what was decided, and when it says so.

    With --json: one line for each event; --records gives them whole, in base64.

    \b
    Examples:
      truba log dump data | less
      truba log dump data --session 117 --records
      truba log dump data --after 1000 --limit 10 --json
    """
    left = limit
    for term, seq, event in _events(_log_of(directory), after_seq):
        fields = _fields(event)
        if number is not None and fields.get("number", seq if "records" in fields else None) != number:
            continue
        if left is not None:
            if left == 0:
                break
            left -= 1
        name = type(event).__name__
        if as_json:
            say_json({"term": term, "seq": seq, "event": name} | {k: _plain(k, v, records) for k, v in fields.items()})
        else:
            words = " ".join(f"{key}={_readable(key, value, records)}" for key, value in fields.items() if value != b"")
            click.echo(f"{term}-{seq}  {name:<9} {words}".rstrip())


@log.command
@directory_argument
@json_option
def verify(directory: Path, as_json: bool) -> None:
    """Check every byte of a log: each batch's hash, and that each follows the one before. Exit code 1: damage.

    A torn tail is no damage: it is what a crash leaves of a batch that nobody was told is stored.

    \b
    Examples:
      truba log verify data
      truba log verify /var/lib/truba/log --json
    """
    from truba.log import inspect

    with progress() as bar:
        task = bar.add_task("verifying", total=None)
        report = inspect.verify(_log_of(directory), lambda done, of: bar.update(task, completed=done, total=of))
    ahead = _store_ahead(directory, report.tail)
    document = {
        "sound": report.sound and ahead is None,
        "store_ahead": _position(ahead) if ahead else None,
        "segments": report.segments,
        "batches": report.batches,
        "events": report.events,
        "frames_bytes": report.frames_bytes,
        "after": _position(report.begin),
        "tail": _position(report.tail),
        "torn": report.torn._asdict() if report.torn else None,
        "damage": report.damage._asdict() if report.damage else None,
    }
    if as_json:
        say_json(document)
    else:
        shown = (
            ("segments", report.segments),
            ("batches", report.batches),
            ("events", report.events),
            ("bytes in use", report.frames_bytes),
            ("begins after seq", report.begin.seq),
            ("ends with", f"{report.tail.term}-{report.tail.seq}"),
            ("chain hash", report.tail.chain.hex()),
        )
        say_table(("log", str(directory)), shown)
        if report.torn and not ahead:
            click.echo(f"torn tail: seq {report.torn.first_seq} was never acknowledged; the next start cuts it")
        if ahead:
            click.echo(f"damage: the store holds the state of event {ahead.term}-{ahead.seq}, which the log has lost")
        elif not report.damage:
            click.echo("sound")
        if report.damage:
            click.echo(f"damage: {_place(report.damage)}")
    if report.damage or ahead:
        if not as_json:
            click.echo(
                "  next: restore the directory from a copy; or `truba log repair DIR`, which gives up the rest",
                err=True,
            )
        click.get_current_context().exit(PROBLEM)


@log.command
@directory_argument
@click.option("--yes", is_flag=True, help="Do not ask.")
@json_option
def repair(directory: Path, yes: bool, as_json: bool) -> None:
    """Cut a damaged log at its first damaged place. What comes after may have been acknowledged: it is given up.

    The bytes that are cut are kept in files beside the log. A log without damage is left as it is.

    \b
    Examples:
      truba log verify data && echo nothing to repair
      truba log repair data --yes
    """
    from truba.log import inspect

    path = _log_of(directory)
    if not yes:
        if not sys.stdin.isatty():
            raise click.UsageError("nobody is there to ask; give --yes")
        click.confirm("Give up what comes after the first damage, acknowledged or not?", abort=True, err=True)
    done = inspect.repair(path)
    if ahead := _store_ahead(directory, done.tail):
        click.echo(
            f"the store holds the state of event {ahead.term}-{ahead.seq}, and the log ends before that now: a pipe"
            " refuses to start on the two together\n"
            "  next: move the directory `store` beside the log aside, to go on with what the log alone holds",
            err=True,
        )
    kept = [str(file) for file in done.kept]
    if as_json:
        cut = done.cut._asdict() if done.cut else None
        say_json({"repaired": done.cut is not None, "cut": cut, "tail": _position(done.tail), "kept": kept})
    elif done.cut is None:
        click.echo("nothing to repair")
    else:
        click.echo(f"cut at {_place(done.cut)}")
        click.echo(f"the log now ends with seq {done.tail.seq}; what was cut is in: {', '.join(kept) or 'nothing'}")


def _fields(event: Any) -> dict[str, Any]:
    return {name: getattr(event, name) for name in event.__struct_fields__}


def _log_of(directory: Path) -> Path:
    path = directory / "log" if (directory / "log").is_dir() else directory
    if not path.is_dir():
        raise Failure(MISSING, f"{directory}: there is no such directory", "name a data directory, or the log in it")
    if path is directory and (path / "store").is_dir():  # no log has such a thing in it
        raise Failure(DATA, f"{directory} holds a store, but no log", "restore the directory from a copy")
    return path


def _events(path: Path, after_seq: int) -> Iterator[tuple[int, int, Any]]:
    from truba.codec.batch import decode_batch
    from truba.log import inspect

    for frame in inspect.frames(path):
        batch = frame.batch
        if batch.last_seq > after_seq:
            for seq, event in enumerate(decode_batch(batch.body), batch.first_seq):
                if seq > after_seq:
                    yield batch.term, seq, event


def _plain(key: str, value: Any, whole: bool) -> Any:
    """For JSON. Records as base64, or their lengths only; digests of owners in hex."""
    match value:
        case list():
            return [base64.b64encode(r).decode() if whole else len(r) for r in value]
        case bytes() if key == "record":
            return base64.b64encode(value).decode() if whole else len(value)
        case bytes():
            return value.hex()
        case _:
            return value


def _readable(key: str, value: Any, whole: bool) -> str:
    match value:
        case list():
            return _records(value, whole)
        case bytes() if key == "record":
            return _records([value], whole)
        case bytes():
            return value.hex()[:8]
        case int() if key.endswith("_ms") and key != "grace_ms" and value < YEAR_10000_MS:
            return datetime.fromtimestamp(value / 1000, UTC).isoformat(timespec="milliseconds")
        case _:
            return printable(str(value))


def _records(records: Iterable[bytes], whole: bool) -> str:
    shown = [f"{len(record)}B:{preview(record)!r}" if whole else f"{len(record)}B" for record in records]
    return f"[{' '.join(shown)}]"


def _position(position: Position) -> dict[str, Any]:
    return {"term": position.term, "seq": position.seq, "chain": position.chain.hex()}


def _place(damage: Damage) -> str:
    return f"{damage.name}, offset {damage.offset}, seq {damage.seq}: {damage.reason}"


def _store_ahead(directory: Path, tail: Position) -> Position | None:
    """What the store beside the log says it holds, where the log ends before that."""
    from truba.store.mark import read_mark

    try:
        mark = read_mark(_log_of(directory).absolute().parent / "store")  # `.` has no parent of its own
    except (DataDamaged, OSError) as error:  # which is no word about the log, and what was done to it is to be told
        click.echo(f"whether the store goes beyond the log cannot be told: {error}", err=True)
        return None
    return mark if mark is not None and mark.seq > tail.seq else None
