"""What must hold of every run: a checker that hears of each call, answer and delivery, and of nothing inside the pipe.

Pure: times are arguments. It keeps, for each session, the *holds* that it has heard of: hold 0 is the client's, hold e
that of the handler which was handed epoch e. A hold has the records that it began with and the calls that were made
under it, in the order sent. From these follows what the next hold must begin with: the calls that were answered OK, in
order, and of those without an answer each wholly or not at all. A record is sent once in a run, so the records that a
handler gets tell which calls without an answer were applied.

G1 acknowledged calls are in what is handed over next; no session vanishes    G2 nothing else is, nothing half
G3 no call of an ended hold is answered OK, or seen in what comes after       G4 nothing early (all of it: `finish`)
G5 nothing after an acknowledged Delete      pause: nothing of a kind between an acknowledged Pause and a Continue
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from math import inf

from truba.kinds import Kind

TICK_S = 0.001
"""The pipe's clocks count whole milliseconds."""


class Violation(AssertionError):
    """A guarantee is broken."""


WRITES = ("append", "replace")
ENDS = ("delete", "store", "fail")
NO_ANSWER = ("", "unknown")  # not yet, or never


@dataclass(slots=True, eq=False)
class Call:
    """One operation, from the moment it was sent."""

    who: str
    link: str  # the connection: calls on one are applied in order, up to some point
    session: str  # the id; of a New, once it is known
    epoch: int
    verb: str  # new append replace delete store fail touch
    sent_s: float
    records: tuple[bytes, ...] = ()
    seconds: float = 0.0  # of a Store
    tag: int = -1
    kind: int = -1
    grace_s: float = 0.0
    stale: bool = False  # sent by somebody who knows that the session is not his
    never: bool = False  # must be refused, whatever the state
    refusable: bool = False  # may be refused for want of space
    again: Call | None = None  # a New that was sent just before, word for word
    outcome: str = ""  # "": no answer yet; ok; the error's word; unknown
    answered_s: float = inf
    applied: bool | None = None  # without an answer: what was found out since

    @property
    def may_have_happened(self) -> bool:
        return self.outcome == "ok" or (self.outcome in NO_ANSWER and self.applied is not False)

    def __str__(self) -> str:
        about = " ".join(record.partition(b".")[0].decode() for record in self.records)
        return f"{self.verb} {self.session or self.kind} [{about}] of {self.who} ({self.outcome or 'no answer yet'})"


@dataclass(slots=True, eq=False)
class Steering:
    """An operator's Pause or Continue of a kind."""

    kind: int
    verb: str
    sent_s: float
    outcome: str = ""  # as of a Call
    answered_s: float = inf

    @property
    def may_have_happened(self) -> bool:
        return self.outcome == "ok" or self.outcome in NO_ANSWER


@dataclass(slots=True, eq=False)
class Hold:
    epoch: int
    records: list[bytes]
    since_s: float
    alive_s: float  # when the last request was sent of which an answer shows that it was within the hold
    grace_s: float = 0.0
    attempt: int = 0
    calls: list[Call] = field(default_factory=list)


@dataclass(slots=True, eq=False)
class Session:
    id: str
    kind: int
    holds: dict[int, Hold] = field(default_factory=dict)
    removed: list[Call] = field(default_factory=list)  # an operator's
    resumed_s: float = inf  # an operator's first Resume

    def before(self, epoch: int) -> Hold | None:
        return self.holds.get(max((e for e in self.holds if e < epoch), default=-1))

    def after(self, epoch: int) -> Hold | None:
        return self.holds.get(min((e for e in self.holds if e > epoch), default=-1))


class WallClock:
    """What the wall clock showed when: it goes on with the steady one, but for its jumps."""

    def __init__(self, offset_ms: float) -> None:
        self._spans = [(-inf, offset_ms)]  # (steady time from which on, wall minus steady)

    def jumped(self, at_s: float, by_ms: float) -> None:
        self._spans.append((at_s, self._spans[-1][1] + by_ms))

    def _within(self, start_s: float, end_s: float) -> Iterable[float]:
        ends = [*(since_s for since_s, _ in self._spans[1:]), inf]
        for (since_s, offset_ms), until_s in zip(self._spans, ends, strict=True):
            first, last = max(since_s, start_s), min(until_s, end_s)
            if first <= last:
                yield first * 1000 + offset_ms
                yield last * 1000 + offset_ms

    def least(self, start_s: float, end_s: float) -> float:
        return min(self._within(start_s, end_s), default=inf)

    def most(self, start_s: float, end_s: float) -> float:
        return max(self._within(start_s, end_s), default=-inf)


class Checker:
    """Hears the history, raises Violation."""

    def __init__(self, kinds: Iterable[Kind], wall: WallClock, travel_s: float = 0.0) -> None:
        """`travel_s`: the longest that a hand-over is on its way, from the pipe's decision to the handler's ears."""
        self.kinds: Mapping[int, Kind] = {kind.number: kind for kind in kinds}
        self._travel_s = travel_s
        self.wall = wall
        self.sessions: dict[str, Session] = {}
        self._unnamed: list[Call] = []  # New calls whose id nobody knows yet
        self._resumed: dict[str, float] = {}  # an operator finds sessions, too, of which nobody else has heard
        self._steered: list[Steering] = []
        self.deliveries = 0
        self.acknowledged = 0

    # -- calls --------------------------------------------------------------------------------------------------

    def sent(self, call: Call) -> None:
        if call.again is not None:
            return  # it makes nothing of its own
        if call.verb == "new":
            self._unnamed.append(call)
        else:
            self._hold(call).calls.append(call)

    def answered(self, call: Call, outcome: str, at_s: float, session: str = "") -> None:
        """`outcome`: ok, or the error's word. `session`: the id that a New got."""
        call.outcome, call.answered_s = outcome, at_s
        if outcome == "ok":
            self.acknowledged += 1
            self._acknowledged(call, session)
        elif call.verb != "new" and (later := self._later(call)) is not None:
            self._compare(self._session(call.session), self._hold(call), later)

    def _acknowledged(self, call: Call, session: str) -> None:
        if call.stale:
            raise Violation(f"G3: {call}: acknowledged, though its owner had lost the session")
        if call.never:
            raise Violation(f"G2: {call}: acknowledged, though it is over the kind's limit")
        if call.again is not None:
            if call.again.session != session:
                raise Violation(f"G2: {call}: answered {session}, and {call.again.session} the first time")
            return
        if call.verb == "new":
            self._named(call, session)
            return
        hold, known = self._hold(call), self._session(call.session)
        for other in hold.calls:
            if other is call:
                break
            if other.verb in ENDS and other.outcome == "ok":
                raise Violation(f"G2: {call}: acknowledged after {other}")
        if call.applied is False:
            raise Violation(f"G1: {call}: acknowledged, though it had been told that it was not applied")
        hold.alive_s = max(hold.alive_s, call.sent_s)
        later = self._later(call)
        if later is not None:
            if call.sent_s > later.since_s:
                raise Violation(f"G3: {call}: sent after epoch {later.epoch} had been handed over, and acknowledged")
            self._compare(known, hold, later)

    def unknown(self, call: Call) -> None:
        """There will be no answer."""
        call.outcome = "unknown"

    def _named(self, call: Call, session: str) -> None:
        """It is known which session a New made."""
        if call in self._unnamed:
            self._unnamed.remove(call)
        call.session, call.applied = session, True
        known = self.sessions.get(session)
        if known is None:
            known = self.sessions[session] = Session(session, call.kind)
            known.resumed_s = self._resumed.get(session, inf)
        if 0 in known.holds:
            if known.holds[0].calls[:1] != [call]:
                raise Violation(f"G2: {call}: two News were answered {session}")
            return
        hold = Hold(0, list(call.records), call.sent_s, call.sent_s, call.grace_s, calls=[call])
        known.holds[0] = hold
        if (later := known.after(0)) is not None:
            self._compare(known, hold, later)

    def resumed(self, session: str, at_s: float) -> None:
        """An operator asks for a Resume."""
        first_s = self._resumed.setdefault(session, at_s)
        if (known := self.sessions.get(session)) is not None:
            known.resumed_s = first_s

    def steered(self, steering: Steering) -> None:
        """An operator asks for a Pause or a Continue."""
        self._steered.append(steering)

    # -- owners that came back ------------------------------------------------------------------------------

    def listed(
        self,
        who: str,
        asked_s: float,
        at_s: float,
        held: Iterable[tuple[str, int, int, int]],
        believed: Iterable[tuple[str, int]],
    ) -> None:
        """OWNER's answer: `(id, kind, tag, operations)` of each. `believed`: `(id, epoch)` not known to be over."""
        there = {}
        for session, kind, tag, operations in held:
            if session not in self.sessions and tag >= 0:
                for call in self._unnamed:
                    if call.who == who and call.tag == tag:
                        self._named(call, session)
                        break
            known = self.sessions.get(session)
            if known is None:
                if tag < 0 and any(call.kind == kind for call in self._unnamed):
                    continue  # a handler's, and neither it nor the client ever heard of the session
                raise Violation(f"G2: {who} is told that it holds {session}, which it never opened")
            there[session] = operations
            if kind != known.kind:
                raise Violation(f"G2: {session} was opened with kind {known.kind} and is listed with kind {kind}")
        for session, epoch in believed:
            known = self._session(session)
            hold = known.holds[epoch]
            if hold.since_s >= asked_s:
                continue  # a late answer, of a pipe that was killed before this hold began
            late = at_s - hold.alive_s >= hold.grace_s
            if epoch and (late or any(call.verb in ENDS and call.outcome in NO_ANSWER for call in hold.calls)):
                continue  # over, perhaps: then it is listed for another hand-over, of which nobody heard
            if session in there:
                self._counted(known, hold, there[session], asked_s)
                hold.alive_s = max(hold.alive_s, asked_s)
            elif (
                not any(call.verb in ENDS and call.may_have_happened for call in hold.calls)
                and at_s - hold.alive_s < hold.grace_s * 0.9
            ):
                raise Violation(
                    f"G1: {session} was taken from {who} within its grace of {hold.grace_s:g} s:"
                    f" {at_s - hold.alive_s:g} s after a call that was acknowledged"
                )

    def _counted(self, known: Session, hold: Hold, operations: int, asked_s: float) -> None:
        """The owner of a hold learns how many of its writes were applied."""
        if (later := known.after(hold.epoch)) is not None and later.since_s < asked_s:
            raise Violation(f"G3: {known.id} is listed as held at epoch {hold.epoch}, epoch {later.epoch} is out")
        for call in hold.calls:
            if call.verb in ENDS and call.outcome == "ok":
                raise Violation(f"G1: {known.id} is still held after {call}")
            if call.verb in ENDS and call.outcome in NO_ANSWER:
                call.applied = False
        sure = sum(call.verb in WRITES and (call.outcome == "ok" or call.applied is True) for call in hold.calls)
        open_ = [
            call
            for call in hold.calls
            if call.verb in WRITES
            and call.outcome in NO_ANSWER
            and call.applied is None
            and not (call.never or call.stale)
        ]
        if not sure <= operations <= sure + len(open_):
            raise Violation(
                f"G1: {known.id} at epoch {hold.epoch} is listed with {operations} operations;"
                f" {sure} were acknowledged, {len(open_)} have no answer"
            )
        applied = operations - sure
        # On one connection the first ones were; of several connections' it is known only when all or none were.
        told = applied in (0, len(open_)) or len({call.link for call in open_}) == 1
        if told and not any(call.refusable for call in open_):
            for number, call in enumerate(open_):
                call.applied = number < applied

    # -- deliveries -------------------------------------------------------------------------------------------

    def frozen(self, seconds: float) -> None:
        """The whole world stood still for so long: what was under way was longer under way."""
        self._travel_s += seconds

    def delivered(
        self,
        session: str,
        epoch: int,
        kind: int,
        attempt: int,
        cause: str,
        records: list[bytes],
        at_s: float,
        grace_s: float = 0.0,
    ) -> None:
        """`grace_s`: of the handler, if it has a token and can come back."""
        self.deliveries += 1
        known = self.sessions.get(session)
        if known is None:
            for call in self._unnamed:
                if call.records and list(call.records) == records[: len(call.records)]:
                    self._named(call, session)
                    break
            else:
                # Opened, then replaced or extended by nobody: the id of such a New was never told.
                raise Violation(f"G2: {session} was handed over, and nobody opened it")
            known = self.sessions[session]
        if kind != known.kind:
            raise Violation(f"G2: {session} was opened with kind {known.kind} and handed over with kind {kind}")
        if epoch in known.holds or epoch < 1:
            raise Violation(f"G3: {session} was handed over twice at epoch {epoch}")
        attempts_max = self.kinds[kind].max_attempts
        if attempts_max and attempt > attempts_max and known.resumed_s > at_s:
            raise Violation(f"G4: {session}: attempt {attempt}, the kind allows {attempts_max}")
        before, after = known.before(epoch), known.after(epoch)
        # A handler that comes back has to show signs of life too, and both times began before it heard of the session.
        grace_s = min(grace_s, self.kinds[kind].handler_timeout_s) - self._travel_s
        hold = known.holds[epoch] = Hold(epoch, records, at_s, at_s, grace_s, attempt)
        if before is not None and known.resumed_s > at_s:
            # The hold before was heard of, so it counts. An epoch that nobody heard of may have reached its handler's
            # machine all the same; the last one before, by its cause, did not.
            least, most = before.attempt + 1, before.attempt + epoch - before.epoch - (cause == "unreachable")
            if not least <= attempt <= most:
                raise Violation(
                    f"G4: {session} at epoch {epoch}, cause {cause}: attempt {attempt}, not {least} to {most}"
                )
        for call in known.removed:
            if call.outcome == "ok" and call.answered_s + self._travel_s < at_s:
                raise Violation(f"G5: {session} was handed over at epoch {epoch} after {call}")
        self._not_paused(known, hold)
        if before is not None:
            self._compare(known, before, hold)
            if known.resumed_s > at_s:
                self._not_early(known, before, hold, cause)
        if after is not None:
            self._compare(known, hold, after)

    def _compare(self, known: Session, hold: Hold, later: Hold) -> None:
        """What `later` began with must follow from `hold` and its calls."""
        seen = set(later.records)
        records = list(hold.records)
        stopped: set[str] = set()  # connections on which a call was not reached
        for call in hold.calls:
            if call.verb == "new":
                continue
            if call.verb in ENDS:
                if call.outcome == "ok" and call.verb == "delete":
                    raise Violation(f"G5: {known.id} was handed over at epoch {later.epoch} after {call}")
                continue
            if call.verb not in WRITES:
                continue
            if call.never or call.stale:
                continue  # must not be in there, and says nothing of those after it
            happened = call.outcome == "ok"
            if call.outcome in NO_ANSWER:
                happened = bool(seen.intersection(call.records))
                if happened and call.applied is False:
                    raise Violation(f"G3: {call}: its owner was told that it was not applied, and then it was")
                if not happened and not call.refusable:
                    # A Replace that came after may hide it, if that Replace was applied: then it is no proof.
                    hidden = any(
                        other.verb == "replace" and other.records[0] in seen
                        for other in hold.calls[hold.calls.index(call) + 1 :]
                    )
                    if not hidden:
                        if call.applied is True:
                            raise Violation(f"G1: {call}: its owner was told that it was applied, and it is gone")
                        stopped.add(call.link)
                elif happened and call.link in stopped:
                    raise Violation(f"G2: {call} was applied, and one sent before it on that connection was not")
            elif happened and call.link in stopped:
                raise Violation(f"G2: {call} was applied, and one sent before it on that connection was not")
            if happened:
                records = [*call.records] if call.verb == "replace" else [*records, *call.records]
        if records != later.records:
            raise Violation(
                f"G1/G2: {known.id} was handed over at epoch {later.epoch} with {_names(later.records)}; by the calls"
                f" at epoch {hold.epoch} it must be {_names(records)}"
            )

    def _not_paused(self, known: Session, hold: Hold) -> None:
        at_s = hold.since_s
        mine = [steering for steering in self._steered if steering.kind == known.kind]
        for pause in mine:
            if pause.verb != "pause" or pause.outcome != "ok" or pause.answered_s + self._travel_s >= at_s:
                continue
            # One without an answer may have come into force at any time since: even a connection that broke is read on.
            if not any(
                other.verb == "continue" and other.may_have_happened and other.answered_s > pause.sent_s
                for other in mine
            ):
                raise Violation(
                    f"pause: {known.id} was handed over at epoch {hold.epoch}, {at_s - pause.answered_s:g} s after"
                    f" kind {known.kind} was paused"
                )

    def _not_early(self, known: Session, hold: Hold, later: Hold, cause: str) -> None:
        kind = self.kinds[known.kind]
        now_s = later.since_s
        ends = [call for call in hold.calls if call.verb in ENDS and call.may_have_happened]
        sure = next((call for call in ends if call.outcome == "ok"), None)
        dues_ms = [self._due_ms(call, kind, hold, now_s) for call in ([sure] if sure is not None else ends)]
        if sure is None:
            delay_ms = 0.0 if hold.epoch else kind.recovery_delay_s * 1000
            dues_ms.append(self.wall.least(hold.alive_s + hold.grace_s - TICK_S, now_s) + delay_ms)
        due_ms, latest_ms = min(dues_ms), self.wall.most(hold.since_s, now_s)
        if latest_ms < due_ms - 1:
            raise Violation(
                f"G4: {known.id} was handed over at epoch {later.epoch}, {due_ms - latest_ms:g} ms early; cause {cause}"
            )
        silent_s = now_s - hold.alive_s
        if (
            cause == "late"
            and hold.epoch == later.epoch - 1
            and silent_s + self._travel_s < kind.handler_timeout_s - TICK_S
        ):
            raise Violation(f"G4: {known.id} was taken from its handler after {silent_s:g} s of silence")

    def _due_ms(self, call: Call, kind: Kind, hold: Hold, now_s: float) -> float:
        least_ms = self.wall.least(call.sent_s, min(call.answered_s, now_s))
        if call.verb == "store":
            return least_ms + call.seconds * 1000
        return least_ms + (0 if hold.epoch else kind.recovery_delay_s * 1000)  # a backoff may be 0

    def seen(self, known: Session, asked_s: float) -> None:
        """An operator, who asked then, sees the session."""
        for call in [*known.removed, *known.holds[max(known.holds)].calls]:
            if call.verb in ("delete", "remove") and call.outcome == "ok" and call.answered_s < asked_s:
                raise Violation(f"G5: {known.id} is listed after {call}")

    # -- the end ----------------------------------------------------------------------------------------------

    def finish(self) -> None:
        """Nothing is left in the pipe: each session must have been finished by somebody."""
        for known in self.sessions.values():
            last = known.holds[max(known.holds)]
            if any(call.verb == "delete" and call.may_have_happened for call in last.calls):
                continue
            if any(call.may_have_happened for call in known.removed):
                continue
            kept = list(last.records)
            for call in last.calls:
                if call.verb in WRITES and call.outcome == "ok":
                    kept = [*call.records] if call.verb == "replace" else [*kept, *call.records]
            if last.epoch or kept:
                raise Violation(f"G1: {known.id} with {_names(kept)} at epoch {last.epoch} is gone; nobody finished it")

    # -- look ---------------------------------------------------------------------------------------------------

    def _session(self, session: str) -> Session:
        return self.sessions[session]

    def _hold(self, call: Call) -> Hold:
        return self.sessions[call.session].holds[call.epoch]

    def _later(self, call: Call) -> Hold | None:
        return self.sessions[call.session].after(call.epoch)


def _names(records: list[bytes]) -> str:
    return "[" + " ".join(record.partition(b".")[0].decode("ascii", "replace") for record in records) + "]"
