"""What is posted, and what is answered, as values; how they are written in JSON and in MessagePack. Pure.

In JSON bytes are base64 (the standard alphabet, padded); in MessagePack they are bytes. Fields are only ever added, so
receivers pass over those that they do not know; an answer, which decides about a session, is read strictly.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any

import msgspec

from truba.session import STORE_SECONDS_MAX
from truba.webhook.settings import Format

CONTENT_TYPES: dict[Format, str] = {"json": "application/json", "msgpack": "application/msgpack"}
PART_BYTES = 128 << 10
"""Of records in one part of a body, more or less."""

_MSGPACK = ("application/msgpack", "application/vnd.msgpack", "application/x-msgpack")


class Unfinished(msgspec.Struct, frozen=True, tag_field="type", tag="session.unfinished"):
    """An unfinished session, as its handler gets it."""

    session: str
    """Its id, `3-117`: the same at every hand-over, so the key by which work that was done already is recognised."""
    epoch: int
    """Number of the hand-over: the fencing number to give to other systems."""
    kind: int
    name: str
    """The kind's."""
    attempt: int
    """Which hand-over that reached a handler this is, from 1."""
    cause: str
    """What ended the last owner's hold: a `truba.Cause`."""
    deadline_ms: int
    """How long the pipe waits for the answer, from when it was sent."""
    records: list[bytes]


class Parked(msgspec.Struct, frozen=True, tag_field="type", tag="session.parked"):
    """A session that is not handed over any more before somebody resumes it. Never with its records."""

    session: str
    kind: int
    name: str
    cause: str
    detail: str
    """Which limit was reached, and what the last handler said."""
    attempts: int


class Ping(msgspec.Struct, frozen=True, tag_field="type", tag="ping"):
    """`truba check` asks whether somebody is there who knows the secret. Answer 2xx; do nothing."""

    kinds: list[int]


Body = Unfinished | Parked | Ping


class Answer(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """What becomes of the session; see `judged` for what goes together."""

    append: list[bytes] = []
    replace: bytes | None = None
    store: float | None = None
    """Seconds."""
    delete: bool = False


DELETE = Answer(delete=True)


def encode(body: Body, format_: Format) -> bytes:
    return msgspec.json.encode(body) if format_ == "json" else msgspec.msgpack.encode(body)


def encode_parts(body: Unfinished, format_: Format) -> list[bytes]:
    """As `encode`, in parts of some records each.

    Encoded in one, a session of 64 MiB would hold the interpreter for 0.15 s, whichever thread did it.
    """
    empty = encode(msgspec.structs.replace(body, records=[]), format_)
    # `records` is the last field: its empty array, and in JSON the end of the object, are the last bytes.
    if format_ == "json":
        parts = [empty.removesuffix(b"]}")]
        for run in _runs(body.records):
            parts.append((b"," if len(parts) > 1 else b"") + msgspec.json.encode(run)[1:-1])
        return [*parts, b"]}"]
    parts = [empty[:-1] + _array_header(len(body.records))]
    parts += (b"".join(map(msgspec.msgpack.encode, run)) for run in _runs(body.records))
    return parts


def _runs(records: list[bytes]) -> Iterator[list[bytes]]:
    run: list[bytes] = []
    size = 0
    for record in records:
        run.append(record)
        size += len(record)
        if size >= PART_BYTES:
            yield run
            run, size = [], 0
    if run:
        yield run


def _array_header(count: int) -> bytes:
    """MessagePack's: the shortest form."""
    if count < 16:
        return bytes([0x90 | count])
    return b"\xdc" + count.to_bytes(2) if count < 1 << 16 else b"\xdd" + count.to_bytes(4)


def decode(content_type: str, body: bytes) -> Body:
    """ValueError when it is none of them."""
    read = _decoder(content_type)
    if read is None:
        raise ValueError(f"a body of type {content_type!r}")
    found: Body = read(body, type=Body)
    return found


def answer(
    *, append: Sequence[bytes] = (), replace: bytes | None = None, store: float | None = None, delete: bool = False
) -> bytes:
    """The JSON to answer with, as `application/json`. ValueError for what the pipe would refuse."""
    made = Answer(list(append), replace, store, delete)
    if wrong := judged(made):
        raise ValueError(wrong)
    return msgspec.json.encode(made)


def read_answer(content_type: str, body: bytes) -> Answer:
    """What the body of a 2xx says. ValueError, in words for whoever wrote the handler, when it says nothing clear.

    No body is the plain "done". A body that is no answer is never taken for one: a proxy's page with status 200 would
    delete the session.
    """
    if not body.strip():
        return DELETE
    read = _decoder(content_type)
    if read is None:
        shown = f"{content_type or 'no content type'}: {excerpt(body)}"
        raise ValueError(f"a body that is neither JSON nor MessagePack ({shown}); answer 204 without one, or JSON")
    try:
        said: Answer | None = read(body, type=Answer | None)
    except (msgspec.DecodeError, RecursionError) as error:
        raise ValueError(f"a body that cannot be read: {error}") from error
    if said is None:
        return DELETE
    if wrong := judged(said):
        raise ValueError(wrong)
    return said


def judged(said: Answer) -> str:
    """What is wrong with an answer, or nothing.

    `append` and `replace` go with `store`, one at a time: then a record that is refused leaves the session as it was.
    """
    writes = bool(said.append) + (said.replace is not None)
    if said.delete and said.store is not None:
        return "both delete and store; one of them ends the hand-over"
    if not said.delete and said.store is None:
        return "neither delete nor store; one of them ends the hand-over"
    if writes == 2:
        return "both append and replace; replace by one record that says it all"
    if said.delete and writes:
        return "append or replace together with delete, which drops all records; they go with store"
    if said.store is not None and not (math.isfinite(said.store) and 0 <= said.store <= STORE_SECONDS_MAX):
        return f"store takes seconds from 0 to ten years, not {said.store!r}"
    return ""


def excerpt(body: bytes, chars_max: int = 120) -> str:
    """The beginning of what a stranger sent, fit for one line of a log."""
    text = " ".join(body[: 4 * chars_max].decode("utf-8", "replace").split())
    return "".join(c if c.isprintable() else "?" for c in text[:chars_max])


def _decoder(content_type: str) -> Any:
    essence = content_type.partition(";")[0].strip().lower()
    if essence == "application/json" or (essence.startswith("application/") and essence.endswith("+json")):
        return msgspec.json.decode
    if essence in _MSGPACK:
        return msgspec.msgpack.decode
    return None
