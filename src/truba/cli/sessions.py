"""`truba ls`, `truba show` and `truba why`: look at the sessions of a running pipe. Changes nothing."""

from __future__ import annotations

import base64
import sys
import time
from collections.abc import Collection, Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from truba.cli.failure import USAGE, Failure
from truba.cli.options import TEXT, json_option, say_json, say_table
from truba.cli.preview import BYTES_MAX, preview, printable
from truba.cli.remote import Ask, asks_a_pipe
from truba.errors import ConfigError, NoPerm
from truba.ports.records import Codec, Shown
from truba.types import Index, Phase

if TYPE_CHECKING:
    from truba.client.admin import Admin, KindInfo, SessionInfo

LIST_MAX = 50
PHASES = [phase.value for phase in Phase]
COLUMNS = (
    ("ID", 14),
    ("KIND", 16),
    ("PHASE", 10),
    ("EPOCH", 6),
    ("RECORDS", 8),
    ("BYTES", 10),
    ("DUE", 12),
    ("CAUSE", 12),
)


class IdType(click.ParamType[Index]):
    """A session's id, `3-117`."""

    name = "ID"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Index:
        try:
            return value if isinstance(value, Index) else Index.parse(value)
        except ValueError as error:
            self.fail(str(error), param, ctx)


@click.command
@click.option("--kind", metavar="KIND", type=TEXT, help="Only this kind: its number or name.")
@click.option("--phase", type=click.Choice(PHASES), help="Only sessions of this phase.")
@click.option("--limit", type=click.IntRange(min=1), help=f"List at most so many.  [default: {LIST_MAX}]")
@click.option("--all", "everything", is_flag=True, help="List all of them, as they come.")
@asks_a_pipe
@json_option
def ls(kind: str | None, phase: str | None, limit: int | None, everything: bool, as_json: bool, ask: Ask) -> None:
    """Without options: how many sessions there are, by kind and phase. With options: the sessions, in order of id.

    \b
    Examples:
      truba ls
      truba ls --phase parked
      truba ls --kind transfer --phase stored --limit 10
      truba ls --all --json | wc -l
    """
    if everything and limit:
        raise click.UsageError("--all and --limit exclude each other")
    if kind is None and phase is None and limit is None and not everything:
        _say_counts(ask(lambda admin: admin.kinds()).values(), as_json)
        return
    most = None if everything else limit or LIST_MAX

    async def list_them(admin: Admin) -> None:
        said = 0
        if not as_json:
            click.echo("".join(title.ljust(width) for title, width in COLUMNS).rstrip())
        async for session in admin.ls(kind=kind, phase=Phase(phase) if phase else None):
            if said == most:
                click.echo(f"... and more: give --limit above {said}, or --all", err=True)
                break
            said += 1
            if as_json:
                say_json(as_document(session))
            else:
                click.echo(_row(session))
        await _tell_paused(admin, kind)

    ask(list_them)


@click.command
@click.argument("session_id", metavar="ID", type=IdType())
@click.option("--records", "with_records", is_flag=True, help=f"Show each record too, up to {BYTES_MAX} bytes of it.")
@click.option("--record", "only", type=click.IntRange(min=0), help="Only the record with this number, from 0.")
@click.option("--codec", metavar="MODULE:OBJECT", help="Show of each record what this codec allows, and no more.")
@click.option("--raw", is_flag=True, help="Write the records' own bytes to stdout, and nothing else.")
@asks_a_pipe
@json_option
def show(
    session_id: Index, with_records: bool, only: int | None, codec: str | None, raw: bool, as_json: bool, ask: Ask
) -> None:
    """Show one session. Records may hold anybody's secrets, so their contents are shown only when asked for.

    With --json, --records gives each record whole, in base64. A codec's module is looked for in the working directory
    too; the pipe itself is not asked for one, and gives this command the records whole.

    \b
    Examples:
      truba show 3-117
      truba show 3-117 --records
      truba show 3-117 --codec bank.steps:STEPS
      truba show 3-117 --record 0 --raw > first.bin
    """
    if raw and (as_json or codec):
        raise click.UsageError(f"--raw and {'--json' if as_json else '--codec'} exclude each other")
    allowing = None if codec is None else _codec(codec)
    session, records = ask(lambda admin: admin.show(session_id))
    chosen = list(enumerate(records))
    if only is not None:
        if only >= len(records):
            raise Failure(USAGE, f"session {session_id} has {len(records)} records; there is no number {only}")
        chosen = [chosen[only]]
    if raw:
        for _, record in chosen:
            sys.stdout.buffer.write(record)
        return
    document = as_document(session)
    wanted = with_records or only is not None or allowing is not None
    if as_json:
        say_json(document | {"contents": list(_contents(chosen, allowing))} if wanted else document)
        return
    shown = document | {"created": _when(session.created_ms), "due": _due(session)}
    say_table(("field", "value"), [(k, v) for k, v in shown.items() if k not in ("created_ms", "due_ms", "paused")])
    if session.paused:
        _say_paused(session.name)
    for number, record in chosen if wanted else ():
        line = preview(record) if allowing is None else printable(*Shown(allowing, [record]))
        click.echo(f"\nrecord {number}, {len(record)} bytes\n  {line}")


def _contents(records: Sequence[tuple[int, bytes]], codec: Codec[Any] | None) -> Iterator[dict[str, Any]]:
    """As JSON has them: whole, or what the codec allows."""
    for number, record in records:
        if codec is None:
            told = {"base64": base64.b64encode(record).decode()}
        else:
            told = {"shown": "".join(Shown(codec, [record]))}
        yield {"number": number, "bytes": len(record)} | told


def _codec(path: str) -> Codec[Any]:
    # Imported when it is asked for: it brings the whole pipe with it.
    from truba.configured import load_codec

    sys.path.insert(0, str(Path.cwd()))
    try:
        return load_codec(path)
    except ConfigError as error:
        raise click.UsageError(f"--codec: {error}") from error


@click.command
@click.argument("session_id", metavar="ID", type=IdType())
@asks_a_pipe
@json_option
def why(session_id: Index, as_json: bool, ask: Ask) -> None:
    """Say in plain words where a session stands, what brought it there, and what happens next and when.

    \b
    Examples:
      truba why 3-117
      truba why 3-117 --json
    """
    sentences = ask(lambda admin: admin.why(session_id))
    if as_json:
        say_json({"id": str(session_id), "why": list(sentences)})
    else:
        for sentence in sentences:
            click.echo(printable(sentence))  # one may hold what a client or a handler gave for its reason


def as_document(session: SessionInfo) -> dict[str, Any]:
    """A session as JSON has it; `records` is their count."""
    return {
        "id": str(session.id),
        "kind": session.kind,
        "name": session.name,
        "phase": session.phase.value,
        "epoch": session.epoch,
        "created_ms": session.created_ms,
        "due_ms": session.due_ms,
        "attempts": session.attempts,
        "deliveries": session.deliveries,
        "cause": session.cause,
        "detail": session.detail,
        "records": session.records,
        "bytes": session.bytes,
        "paused": session.paused,
    }


def _say_counts(kinds: Collection[KindInfo], as_json: bool) -> None:
    rows = [(kind.number, kind.name, *map(kind.sessions.__getitem__, Phase), kind.paused) for kind in kinds]
    if as_json:
        say_json({"kinds": [dict(zip(("number", "name", *PHASES, "paused"), row, strict=True)) for row in rows]})
        return
    say_table(("number", "kind", *PHASES), [row[:-1] for row in rows], numeric=("number", *PHASES))
    _say_all_paused(kinds)


async def _tell_paused(admin: Admin, kind: str | None) -> None:
    """After a list, and after an empty one too: who waits for sessions to be handed over must know."""
    try:
        kinds = await admin.kinds(kind)
    except NoPerm as error:
        click.echo(f"... whether a kind is paused was not told: {error}", err=True)
    else:
        _say_all_paused(kinds.values())


def _say_all_paused(kinds: Iterable[KindInfo]) -> None:
    for kind in kinds:
        if kind.paused:
            _say_paused(kind.name)


def _say_paused(name: str) -> None:
    click.echo(f"kind {name} is paused: truba continue {name}", err=True)


def _row(session: SessionInfo) -> str:
    cells = (
        session.id,
        session.name or session.kind,
        session.phase,
        session.epoch,
        session.records,
        session.bytes,
        "paused" if session.paused and session.phase is Phase.STORED else _due(session),
        session.cause or "-",
    )
    return "".join(f"{cell!s:<{width - 1}} " for cell, (_, width) in zip(cells, COLUMNS, strict=True)).rstrip()


def _due(session: SessionInfo) -> str:
    if session.phase is not Phase.STORED:
        return "-"
    left_s = session.due_ms / 1000 - time.time()
    return f"in {_rough(left_s)}" if left_s > 0 else "now"


def _rough(time_s: float) -> str:
    for unit, unit_s in (("d", 86_400), ("h", 3_600), ("m", 60)):
        if time_s >= 2 * unit_s:
            return f"{time_s / unit_s:.0f}{unit}"
    return f"{time_s:.0f}s"


def _when(unix_ms: int) -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S %z", time.localtime(unix_ms / 1000))
