"""Arguments of a request -> typed values. Pure; knows what each request takes, not what it does.

Every function takes the whole request, its own word first, and raises BadRequest with what was expected instead.
Option words (`TAG`, `GRACE`, `AUTH` ...) are taken in any case, like the words of requests.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from decimal import ROUND_CEILING, Decimal
from typing import NamedTuple, NoReturn

from truba.errors import BadRequest
from truba.kinds import KIND_MAX
from truba.session import STORE_SECONDS_MAX as SECONDS_MAX
from truba.types import Index, Phase

Args = Sequence[bytes]
KindRef = int | str
"""A kind as a request names it: its number, or its configured name."""

TAG_MAX = 2**63 - 1
TOKEN_BYTES_MIN, TOKEN_BYTES_MAX = 16, 64
NAME_BYTES_MAX = 256  # of a kind in a request; far above any name in use
LS_LIMIT, LS_LIMIT_MAX = 100, 10_000
CREDIT, CREDIT_MAX = 64, 65_536

# As Index prints them, and no more digits than fit 64 bits: whoever packs them into bytes never overflows.
_ID = re.compile(rb"(0|[1-9][0-9]{0,18})-(0|[1-9][0-9]{0,18})(?:@(0|[1-9][0-9]{0,18}))?").fullmatch
_SECONDS = re.compile(rb"(?:[0-9]{1,30}(?:\.[0-9]{0,30})?|\.[0-9]{1,30})(?:[eE][+-]?[0-9]{1,3})?").fullmatch


class Hello(NamedTuple):
    proto: int | None  # 2 or 3; None: as it is
    auth: tuple[bytes, bytes] | None  # user, password
    client_name: bytes | None


class Page(NamedTuple):
    """What LS asks for."""

    kind: KindRef | None
    phase: Phase | None
    after: Index | None
    limit: int


def refuse(what: str) -> NoReturn:
    raise BadRequest(f"{what}; nothing was stored")


def parse_id(text: bytes) -> tuple[Index, int | None]:
    """`3-117` or `3-117@2`: the id and the epoch, None where it is left open."""
    found = _ID(text)
    if found is not None:
        term, seq, epoch = found.groups()
        return Index(int(term), int(seq)), None if epoch is None else int(epoch)
    refuse(f"{_shown(text)} is not an id; ids look like 3-117 or 3-117@2")


def parse_new(args: Args) -> tuple[KindRef, int, list[bytes], bytes]:
    """`NEW kind [TRACE context] [TAG n] [record ...]`: kind, tag (-1: none), first records, trace (empty: none).

    `TRACE` or `TAG` right after the kind is always the option. Whoever must send such a word as a first record gives an
    explicit TAG before, or sends its records with APPEND.
    """
    if len(args) < 2:
        refuse("NEW takes a kind, then TRACE and a context, TAG and a number if wanted, then records if wanted")
    kind = parse_kind(args[1])
    at, trace = 2, b""
    if len(args) > 2 and len(args[2]) == 5 and args[2].upper() == b"TRACE":
        if len(args) == 3 or not args[3]:
            refuse("TRACE takes a trace context")
        at, trace = 4, args[3]
    if len(args) > at and len(args[at]) == 3 and args[at].upper() == b"TAG":
        if len(args) == at + 1:
            refuse("TAG takes a number")
        return kind, _number(args[at + 1], "TAG takes a number", 0, TAG_MAX), list(args[at + 2 :]), trace
    return kind, -1, list(args[at:]), trace


def parse_owner(args: Args) -> tuple[bytes, int]:
    """`OWNER token [GRACE seconds]`: token, milliseconds."""
    if len(args) not in (2, 4) or (len(args) == 4 and args[2].upper() != b"GRACE"):
        refuse("OWNER takes a token, then GRACE and a number of seconds if wanted")
    token = args[1]
    if not TOKEN_BYTES_MIN <= len(token) <= TOKEN_BYTES_MAX:
        # Never shown: it is a secret.
        refuse(f"a token has {TOKEN_BYTES_MIN} to {TOKEN_BYTES_MAX} bytes, this one {len(token)}")
    return token, parse_seconds(args[3], "GRACE") if len(args) == 4 else 0


def parse_auth(args: Args) -> tuple[bytes | None, bytes]:
    """`AUTH [user] password`: user, password."""
    if not 2 <= len(args) <= 3:
        refuse("AUTH takes a password, or a user and a password")
    return (args[1], args[2]) if len(args) == 3 else (None, args[1])


def parse_hello(args: Args) -> Hello:
    """`HELLO [2|3] [AUTH user password] [SETNAME name]`."""
    if len(args) == 1:
        return Hello(None, None, None)
    if args[1] not in (b"2", b"3"):
        refuse(f"HELLO takes 2 or 3, the version of the protocol, not {_shown(args[1])}")
    auth: tuple[bytes, bytes] | None = None
    client_name: bytes | None = None
    at = 2
    while at < len(args):
        option, left = args[at].upper(), len(args) - at - 1
        if option == b"AUTH" and auth is None and left >= 2:
            auth = args[at + 1], args[at + 2]
            at += 3
        elif option == b"SETNAME" and client_name is None and left >= 1:
            client_name = args[at + 1]
            at += 2
        else:
            refuse("after its version HELLO takes AUTH with user and password, and SETNAME with a name, each once")
    return Hello(int(args[1]), auth, client_name)


def parse_kinds(args: Args) -> tuple[tuple[int, ...], int]:
    """`KINDS n [n ...] [CREDIT c]`: numbers of kinds, each once, in the order given; credit."""
    end, credit = len(args), CREDIT
    if end > 3 and args[-2].upper() == b"CREDIT":
        end -= 2
        credit = _number(args[-1], "CREDIT takes a number of sessions", 0, CREDIT_MAX)
    if end < 2:
        refuse("KINDS takes at least one number of a kind, then CREDIT and a number of sessions if wanted")
    numbers = [_number(text, "KINDS takes numbers of kinds", 0, KIND_MAX) for text in args[1:end]]
    return tuple(dict.fromkeys(numbers)), credit


def parse_ls(args: Args) -> Page:
    """`LS [KIND k] [PHASE p] [AFTER id] [LIMIT n]`, in any order, each once."""
    usage = "LS takes KIND k, PHASE p, AFTER id and LIMIT n, each once if wanted"
    if len(args) % 2 == 0:
        refuse(usage)
    options: dict[bytes, bytes] = {}
    for at in range(1, len(args), 2):
        option = args[at].upper()
        if option in options or option not in (b"KIND", b"PHASE", b"AFTER", b"LIMIT"):
            refuse(f"{usage}; not {_shown(args[at])} here")
        options[option] = args[at + 1]
    kind, phase, after, limit = map(options.get, (b"KIND", b"PHASE", b"AFTER", b"LIMIT"))
    return Page(
        kind=None if kind is None else parse_kind(kind),
        phase=None if phase is None else _phase(phase),
        after=None if after is None else _plain_id(after),
        limit=LS_LIMIT if limit is None else _number(limit, "LIMIT takes a number of sessions", 1, LS_LIMIT_MAX),
    )


def parse_kind(text: bytes) -> KindRef:
    """A number up to KIND_MAX, or a name; whether it is configured is not asked here."""
    if text.isdigit():
        return _number(text, "the number of a kind is", 0, KIND_MAX)
    try:
        name = text.decode() if len(text) <= NAME_BYTES_MAX else ""
    except UnicodeDecodeError:
        name = ""
    if not name:
        refuse(f"a kind is a number or a configured name, not {_shown(text)}")
    return name


def parse_seconds(text: bytes, word: str) -> int:
    """Seconds, fractions allowed -> whole milliseconds, rounded up: what waits is never early."""
    if text.isdigit() and len(text) <= 9:
        seconds = int(text)
        if seconds <= SECONDS_MAX:
            return seconds * 1_000
    elif _SECONDS(text):
        exact = Decimal(text.decode())
        if exact <= SECONDS_MAX:
            return int((exact * 1_000).to_integral_value(ROUND_CEILING))
    refuse(f"{word} takes seconds from 0 to {SECONDS_MAX} (ten years), fractions allowed, not {_shown(text)}")


def _number(text: bytes, takes: str, low: int, high: int) -> int:
    if _is_number(text, high) and int(text) >= low:
        return int(text)
    refuse(f"{takes} from {low} to {high}, not {_shown(text)}")


def _is_number(text: bytes, high: int) -> bool:
    """Decimal digits as a program would print them, at most `high`."""
    plain = text.isdigit() and len(text) <= 20 and (text[0] != 0x30 or len(text) == 1)
    return plain and int(text) <= high


def _plain_id(text: bytes) -> Index:
    index, epoch = parse_id(text)
    if epoch is not None:
        refuse(f"AFTER takes an id without an epoch, not {_shown(text)}")
    return index


def _phase(text: bytes) -> Phase:
    try:
        return Phase(text.decode("ascii", "replace").lower())
    except ValueError:
        refuse(f"PHASE takes {', '.join(Phase)}, not {_shown(text)}")


def _word(args: Args) -> str:
    return args[0].decode("ascii", "replace").upper()


def _shown(text: bytes) -> str:
    return repr(text[:48])[1:] + ("..." if len(text) > 48 else "")
