"""What each request means: arguments -> one call on the node -> answer. The table is at the end.

The operations on sessions come first; they are the path that everything is measured by.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Generator, Iterator
from dataclasses import asdict
from functools import partial

from truba import __version__
from truba.errors import BadRequest, DataError, Fenced, NoAuth, OperationError, UnknownKind
from truba.node.operators import UNCHANGED, Operators
from truba.node.owners import Hold
from truba.node.presence import Listed
from truba.ports.store import Head
from truba.protocols import grammar, replies
from truba.types import Index
from truba.wire.connection import Connection, Verb
from truba.wire.late import answer_later, confirmed, in_steps
from truba.wire.stranger import authenticate
from truba.wire.views import describe, info_text

OK = replies.OK

REASON_BYTES_MAX = 1024
"""Of a FAIL: cut here before it is decoded; the machine keeps less."""

BACKUP_NAME_SHOWN = 256
"""Of the name that somebody gave a backup, in the audit log."""

ANYBODY = "anybody"
"""Who did it, in the audit log, where nobody must say who he is."""

# -- operations on sessions --------------------------------------------------------------------------------------


def _hold(connection: Connection, id_text: bytes, verb: str) -> Hold:
    hold = connection.holds.get(id_text)
    if hold is None or hold.strict or connection.owner.superseded:
        hold = connection.node.find(connection.owner, id_text)
    if connection.principal is not None:
        connection.permit(verb, hold.kind)
    return hold


def new(connection: Connection, args: list[bytes]) -> bytes:
    wanted, tag, records, trace = grammar.parse_new(args)
    kind = wanted if type(wanted) is int else _kind(connection, wanted, "; nothing was stored")
    if connection.principal is not None:
        connection.permit("NEW", kind)
    hold = connection.node.new(connection.owner, kind, records, tag, trace)
    return replies.bulk(hold.id_text)


def append(connection: Connection, args: list[bytes]) -> bytes:
    if len(args) < 3:
        raise BadRequest("APPEND takes an id and at least one record; nothing was stored")
    connection.node.append(_hold(connection, args[1], "APPEND"), args[2:])
    return OK


def replace(connection: Connection, args: list[bytes]) -> bytes:
    if len(args) != 3:
        raise BadRequest("REPLACE takes an id and one record; nothing was stored")
    connection.node.replace(_hold(connection, args[1], "REPLACE"), args[2])
    return OK


def delete(connection: Connection, args: list[bytes]) -> bytes:
    if len(args) != 2:
        raise BadRequest("DELETE takes an id; nothing was deleted")
    connection.node.delete(_hold(connection, args[1], "DELETE"))
    return OK


def store(connection: Connection, args: list[bytes]) -> bytes:
    if len(args) != 3:
        raise BadRequest("STORE takes an id and seconds; nothing was stored")
    delay_ms = grammar.parse_seconds(args[2], "STORE")
    connection.node.store(_hold(connection, args[1], "STORE"), delay_ms)
    return OK


def fail(connection: Connection, args: list[bytes]) -> bytes:
    if len(args) not in (2, 3):
        raise BadRequest("FAIL takes an id and perhaps a reason; nothing was stored")
    reason = args[2][:REASON_BYTES_MAX].decode("utf-8", "replace") if len(args) == 3 else ""
    connection.node.fail(_hold(connection, args[1], "FAIL"), reason)
    return OK


def touch(connection: Connection, args: list[bytes]) -> bytes:
    if len(args) != 2:
        raise BadRequest("TOUCH takes an id")
    connection.node.touch(_hold(connection, args[1], "TOUCH"))
    return OK


def _kind(connection: Connection, kind: int | str, unchanged: str = "") -> int:
    """Its number. UnknownKind ends with `unchanged`: what did not happen, if anything could have."""
    node = connection.node
    number = kind if isinstance(kind, int) else node.kind_numbers.get(kind)
    if number is None or number not in node.kinds:
        shown = kind if isinstance(kind, int) else repr(kind[:64])
        raise UnknownKind(f"no kind {shown} is configured{unchanged}")
    return number


# -- owners and handlers ------------------------------------------------------------------------------------------


def owner(connection: Connection, args: list[bytes]) -> bytes | None:
    """Whoever asks settles by the answer what became of its last operations, so it must be the latest state's."""
    token, grace_ms = grammar.parse_owner(args)
    connection.permit("OWNER", None)
    return confirmed(connection, partial(_name_owner, connection, token, grace_ms))


def _name_owner(connection: Connection, token: bytes, grace_ms: int) -> bytes | None:
    owner = connection.owner
    slices = connection.node.presence.take_over(owner, token, grace_ms)
    return in_steps(connection, _held(connection, slices, sum(len(each.holds) for each in (owner, *owner.taking))))


def _held(connection: Connection, slices: Iterator[list[Listed]], expected: int) -> Generator[None, None, bytes]:
    """One array of all that is held, made in as many steps as there are slices; the first two in one.

    What is made leaves at once: whoever waits for a million sees that they come. So their number is said before they
    are known: null stands for what ends meanwhile, and an error for what cannot be told any more. A handler is pushed
    sessions, which cannot come within an answer: it gets its own as a whole.
    """
    in_pieces, begun = not connection.dialled, False
    count, told, parts = 0, 0, list[bytes]()
    try:
        for held in slices:
            if parts:
                yield
                if in_pieces:
                    connection.send(b"".join(parts) if begun else replies.array_in_pieces(expected, parts))
                    told, begun = count, True
                    parts.clear()
            count += len(held)
            parts.append(
                b"".join(
                    [
                        replies.array([replies.bulk(b"%d-%d" % index), *map(replies.integer, (kind, tag, operations))])
                        for index, kind, tag, operations in held
                    ]
                )
            )
    except (OperationError, DataError) as error:
        if not begun:
            raise
        count, parts = told + 1, [connection.refusal(error)]  # in the place of the latest slice, which has not left
    if begun:
        return b"".join(parts) + replies.null(connection.proto) * (expected - count)
    return replies.array_in_pieces(count, parts)


def kinds(connection: Connection, args: list[bytes]) -> bytes:
    numbers, credit = grammar.parse_kinds(args)
    if not connection.dialled:
        raise BadRequest("KINDS is for handlers, on a connection that the pipe dialled; this one you dialled yourself")
    for number in numbers:
        connection.permit("KINDS", number)
        if number not in connection.node.kinds:
            raise UnknownKind(f"no kind {number} is configured; nothing will be handed over")
    connection.serve_kinds(frozenset(numbers), credit)
    return OK


# -- operators ------------------------------------------------------------------------------------------------------


def ls(connection: Connection, args: list[bytes]) -> bytes:
    wish = grammar.parse_ls(args)
    kind = None if wish.kind is None else _kind(connection, wish.kind)
    connection.permit("LS", kind)
    node = connection.node
    heads, rest = node.operators.page(
        wish.after,
        wish.limit,
        lambda head: (kind is None or head.kind == kind) and (wish.phase is None or head.phase is wish.phase),
    )
    cursor = b"" if rest is None else str(rest).encode()
    return replies.encode([cursor, [describe(node, head, None) for head in heads]], connection.proto)


def show(connection: Connection, args: list[bytes]) -> bytes:
    node, head = connection.node, _look_up(connection, args, "SHOW")
    return replies.encode(describe(node, head, node.machine.records(head.number)), connection.proto)


def why(connection: Connection, args: list[bytes]) -> bytes:
    head = _look_up(connection, args, "WHY")
    return replies.array([replies.bulk(sentence.encode()) for sentence in connection.node.operators.why(head.id)])


def resume(connection: Connection, args: list[bytes]) -> bytes | None:
    return _decide(connection, args, "RESUME", "resume", Operators.resume)


def remove(connection: Connection, args: list[bytes]) -> bytes | None:
    return _decide(connection, args, "REMOVE", "delete", Operators.remove)


def _decide(
    connection: Connection, args: list[bytes], verb: str, act: str, decide: Callable[[Operators, Index], None]
) -> bytes | None:
    head = _look_up(connection, args, verb, UNCHANGED)

    def do() -> bytes:
        # Looked up again: while the audit log was written it may have been handed over.
        decide(connection.node.operators, _look_up(connection, args, verb, UNCHANGED).id)
        return OK

    return _audited(connection, act, f"session {head.id}", do)


def _look_up(connection: Connection, args: list[bytes], verb: str, unchanged: str = "") -> Head:
    """The session that an operator means by `3-117`; or by `3-117@2`, while it is at that epoch, whoever holds it."""
    if len(args) != 2:
        raise BadRequest(f"{verb} takes an id{unchanged}")
    index, epoch = grammar.parse_id(args[1])
    head = connection.node.look_up(index, unchanged)
    connection.permit(verb, head.kind)
    if epoch is not None and epoch != head.epoch:
        raise Fenced(f"session {index} is at epoch {head.epoch}, not {epoch}{unchanged}")
    return head


def pause(connection: Connection, args: list[bytes]) -> bytes | None:
    return _pause(connection, args, "PAUSE", True)


def continue_(connection: Connection, args: list[bytes]) -> bytes | None:
    return _pause(connection, args, "CONTINUE", False)


def _pause(connection: Connection, args: list[bytes], verb: str, on: bool) -> bytes | None:
    if len(args) != 2:
        raise BadRequest(f"{verb} takes a kind; nothing was changed")
    kind = _kind(connection, grammar.parse_kind(args[1]), UNCHANGED)
    connection.permit(verb, kind)

    def do() -> bytes:
        connection.node.operators.pause(kind, on)
        return OK

    return _audited(connection, verb.lower(), f"kind {kind}", do)


def _audited(connection: Connection, act: str, on: str, do: Callable[[], bytes]) -> bytes | None:
    """The answer of `do`, which stages what an operator wants: between its two lines in the audit log, if there is one.

    Who has no right to it, or names a session or kind that is not there, changes nothing and is not written down.
    """
    audit = connection.settings.audit
    if audit is None:
        return do()

    async def durably() -> bytes:
        answer = do()
        await connection.node.sequencer.flush()
        return answer

    who = ANYBODY if connection.principal is None else connection.principal.name
    answer_later(connection, audit.audited(durably, who=who, peer=connection.peer, act=act, on=on))
    return None


def info(connection: Connection, args: list[bytes]) -> bytes:
    """`KIND k`: of that kind alone. Redis clients ask for sections by other words: they get all of it."""
    kind: int | None = None
    if len(args) > 1 and args[1].upper() == b"KIND":
        if len(args) != 3:
            raise BadRequest("INFO takes KIND k if wanted")
        kind = _kind(connection, grammar.parse_kind(args[2]))
    connection.permit("INFO", kind)
    return replies.bulk(info_text(connection.node, kind).encode())


def backup(connection: Connection, args: list[bytes]) -> bytes | None:
    """With a name: begins one. Without: how far it is, or how the last one went."""
    connection.permit("BACKUP", None)
    if len(args) > 2:
        raise BadRequest("BACKUP takes a name at most; nothing was begun")
    backups = connection.node.operators.backups
    if backups is None:
        raise BadRequest(
            "this pipe makes no backups while it runs. In a cluster: stop one node, the others go on meanwhile, and"
            " use truba backup --data on its host; nothing was begun"
        )
    if len(args) == 2:
        name = os.fsdecode(args[1])
        return _audited(
            connection,
            "begin a backup",
            f"backup {name[:BACKUP_NAME_SHOWN]!r}",
            lambda: replies.bulk(os.fsencode(backups.begin(name))),
        )
    fields: dict[str | bytes, replies.Value] = dict(asdict(backups.progress).items())
    return replies.encode(fields, connection.proto)


def leader(connection: Connection, args: list[bytes]) -> bytes:
    """Whoever can be asked for anything else leads. Nodes that do not lead answer for themselves: `frontends.relay`."""
    if len(args) != 1:
        raise BadRequest("LEADER takes nothing")
    return replies.null(connection.proto)


# -- the connection itself --------------------------------------------------------------------------------------


def ping(connection: Connection, args: list[bytes]) -> bytes:
    if len(args) > 2:
        raise BadRequest("PING takes one text at most")
    return replies.bulk(args[1]) if len(args) == 2 else b"+PONG\r\n"


def echo(connection: Connection, args: list[bytes]) -> bytes:
    """`redis-cli --pipe` ends its input with it, to know when the last answer has come."""
    if len(args) != 2:
        raise BadRequest("ECHO takes one text")
    return replies.bulk(args[1])


def auth(connection: Connection, args: list[bytes]) -> bytes | None:
    user, password = grammar.parse_auth(args)
    return authenticate(connection, user or b"default", password, lambda: OK)


def hello(connection: Connection, args: list[bytes]) -> bytes | None:
    proto, credentials, name = grammar.parse_hello(args)
    guarded = connection.settings.authenticator is not None and connection.principal is None
    if guarded and credentials is None:
        raise NoAuth("authenticate first: HELLO 3 AUTH user password")
    welcome = partial(_greet, connection, proto, name)
    return welcome() if credentials is None else authenticate(connection, *credentials, welcome)


def _greet(connection: Connection, proto: int | None, name: bytes | None) -> bytes:
    """A HELLO that was refused changes nothing: whoever tries AUTH next reads what he read before."""
    if proto is not None:
        connection.proto = proto
    if name is not None:
        connection.name = name[:64].decode("utf-8", "replace")
    return replies.encode(
        {
            "server": "truba",
            "version": __version__,
            "proto": connection.proto,
            "id": id(connection) & 0x7FFF_FFFF,
            "mode": "standalone",
            "role": "master",
            "modules": [],
        },
        connection.proto,
    )


def client(connection: Connection, args: list[bytes]) -> bytes:
    match [arg.upper() for arg in args[1:2]]:
        case [b"SETNAME"] if len(args) == 3:
            connection.name = args[2][:64].decode("utf-8", "replace")
            return OK
        case [b"GETNAME"]:
            return replies.bulk(connection.name.encode())
        case [b"SETINFO"]:
            return OK
        case [b"ID"]:
            return replies.integer(id(connection) & 0x7FFF_FFFF)
    raise BadRequest("CLIENT knows SETNAME, GETNAME, SETINFO and ID")


def command(connection: Connection, args: list[bytes]) -> bytes:
    """Redis clients ask for the table of commands; an empty one makes them send what the user wrote."""
    return b":0\r\n" if args[1:2] and args[1].upper() == b"COUNT" else b"*0\r\n"


def config(connection: Connection, args: list[bytes]) -> bytes:
    """redis-benchmark asks for settings of Redis; there are none."""
    if len(args) < 3 or args[1].upper() != b"GET":
        raise BadRequest("CONFIG knows GET only; the configuration is a file")
    return replies.encode({}, connection.proto)


def select(connection: Connection, args: list[bytes]) -> bytes:
    if args[1:] != [b"0"]:
        raise BadRequest("there is one database only, 0")
    return OK


def quit_(connection: Connection, args: list[bytes]) -> bytes:
    connection.quitting = True
    return OK


VERBS: dict[bytes, Verb] = {
    b"NEW": new,
    b"APPEND": append,
    b"REPLACE": replace,
    b"DELETE": delete,
    b"STORE": store,
    b"FAIL": fail,
    b"TOUCH": touch,
    b"OWNER": owner,
    b"KINDS": kinds,
    b"LEADER": leader,
    b"LS": ls,
    b"SHOW": show,
    b"WHY": why,
    b"RESUME": resume,
    b"REMOVE": remove,
    b"PAUSE": pause,
    b"CONTINUE": continue_,
    b"INFO": info,
    b"BACKUP": backup,
    b"PING": ping,
    b"ECHO": echo,
    b"AUTH": auth,
    b"HELLO": hello,
    b"CLIENT": client,
    b"COMMAND": command,
    b"CONFIG": config,
    b"SELECT": select,
    b"QUIT": quit_,
}
