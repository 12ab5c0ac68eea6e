"""Is there an order in which one session's calls can have taken effect, such that every answer was right? Pure.

A search after Wing and Gong (1993) with a memory (Lowe 2017). A call that was answered took effect at one moment
between its question and its answer; one whose outcome is unknown at any later moment, or never; one that was refused
had none. Calls of one owner take effect in the order in which they were made. A session has few calls, so the search
is short.

The model below is the contract written down a second time, and shares no code with the pipe:

    unborn --open--> held by its client, epoch 0 --store, fail, lost--> stored --handed over, epoch + 1--> held --...
                     held --delete--> gone; what is lost by its client without a record is gone, too
    stored --handed over too often--> parked; an operator's release makes either of them due at once, a remove gone

What the pipe does by itself (an owner is lost, a session is handed over to a handler that then died) leaves no line in
any journal: it may have happened at any time that the contract allows, and `silently` tries it. What it allows knows
time only from below: a session cannot have been lost before its owner's last call that took effect.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import inf, nan
from typing import Literal, NamedTuple

Verb = Literal[
    "open", "append", "replace", "delete", "store", "fail", "touch", "read", "resume", "deliver", "release", "remove"
]
Outcome = Literal["ok", "refused", "unknown"]

WRITES = frozenset({"open", "append", "replace", "delete", "store", "fail"})
OPERATORS = frozenset({"release", "remove"})
"""Calls of people who hold nothing, on a session at whatever epoch."""

NOT_YOURS = frozenset({"FENCED", "NOSESSION", "CLOSED"})
"""Refusals that say: this owner does not hold the session (any more)."""

STATES_MAX = 200_000
STATES_TOLD_MAX = 20_000


class Call(NamedTuple):
    """One call on one session, or one delivery of it, which is the pipe's call on a handler."""

    who: str  # the process, one life of it: `c0-2` is the second life of client c0
    verb: Verb
    begin_s: float  # -inf for a delivery: the pipe decided on it at any time before it arrived
    end_s: float  # inf when the outcome is unknown
    outcome: Outcome = "ok"
    epoch: int = 0  # under which `who` acts; of a read: found; of a delivery: handed over
    records: tuple[str, ...] = ()  # given, read or delivered
    delay_s: float = 0.0  # of a store
    error: str = ""  # of a refusal
    phase: str = ""  # of a read
    cause: str = ""  # of a delivery
    writes: int | None = None  # of a resume: appends and replaces so far; None: the session is not held


@dataclass(frozen=True, slots=True)
class Rules:
    """What the configuration adds to the contract."""

    recovery_delay_s: float = 0.0
    attempts_max: int = 0
    """Hand-overs before it is parked; 0: never."""
    slack_s: float = 0.005
    """How far the pipe's clock may have run away from the one that journals use, and the rounding of its times."""


class State(NamedTuple):
    """What the session is after the calls ordered so far."""

    phase: Literal["unborn", "held", "stored", "parked", "gone"] = "unborn"
    epoch: int = 0
    holder: str = ""  # who; empty: a process that never wrote down that it holds the session, or nobody yet
    records: tuple[str, ...] = ()
    writes: int = 0  # appends and replaces under this holder
    cause: str = ""  # why it is unfinished, if somebody said so: stored, resumed
    released: int = 0  # epoch at the operator's last release: hand-overs count from there
    ready_s: float = -inf  # not handed over before
    now_s: float = -inf  # all so far has happened by then at the earliest


class Unexplained(NamedTuple):
    """No order explains the calls."""

    why: str
    calls: tuple[Call, ...]  # the first that cannot be explained in the order that explains the most
    state: State  # before them
    explained: int
    """How many calls that order explains."""


# -- the contract ------------------------------------------------------------------------------------------------


def lost(state: State, rules: Rules) -> State:
    """Its owner's hold has ended, and the pipe decides what comes next."""
    if state.epoch == 0:
        if not state.records:
            return state._replace(phase="gone")
        return state._replace(phase="stored", cause="", ready_s=state.now_s + rules.recovery_delay_s)
    return state._replace(phase="stored", cause="", ready_s=state.now_s)


def silently(state: State, epoch_max: int, rules: Rules) -> Iterator[State]:
    """The state, and all that it may become by itself: lost, handed over to somebody who never said so, lost ..."""
    while True:
        yield state
        if state.phase == "stored" and rules.attempts_max and state.epoch - state.released >= rules.attempts_max:
            yield state._replace(phase="parked")
        if state.phase == "held":
            state = lost(state, rules)
        elif state.phase == "stored" and state.epoch < epoch_max:
            now_s = max(state.now_s, state.ready_s - rules.slack_s)
            state = State("held", state.epoch + 1, "", state.records, released=state.released, now_s=now_s)
        else:
            return


def holds(state: State, call: Call) -> bool:
    """May whoever calls write?"""
    return state.phase == "held" and state.epoch == call.epoch and state.holder == call.who


def effect(state: State, call: Call, rules: Rules) -> State | None:
    """The state after the call took effect as answered; None: it cannot have."""
    if call.begin_s > state.now_s:
        state = state._replace(now_s=call.begin_s)
    if call.outcome == "refused":
        return None if holds(state, call) else state
    match call.verb:
        case "open":
            if state.phase != "unborn" or state.holder not in ("", call.who):
                return None
            return state._replace(phase="held", holder=call.who, records=call.records)
        case "append" if holds(state, call):
            return state._replace(records=state.records + call.records, writes=state.writes + 1)
        case "replace" if holds(state, call):
            return state._replace(records=call.records, writes=state.writes + 1)
        case "delete" if holds(state, call):
            return state._replace(phase="gone")
        case "store" if holds(state, call):
            return state._replace(phase="stored", cause="stored", ready_s=state.now_s + call.delay_s)
        case "fail" if holds(state, call):
            return lost(state, rules)
        case "touch" if holds(state, call):
            return state
        case "deliver":
            return _delivered(state, call, rules)
        case "read":
            return state if _read(state, call) else None
        case "resume":
            return _resumed(state, call)
        case "release" if state.phase in ("stored", "parked"):
            return state._replace(phase="stored", cause="resumed", ready_s=state.now_s, released=state.epoch)
        case "remove" if state.phase in ("stored", "parked"):
            return state._replace(phase="gone")
    return None


def _delivered(state: State, call: Call, rules: Rules) -> State | None:
    if state.phase != "stored" or state.epoch + 1 != call.epoch or state.records != call.records:
        return None
    said = call.cause if call.cause in ("stored", "resumed") else ""
    if state.cause != said:
        return None
    now_s = max(state.now_s, state.ready_s - rules.slack_s)
    return State("held", call.epoch, call.who, state.records, released=state.released, now_s=now_s)


def _read(state: State, call: Call) -> bool:
    match call.phase:
        case "gone":
            return state.phase in ("gone", "unborn")
        case "active" | "repeating":
            right = state.phase == "held" and (state.epoch == 0) == (call.phase == "active")
        case phase:
            right = state.phase == phase
    return right and state.epoch == call.epoch and state.records == call.records


def _resumed(state: State, call: Call) -> State | None:
    """A later life of the client took over all that it held: from here on only this life can write."""
    its_own = state.phase == "held" and state.epoch == 0
    if call.outcome == "ok" and call.writes != (state.writes if its_own else None):
        return None
    return state._replace(holder=call.who) if its_own or state.phase == "unborn" else state


# -- the search --------------------------------------------------------------------------------------------------


def explain(calls: Sequence[Call], rules: Rules) -> Unexplained | None:
    """None: there is an order that explains every answer. Calls of one owner stand in the order made."""
    calls = [call for call in calls if _says_something(call, calls)]
    unexplained = _search(calls, rules, STATES_MAX, by_epoch=True)
    if unexplained is None or unexplained.calls == ():
        return unexplained
    # Nothing explains it. How far one gets when epochs need not be in order tells more of why.
    return _search(calls, rules, STATES_TOLD_MAX, by_epoch=False) or unexplained


def _search(calls: Sequence[Call], rules: Rules, states_max: int, *, by_epoch: bool) -> Unexplained | None:
    must = sum(1 << i for i, call in enumerate(calls) if call.outcome != "unknown")
    before, after = _order(calls, by_epoch=by_epoch)
    start = (0, State())
    seen = {start}
    stack = [start]
    best = (0, -inf)  # how many calls an order explains, and how long it explains all that had ended
    best_done, best_state = start
    while stack:
        done, state = stack.pop()
        if done & must == must:
            return None
        far = (done & must).bit_count(), _first_end_s(calls, must & ~done)
        if far > best:
            best, best_done, best_state = far, done, state
        for i, following in _next(calls, done, must, before, after, state, rules):
            node = (done | 1 << i, following)
            if node not in seen:
                seen.add(node)
                stack.append(node)
        if len(seen) > states_max:
            if by_epoch:
                return Unexplained(f"no order found among the first {states_max}", (), best_state, best[0])
            break
    left = must & ~best_done
    first_end_s = _first_end_s(calls, left)
    stuck = tuple(call for i, call in enumerate(calls) if left >> i & 1 and call.begin_s <= first_end_s)
    return Unexplained("no order of its calls explains all answers", stuck, best_state, best[0])


def _first_end_s(calls: Sequence[Call], left: int) -> float:
    """When the first of those left was answered: everything that comes next began before."""
    return min(call.end_s for i, call in enumerate(calls) if left >> i & 1)


def _next(
    calls: Sequence[Call],
    done: int,
    must: int,
    before: Sequence[int],
    after: Sequence[int],
    state: State,
    rules: Rules,
) -> Iterator[tuple[int, State]]:
    """The calls that may have taken effect next, with the states that they lead to."""
    first_end_s = _first_end_s(calls, must & ~done)
    epoch_max = max(call.epoch for call in calls)
    for i, call in enumerate(calls):
        if done >> i & 1 or call.begin_s > first_end_s or before[i] & ~done or after[i] & done:
            continue
        epoch = epoch_max if call.verb in OPERATORS else call.epoch - (call.verb == "deliver")
        for present in silently(state, epoch, rules):
            following = effect(present, call, rules)
            if following is not None and following.now_s <= call.end_s:
                yield i, following


def _order(calls: Sequence[Call], *, by_epoch: bool) -> tuple[list[int], list[int]]:
    """For each call, as bits: those that come before it, and (of an unknown outcome) those that it cannot follow.

    One owner's calls are ordered as it made them, and epochs only rise. The latter says nothing that the model does not
    say; it spares the search what would lead nowhere.
    """
    before, after = [0] * len(calls), [0] * len(calls)
    for j, later in enumerate(calls):
        for i, earlier in enumerate(calls):
            own = i < j and earlier.who == later.who and _takes_effect(earlier) and _takes_effect(later)
            if own or (by_epoch and _at(earlier) < _at(later)):
                if earlier.outcome == "ok":
                    before[j] |= 1 << i
                elif own:
                    after[i] |= 1 << j
    return before, after


def _takes_effect(call: Call) -> bool:
    return call.verb in WRITES and call.outcome != "refused"


def _at(call: Call) -> float:
    """The epoch at which it took effect, which a delivery begins; nan, which nothing is less than: any."""
    if call.verb == "deliver":
        return call.epoch - 0.5
    said = call.verb in WRITES or call.verb == "touch" or (call.verb == "read" and call.phase != "gone")
    return call.epoch if said and call.outcome == "ok" else nan


def _says_something(call: Call, calls: Sequence[Call]) -> bool:
    """Most refusals have no effect and say nothing of the session. `not yours` does, unless the owner itself has given
    up on the session after an unknown outcome. So does everything that is not refused, but for unknown reads."""
    if call.outcome == "refused":
        return (
            call.error in NOT_YOURS
            and call.verb != "open"
            and call.verb not in OPERATORS
            and not any(one.who == call.who and one.outcome == "unknown" for one in calls)
        )
    return not (call.outcome == "unknown" and call.verb in ("read", "touch"))
