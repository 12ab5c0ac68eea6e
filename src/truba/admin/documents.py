"""What is answered, as documents: the models tell OpenAPI, the functions make what a test holds against them.

Answers are made of plain values and encoded at once: to validate a thousand sessions on their way out would hold up
the loop for nothing.
"""

from __future__ import annotations

import base64
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, ConfigDict

from truba.admin.pulse import Pulse
from truba.admin.subject import Subject
from truba.machine.history import holds
from truba.node.dispatcher import KindLane
from truba.node.node import Node
from truba.ports.store import Head
from truba.types import Phase

if TYPE_CHECKING:
    from truba.reload import Reloaded

RECORDS_BYTES_MAX = 1 << 20
"""Of records in one answer: then `next` says where to go on."""

RECORDS_MAX = 1000


class Document(BaseModel):
    model_config = ConfigDict(extra="forbid")


class Problem(Document):
    """An error. `happened`: "no" or "unknown"; `again`: may it be repeated "now", "later" or "never"."""

    type: str
    title: str
    status: int
    detail: str
    code: str | None = None
    happened: str | None = None
    again: str | None = None


class Change(Document):
    key: str
    before: Any
    after: Any


class Reload(Document):
    applied: bool
    changes: list[Change]
    sessions: dict[str, dict[str, int]]
    """By name of each kind that a change touches: phase, and how many it has now."""


class Hold(Document):
    """Times are milliseconds since 1970; 0: not known (a log of an earlier version), or not over yet."""

    epoch: int
    at_ms: int
    to: str
    """The handler as configured then; empty: the client."""
    ended_ms: int
    cause: str
    detail: str


class Session(Document):
    id: str
    kind: int
    name: str
    phase: str
    epoch: int
    created_ms: int
    due_ms: int
    attempts: int
    deliveries: int
    cause: str
    detail: str
    records: int
    bytes: int


class Sessions(Document):
    sessions: list[Session]
    next: str | None
    """Give it as `after` for the next page; null at the end. A page may be short, or empty, before the end: each
    request looks at so many sessions at most."""


class Record(Document):
    number: int
    bytes: int
    shown: str | None
    """What its kind's codec allows to show of it; null: the kind has none."""
    base64: str | None
    """null: contents are not shown (`show_records`, `contents=true`), or the kind has a codec."""


class WholeSession(Session):
    why: list[str]
    history: list[Hold]
    """The last 8 holds."""
    history_complete: bool
    """Whether that is all of them, with their times."""
    trace: str
    record_list: list[Record]
    next_record: int | None
    """Give it as `first_record` for more; null at the end."""


class Breaker(Document):
    stage: str
    since_ms: int
    until_ms: int | None
    failures: int
    cause: str
    detail: str


class Handler(Document):
    route: str
    state: str
    reachable: bool
    out: int
    concurrency: int
    breaker: Breaker


class Rate(Document):
    window_s: float
    finished_per_s: float
    backlog_per_s: float
    drained_in_s: float | None


class KindDocument(Document):
    number: int
    name: str
    paused: bool
    phases: dict[str, int]
    oldest_due_s: float | None
    """How long the session that is due first has been due; null: none is due."""
    deliveries: int
    outcomes: dict[str, int]
    rate: Rate | None
    handler: Handler


class NodeDocument(Document):
    name: str
    version: str
    role: str
    leader: str
    ready: bool
    trouble: str
    term: int
    seq: int
    log_bytes: int
    log_space: str
    store_bytes: int
    connections: int
    lag_s: float
    now_ms: int


class Overview(Document):
    node: NodeDocument
    kinds: list[KindDocument]


class Alive(Document):
    alive: bool


class Ready(Document):
    ready: bool
    role: str
    leader: str
    trouble: str


class Serving(Document):
    serving: bool
    role: str
    leader: str
    trouble: str


class Done(Document):
    id: str
    done: str
    paused: bool
    """The session's kind is paused: it is not handed over before that goes on."""


class Paused(Document):
    kind: int
    name: str
    paused: bool


class Job(Document):
    id: str
    kind: int
    state: str
    """running, done, cancelled or failed"""
    looked_at: int
    resumed: int
    refused: int
    expected: int
    """Parked sessions of the kind when it began."""
    detail: str


class Jobs(Document):
    jobs: list[Job]


def session(node: Node, head: Head) -> dict[str, Any]:
    """As `Session`."""
    return {
        "id": str(head.id),
        "kind": head.kind,
        "name": node.kinds[head.kind].name,
        "phase": head.phase.value,
        "epoch": head.epoch,
        "created_ms": head.created_ms,
        "due_ms": head.due_ms,
        "attempts": head.attempts,
        "deliveries": head.deliveries,
        "cause": "" if head.phase is Phase.ACTIVE else head.cause.value,
        "detail": head.detail,
        "records": head.next - head.first,
        "bytes": head.bytes,
    }


def whole_session(node: Node, head: Head) -> dict[str, Any]:
    """As `WholeSession`, but for its records."""
    history = holds(head)
    return session(node, head) | {
        "why": node.operators.why(head.id),
        "history": [
            {
                "epoch": held.epoch,
                "at_ms": held.at_ms,
                "to": held.to,
                "ended_ms": held.ended_ms,
                "cause": held.cause,
                "detail": held.detail,
            }
            for held in history
        ],
        "history_complete": history[0].epoch == 0 and all(held.at_ms for held in history),
        "trace": head.trace.decode("ascii", "replace"),
    }


def page(all_records: Sequence[bytes], first: int, *, sizes_only: bool) -> tuple[range, int | None]:
    """The numbers of some records from `first` on, at least one if there is one; the number to go on with."""
    last, size = min(len(all_records), first + RECORDS_MAX), 0
    for number in range(first, last):
        size += 0 if sizes_only else len(all_records[number])
        if number > first and size > RECORDS_BYTES_MAX:
            last = number
            break
    return range(first, last), last if first <= last < len(all_records) else None


def record(number: int, data: bytes, shown: str | None, *, contents: bool) -> dict[str, Any]:
    """As `Record`; with its contents if `contents`."""
    text = base64.b64encode(data).decode() if contents else None
    return {"number": number, "bytes": len(data), "shown": shown, "base64": text}


def overview(subject: Subject, node: Node, pulse: Pulse) -> dict[str, Any]:
    """As `Overview`."""
    return {
        "node": {
            "name": subject.name,
            "version": subject.version,
            "role": subject.role(),
            "leader": subject.leader(),
            "ready": subject.ready,
            "trouble": subject.trouble(),
            "term": node.machine.term,
            "seq": node.machine.seq,
            "log_bytes": subject.log_bytes(),
            "log_space": node.log.space,
            "store_bytes": subject.store_bytes(),
            "connections": subject.doors().connections,
            "lag_s": pulse.lag_max_s,
            "now_ms": node.clock.now_ms(),
        },
        "kinds": [kind(node, number, pulse) for number in sorted(node.kinds)],
    }


def kind(node: Node, number: int, pulse: Pulse) -> dict[str, Any]:
    """As `KindDocument`."""
    machine, lane = node.machine, node.dispatcher.lanes[number]
    key, now_ms = machine.queue(number).peek(), node.clock.now_ms()
    rate = pulse.rate(number)
    return {
        "number": number,
        "name": node.kinds[number].name,
        "paused": lane.paused,
        "phases": {phase.value: machine.counts[number, phase] for phase in Phase},
        "oldest_due_s": None if key is None or key.due_ms > now_ms else (now_ms - key.due_ms) / 1000,
        "deliveries": lane.meter.deliveries,
        "outcomes": dict(lane.meter.outcomes),
        "rate": None if rate is None else rate._asdict(),
        "handler": handler(lane),
    }


def handler(lane: KindLane) -> dict[str, Any]:
    """As `Handler`."""
    view, breaker = lane.view, lane.breaker
    return {
        "route": view.handler,
        "state": view.state,
        "reachable": view.reachable,
        "out": view.out,
        "concurrency": view.concurrency,
        "breaker": {
            "stage": breaker.stage.value,
            "since_ms": breaker.since_ms,
            "until_ms": breaker.until_ms,
            "failures": breaker.failures,
            "cause": breaker.cause.value if breaker.cause else "",
            "detail": breaker.detail,
        },
    }


def reload(reloaded: Reloaded) -> dict[str, Any]:
    return {
        "applied": reloaded.applied,
        "changes": [{"key": change.key, "before": change.before, "after": change.after} for change in reloaded.changes],
        "sessions": reloaded.sessions,
    }
