"""From the lines of all journals to the calls of each session. Pure.

A session is known by its label from before it exists, by its id once its opener was told. What carries neither, or
both and they do not fit, is a finding of its own: no order of calls could explain it.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from math import inf
from typing import NamedTuple

from truba.torture.checker import Call
from truba.torture.history import SPOILED, Asked, Delivered, Found, Held, Line, Listed, Told, Verb

ENDS = ("delete", "store", "fail")


class Exchange(NamedTuple):
    """A question with its answer."""

    who: str
    asked: Asked
    told: Told | None


class Session(NamedTuple):
    label: str
    id: str  # empty: nobody was ever told
    kind: int  # -1: nobody opened it
    calls: tuple[Call, ...]  # in order of their beginning


class Gathered(NamedTuple):
    sessions: list[Session]
    odd: list[tuple[str, str]]
    """Label or id, and what cannot be, whatever the order."""


def owner_of(who: str) -> str:
    """The client behind one of its lives: `c0` of `c0-2`. Labels of its sessions begin with it."""
    return who.partition("-")[0]


def gather(journals: Mapping[str, Sequence[Line]]) -> Gathered:
    """`journals`: by whose they are."""
    return _Gatherer(journals).gather()


def exchanges(who: str, lines: Sequence[Line]) -> Iterator[Exchange]:
    """The calls of one process, in the order in which they were made."""
    told = {line.n: line for line in lines if isinstance(line, Told)}
    for line in lines:
        if isinstance(line, Asked):
            yield Exchange(who, line, told.get(line.n))


class _Gatherer:
    def __init__(self, journals: Mapping[str, Sequence[Line]]) -> None:
        self._exchanges = [one for who, lines in journals.items() for one in exchanges(who, lines)]
        pairs = [(who, line) for who, lines in journals.items() for line in lines]
        self._deliveries = [(who, line) for who, line in pairs if isinstance(line, Delivered)]
        self._listings = [(who, line) for who, line in pairs if isinstance(line, Listed)]
        self._odd: list[tuple[str, str]] = []
        self._calls: dict[str, list[Call]] = defaultdict(list)  # by label
        self._ids: dict[str, str] = {}  # label -> id
        self._labels: dict[str, str] = {}  # id -> label

    def gather(self) -> Gathered:
        self._name()
        opened = {one.asked.label: one for one in self._exchanges if one.asked.verb == "open"}
        nameless = {
            label for label, one in opened.items() if label not in self._ids and not one.asked.records
        }  # whether these ever existed, nothing can tell
        for who, asked, told in self._exchanges:
            match asked.verb:
                case "resume":
                    self._resume(who, asked, told)
                case "pause" | "continue":
                    pass  # of no session: truba.torture.steering
                case verb:
                    self._call(who, verb, asked, told)
        kinds = {label: one.asked.kind for label, one in opened.items()}
        epochs: set[tuple[str, int]] = set()
        for who, line in self._deliveries:
            label = self._label(line.id, line.label)
            if (line.id, line.epoch) in epochs:
                self._odd.append((label or line.id, f"epoch {line.epoch} was handed over twice"))
            epochs.add((line.id, line.epoch))
            if label:
                call = Call(who, "deliver", -inf, line.at_s, "ok", line.epoch, line.records, cause=line.cause)
                self._calls[label].append(call)
            elif not nameless:
                self._odd.append((line.id, "it was handed over, and nobody opened it"))
        for who, listed in self._listings:
            for session_id in listed.ids:
                if session_id not in self._labels and not nameless:
                    self._odd.append((session_id, "the pipe lists it, and nobody opened it"))
            here = {self._labels.get(session_id) for session_id in listed.ids}
            for label in opened.keys() - here - nameless:
                self._calls[label].append(Call(who, "read", listed.begin_s, listed.at_s, phase="gone"))
        for label, calls in self._calls.items():
            if label not in opened:
                self._odd.append((label, "its records are there, and nobody opened it"))
            spoiled = {name for call in calls for name in call.records if name.startswith(SPOILED)}
            self._odd += [(label, f"a record that nobody wrote: {name}") for name in sorted(spoiled)]
        sessions = [
            Session(label, self._ids.get(label, ""), kinds.get(label, -1), tuple(sorted(calls, key=_when)))
            for label, calls in sorted(self._calls.items())
        ]
        return Gathered(sessions, self._odd)

    def _name(self) -> None:
        for _, asked, told in self._exchanges:
            if told is None:
                continue
            if asked.verb == "open" and told.id:
                self._known(asked.label, told.id)
            if told.found is not None and told.found.label:
                self._known(told.found.label, asked.id)
            for held in told.held:
                self._known(held.label, held.id)
        for _, line in self._deliveries:
            if line.label:
                self._known(line.label, line.id)

    def _known(self, label: str, session_id: str) -> None:
        if self._ids.setdefault(label, session_id) != session_id:
            self._odd.append((label, f"it is there twice, as {self._ids[label]} and as {session_id}"))
        if self._labels.setdefault(session_id, label) != label:
            self._odd.append((session_id, f"it has records of two, {self._labels[session_id]} and {label}"))

    def _label(self, session_id: str, label: str) -> str:
        return label or self._labels.get(session_id, "")

    def _call(self, who: str, verb: Verb, asked: Asked, told: Told | None) -> None:
        label = self._label(asked.id, asked.label)
        if not label:  # a read of a session without records whose opener died; or a write to one
            return
        found = told.found if told is not None and told.found is not None else Found("gone")
        is_read = verb == "read"
        self._calls[label].append(
            Call(
                who=who,
                verb=verb,
                begin_s=asked.at_s,
                end_s=inf if told is None or told.outcome == "unknown" else told.at_s,
                outcome="unknown" if told is None else told.outcome,
                epoch=found.epoch if is_read else asked.epoch,
                records=found.records if is_read else asked.records,
                delay_s=asked.delay_s,
                error="" if told is None else told.error,
                phase=found.phase if is_read else "",
            )
        )

    def _resume(self, who: str, asked: Asked, told: Told | None) -> None:
        """One call on every session of this client that an earlier life may have left held."""
        known = told is not None and told.outcome == "ok"
        if told is not None and told.outcome == "refused":
            return
        end_s = told.at_s if told is not None and known else inf
        held: dict[str, Held] = {one.label: one for one in told.held} if told is not None else {}
        left: set[str] = set()
        for one in self._exchanges:
            if owner_of(one.who) != owner_of(who) or one.who == who:
                continue
            if one.asked.verb == "open" and one.asked.at_s < end_s:
                left.add(one.asked.label)
        for one in self._exchanges:
            ended = one.told is not None and one.told.outcome == "ok" and one.told.at_s < asked.at_s
            if ended and one.asked.verb in ENDS and owner_of(one.who) == owner_of(who):
                left.discard(one.asked.label)
        for label in left | held.keys():
            writes = held[label].writes if label in held else None
            self._calls[label].append(
                Call(who, "resume", asked.at_s, end_s, "ok" if known else "unknown", writes=writes)
            )


def _when(call: Call) -> float:
    return call.end_s if call.verb == "deliver" else call.begin_s
