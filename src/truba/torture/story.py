"""A finding as people need it: what was asked of the session and answered, in order of time, and where it breaks. Pure.

Deliveries stand where they arrived; the pipe decided on them at some time before.
"""

from __future__ import annotations

from collections.abc import Iterator
from math import isfinite

from truba.torture.checker import Call, State, Unexplained
from truba.torture.sessions import Session


def story(session: Session, unexplained: Unexplained) -> Iterator[str]:
    """Lines."""
    calls = sorted(session.calls, key=_shown_at_s)
    start_s = min(_shown_at_s(call) for call in calls)
    known = f"id {session.id or 'never told'}, kind {session.kind}"
    yield f"session {session.label}, {known}; seconds since its first call:"
    for call in calls:
        mark = ">" if call in unexplained.calls else " "
        begin = f"{call.begin_s - start_s:9.4f}" if isfinite(call.begin_s) else " " * 9
        end = f"{call.end_s - start_s:9.4f}" if isfinite(call.end_s) else "     ... "
        yield f"{mark} {begin} {end}  {call.who:6} {_words(call)}"
    yield f"The order that explains most explains {unexplained.explained} of them, and then has it"
    yield f"  {_what(unexplained.state, start_s)};"
    yield "  no call marked with > can come next, whatever the pipe did by itself meanwhile."


def _shown_at_s(call: Call) -> float:
    return call.begin_s if isfinite(call.begin_s) else call.end_s


def _words(call: Call) -> str:
    records = ", ".join(call.records) or "no record"
    outcome = f"refused, {call.error}" if call.outcome == "refused" else call.outcome
    match call.verb:
        case "deliver":
            return f"was handed it at epoch {call.epoch}, cause {call.cause}, with {records}"
        case "read":
            found = call.phase if call.phase == "gone" else f"{call.phase}, epoch {call.epoch}, with {records}"
            return f"read: {outcome if call.outcome != 'ok' else found}"
        case "resume":
            held = "does not hold it" if call.writes is None else f"holds it after {call.writes} writes"
            return f"came back: {held if call.outcome == 'ok' else outcome}"
        case "open" | "append" | "replace":
            given = f" {records}"
        case "store":
            given = f" for {call.delay_s:g} s"
        case _:
            given = ""
    epoch = f" (epoch {call.epoch})" if call.epoch else ""
    return f"{call.verb}{given}{epoch}: {outcome}"


def _what(state: State, start_s: float) -> str:
    match state.phase:
        case "unborn" | "gone":
            return f"not there ({state.phase})"
        case "held":
            where = f"held by {state.holder or 'nobody who said so'}, epoch {state.epoch}"
        case _:
            ready = f", not to be handed over before {state.ready_s - start_s:.4f}" if isfinite(state.ready_s) else ""
            where = f"stored, epoch {state.epoch}{ready}"
    return f"{where}, with {', '.join(state.records) or 'no record'}"
