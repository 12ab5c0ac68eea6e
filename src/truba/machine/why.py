"""Why a session is where it is, and what happens next and when: sentences for people. Pure.

    why(head, kind, lane, now_ms)  ->  where it stands; what brought it there; what comes next

What is said here is what machine and dispatcher do; nobody decides by it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime

from truba.kinds import Kind
from truba.machine.history import holds
from truba.ports.store import Head
from truba.types import Cause, Phase


@dataclass(frozen=True, slots=True)
class LaneView:
    """The way to one kind's handler as it is now. Times of the wall clock, milliseconds since 1970."""

    handler: str  # as configured
    state: str  # the route's own words
    out: int  # sessions that handlers of this kind hold
    concurrency: int
    paused: bool
    reachable: bool = True  # a seat is free, or one was a moment ago
    room: int | None = None  # sessions that may be out at once just now, if fewer than the concurrency
    rate_per_s: float | None = None  # hand-overs a second, at most
    probing: bool = False  # one session is out, and decides whether the handler works again
    open_until_ms: int | None = None  # the handler is left alone until then
    trouble: str = ""  # why it is


ENDED = {
    Cause.STORED: "its owner stored it itself",
    Cause.LOST: "its owner's connection broke and was not resumed in time",
    Cause.IDLE: "its client made no operation for the kind's idle_timeout ({idle_timeout})",
    Cause.RESTART: "the pipe restarted, or another node came to lead, and its owner did not come back in time",
    Cause.FAILED: "its owner gave it back as failed",
    Cause.LATE: "its handler showed no sign of life for the kind's handler_timeout ({handler_timeout})",
    Cause.UNREACHABLE: "the handler was not reached, or answered that it takes nothing now; that used up no attempt",
    Cause.UNFINISHED: "its handler ended without deleting or storing it",
    Cause.RESUMED: "an operator resumed it, so its attempts and its age are counted anew",
}


def why(head: Head, kind: Kind, lane: LaneView, now_ms: int) -> tuple[str, ...]:
    """Sentences: where it stands, what brought it there, what happens next and when."""
    match head.phase:
        case Phase.ACTIVE:
            return tuple(_active(head, kind, lane, now_ms))
        case Phase.REPEATING:
            return tuple(_repeating(head, kind, lane, now_ms))
        case Phase.STORED:
            return tuple(_stored(head, kind, lane, now_ms))
        case Phase.PARKED:
            return tuple(_parked(head, kind))


def _active(head: Head, kind: Kind, lane: LaneView, now_ms: int) -> Iterator[str]:
    yield f"Active: a client holds it, since it opened it {_ago(head.created_ms, now_ms)}."
    grace = f" and is not back within its grace of {span(head.grace_ms)}" if head.grace_ms else ""
    yield (
        f"It becomes unfinished if that client stores it, if its connection ends{grace}, or if it makes no operation"
        f" for {span(max(kind.idle_timeout_s * 1000, head.grace_ms))} (idle_timeout)."
    )
    if head.next == head.first:
        yield "Lost, it would be deleted: it has no record, so there is nothing to recover from."
    else:
        most = f" to {span((kind.recovery_delay_s + kind.jitter_s) * 1000)}" if kind.jitter_s else ""
        yield (
            f"Lost, it would be handed to {lane.handler} {span(kind.recovery_delay_s * 1000)}{most} later"
            " (recovery_delay, jitter)."
        )


def _repeating(head: Head, kind: Kind, lane: LaneView, now_ms: int) -> Iterator[str]:
    hold = holds(head)[-1]
    to = hold.to or lane.handler
    taken = f", handed over {_ago(hold.at_ms, now_ms)}" if hold.at_ms else ""
    yield f"Repeating: the handler {to} holds it{taken}. It is {_attempt(head, kind)}."
    silence = span(kind.handler_timeout_s * 1000)
    yield f"The handler ends it by deleting or storing it; silent for {silence} (handler_timeout), it loses it."
    if kind.max_attempts and head.attempts >= kind.max_attempts:
        yield "It is the last attempt: if this one fails too, the session is parked."
    else:
        yield "If it fails, it is handed over again after a random time of the kind's backoff."


def _stored(head: Head, kind: Kind, lane: LaneView, now_ms: int) -> Iterator[str]:
    yield f"Stored: nobody holds it, and it is unfinished. {_because(head, kind, now_ms)}"
    if head.deliveries:
        yield f"It was handed over {_times(head.deliveries)}, {head.attempts} of these count as attempts."
    due = f"{_when(head.due_ms, now_ms)}"
    if kind.max_attempts and head.attempts >= kind.max_attempts:
        yield f"It will be parked instead of handed over, {due}: its {_attempts(kind.max_attempts)} are used up."
        return
    old_at_ms = head.aged_from_ms + kind.max_age_s * 1000
    if kind.max_age_s and max(head.due_ms, now_ms) > old_at_ms:
        yield (
            f"It will be parked instead of handed over, {due}: by then it is older than max_age"
            f" ({span(kind.max_age_s * 1000)})."
        )
        return
    if head.due_ms > now_ms:
        yield f"It is to be handed to {lane.handler} {due}."
    else:
        yield f"It came due {_ago(head.due_ms, now_ms)}, for {lane.handler}."
    yield from _held_back(head, kind, lane, now_ms)


def _held_back(head: Head, kind: Kind, lane: LaneView, now_ms: int) -> Iterator[str]:
    """What keeps a due session waiting, or would; most certain first."""
    waits = head.due_ms <= now_ms
    if lane.paused:
        yield (
            "An operator has paused this kind: nothing of it is handed over until it is continued (truba continue"
            f" {kind.name})."
        )
    elif lane.open_until_ms is not None and (waits or lane.open_until_ms > head.due_ms):
        trouble = f" ({lane.trouble})" if lane.trouble else ""
        yield (
            f"The handler is in trouble{trouble} and left alone; one session is tried"
            f" {_when(max(lane.open_until_ms, now_ms), now_ms)}."
        )
    elif lane.probing:
        yield "The handler was in trouble; one session has been handed to it, and decides whether it is left alone."
    elif not lane.reachable:
        yield f"The handler takes none now: {lane.state}. It is tried again by itself; that uses up no attempt."
    elif not waits:
        return
    elif lane.out >= min(lane.concurrency, lane.concurrency if lane.room is None else lane.room):
        few = "may be out so soon after trouble" if lane.out < lane.concurrency else "its concurrency allows"
        yield (
            f"It waits for its turn: handlers work on {lane.out} sessions of this kind, as many as {few}; those that"
            " were due earlier go first."
        )
    elif lane.rate_per_s is not None:
        yield f"It waits for its turn: {lane.rate_per_s:g} a second are handed over, those first that were due earlier."
    else:
        yield "It waits for its turn, which comes at once, after those that were due earlier."


def _parked(head: Head, kind: Kind) -> Iterator[str]:
    yield f"Parked: its limits are exhausted ({head.detail or 'no detail was kept'})."
    yield f"Its last hold ended because {_ended(head, kind)}."
    yield f"It was handed over {_times(head.deliveries)}. Its records are kept."
    yield f"Nothing happens by itself: resume it (truba resume {head.id}) or delete it (truba delete {head.id})."


def _because(head: Head, kind: Kind, now_ms: int) -> str:
    detail = f": {head.detail}" if head.detail else ""
    left = f" {_ago(head.left_ms, now_ms)}" if head.left_ms and head.cause is not Cause.RESUMED else ""
    return f"{_ended(head, kind).capitalize()}{left}{detail}."


def _ended(head: Head, kind: Kind) -> str:
    return ENDED[head.cause].format(
        idle_timeout=span(kind.idle_timeout_s * 1000), handler_timeout=span(kind.handler_timeout_s * 1000)
    )


def _attempt(head: Head, kind: Kind) -> str:
    return f"attempt {head.attempts} of {kind.max_attempts}" if kind.max_attempts else f"attempt {head.attempts}"


def _attempts(count: int) -> str:
    return "1 attempt" if count == 1 else f"{count} attempts"


def _times(count: int) -> str:
    return {0: "never", 1: "once", 2: "twice"}.get(count, f"{count} times")


def _when(at_ms: float, now_ms: int) -> str:
    return f"in {span(at_ms - now_ms)} ({_clock(at_ms)})" if at_ms > now_ms else "at once"


def _ago(at_ms: float, now_ms: int) -> str:
    return f"{span(now_ms - at_ms)} ago ({_clock(at_ms)})"


def _clock(at_ms: float) -> str:
    try:
        return datetime.fromtimestamp(at_ms / 1000, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
    except (ValueError, OverflowError, OSError):  # beyond the year 9999
        return f"{at_ms / 1000:.0f} s since 1970"


def span(time_ms: float) -> str:
    """A length of time for people, in the largest unit of which it has two."""
    time_s = max(0.0, time_ms / 1000)
    for unit, unit_s in (("days", 86_400), ("h", 3_600), ("min", 60)):
        if time_s >= 2 * unit_s:
            return f"{time_s / unit_s:.0f} {unit}"
    return f"{time_s:.0f} s" if time_s >= 10 or time_s == int(time_s) else f"{time_s:.1f} s"
