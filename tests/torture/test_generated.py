"""The checker against lives of a session made up by Hypothesis: each passes as it was, none with one thing changed."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from math import inf

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from truba.torture.checker import Call, Outcome, Rules, Verb, explain

RULES = Rules(recovery_delay_s=0.5, slack_s=0.0)
STEPS_MAX = 14
LATE_S = 3.0
"""A call may begin so long before it takes effect, and be answered so long after."""


@dataclass
class Life:
    """A session played by itself, one step after the other; the calls that its owners and onlookers make."""

    draw: st.DrawFn
    calls: list[Call] = field(default_factory=list)
    now_s: float = 0.0
    phase: str = "unborn"
    epoch: int = 0
    holder: str = "c0-1"
    records: list[str] = field(default_factory=list)
    writes: int = 0
    cause: str = ""
    ready_s: float = 0.0
    names: int = 0
    free_s: float = 0.0  # when the holder had its last answer
    sure: bool = True  # no outcome that matters is unknown
    stale: list[tuple[str, int]] = field(default_factory=list)  # who held it, at which epoch

    def some(self, most_s: float) -> float:
        return self.draw(st.integers(0, 100)) / 100 * most_s

    def name(self) -> str:
        self.names += 1
        return f"r{self.names}"

    def add(self, who: str, verb: Verb, outcome: Outcome = "ok", *, not_before_s: float = 0.0, **more: object) -> None:
        begin_s = max(not_before_s, self.now_s - self.some(LATE_S))
        end_s = inf if outcome == "unknown" else self.now_s + self.some(LATE_S)
        self.calls.append(Call(who, verb, -inf if verb == "deliver" else begin_s, end_s, outcome, **more))  # type: ignore[arg-type]

    # -- steps

    def own(self, verb: Verb, outcome: Outcome = "ok", **more: object) -> None:
        """A call of the holder, which waits for one answer before it asks again."""
        self.now_s = max(self.now_s, self.free_s)
        self.add(self.holder, verb, outcome, not_before_s=self.free_s, epoch=self.epoch, **more)
        self.free_s = self.calls[-1].end_s

    def write(self, outcome: Outcome, happens: bool) -> None:
        replaces = self.draw(st.booleans())
        name = self.name()
        self.own("replace" if replaces else "append", outcome, records=(name,))
        if happens:
            self.records = [name] if replaces else [*self.records, name]
            self.writes += 1

    def give_up(self) -> None:
        """An outcome is unknown, or the hold is over: the holder does nothing more."""
        self.stale.append((self.holder, self.epoch))
        self.holder = ""

    def lose(self) -> None:
        if self.holder:
            self.give_up()
        if self.epoch == 0 and not self.records:
            self.phase = "gone"
            return
        self.phase, self.cause = "stored", "lost"
        self.ready_s = self.now_s + (RULES.recovery_delay_s if self.epoch == 0 else 0.0)

    def end(self, verb: Verb, outcome: Outcome, happens: bool) -> None:
        delay_s = float(self.draw(st.integers(1, 5)))
        self.own(verb, outcome, delay_s=delay_s if verb == "store" else 0.0)
        self.give_up()
        match verb:
            case _ if not happens:
                pass
            case "delete":
                self.phase = "gone"
            case "store":
                self.phase, self.cause, self.ready_s = "stored", "stored", self.now_s + delay_s
            case _:
                self.lose()

    def hand_over(self, told: bool) -> None:
        self.now_s = max(self.now_s, self.ready_s)
        self.phase, self.epoch, self.writes = "held", self.epoch + 1, 0
        if told:
            self.holder = f"h7-{self.epoch}"
            self.add(self.holder, "deliver", epoch=self.epoch, records=tuple(self.records), cause=self.cause)
            self.free_s = self.calls[-1].end_s

    def read(self) -> None:
        shown = {"held": "repeating" if self.epoch else "active", "unborn": "gone"}.get(self.phase, self.phase)
        gone = shown == "gone"
        records = () if gone else tuple(self.records)
        self.add("a0-1", "read", phase=shown, epoch=0 if gone else self.epoch, records=records)

    def trespass(self) -> None:
        who, epoch = self.draw(st.sampled_from(self.stale))
        # Not before everything of its own is over: one owner's calls are ordered.
        after_s = max((call.end_s for call in self.calls if call.who == who and call.end_s < inf), default=0.0)
        self.now_s = max(self.now_s, after_s)
        self.add(who, "append", "refused", not_before_s=after_s, epoch=epoch, records=(self.name(),), error="FENCED")

    def come_back(self) -> None:
        """The next life of the client; what the one before has under way will not happen any more."""
        before, self.holder = self.holder, f"c0-{int(self.holder[3:]) + 1}"
        self.stale.append((before, 0))
        self.free_s = max(self.free_s, self.now_s)
        self.now_s = self.free_s
        self.add(self.holder, "resume", not_before_s=self.free_s, writes=self.writes)
        self.free_s = self.calls[-1].end_s

    def step(self) -> None:
        self.now_s += self.some(2.0)
        steps = ["read"]
        if self.stale:
            steps.append("trespass")
        if self.phase == "held":
            steps.append("lose")
            if self.holder:
                steps += ["write", "write", "write", "write unknown", "delete", "store", "fail", "end unknown"]
                if self.epoch == 0:
                    steps.append("come back")
        if self.phase == "stored":
            steps += ["hand over", "hand over", "hand over to nobody"]
        match self.draw(st.sampled_from(steps)):
            case "write":
                self.write("ok", happens=True)
            case "write unknown":
                self.write("unknown", happens=self.draw(st.booleans()))
                self.sure = False
                self.give_up()
            case "end unknown":
                verb: Verb = self.draw(st.sampled_from(["delete", "store", "fail"]))
                self.end(verb, "unknown", happens=self.draw(st.booleans()))
                self.sure = False
            case ("delete" | "store" | "fail") as verb:
                self.end(verb, "ok", happens=True)
            case "come back":
                self.come_back()
            case "lose":
                self.lose()
            case "hand over":
                self.hand_over(told=True)
            case "hand over to nobody":
                self.hand_over(told=False)
            case "trespass":
                self.trespass()
            case _:
                self.read()


@st.composite
def lives(draw: st.DrawFn) -> Life:
    life = Life(draw)
    life.records = [life.name() for _ in range(draw(st.integers(0, 2)))]
    life.now_s = LATE_S
    life.phase = "held"
    life.own("open", records=tuple(life.records))
    for _ in range(draw(st.integers(2, STEPS_MAX))):
        life.step()
    return life


def spoiled(life: Life) -> Iterator[tuple[str, list[Call]]]:
    """The same life with one thing that cannot be."""
    calls = life.calls
    acknowledged = {name for call in calls if call.outcome == "ok" and call.verb != "deliver" for name in call.records}

    def changed(at: int, call: Call) -> list[Call]:
        return [*calls[:at], call, *calls[at + 1 :]]

    for at, call in enumerate(calls):
        seen = call.verb == "deliver" or (call.verb == "read" and call.phase != "gone")
        if seen:
            yield "a record that nobody wrote", changed(at, call._replace(records=(*call.records, "x")))
            if call.records:
                yield "a record twice", changed(at, call._replace(records=(*call.records, call.records[-1])))
        if call.verb == "deliver":
            if call.records and call.records[-1] in acknowledged:
                yield "a record lost", changed(at, call._replace(records=call.records[:-1]))
            stores = [one for one in calls[:at] if one.verb == "store"]
            if call.cause == "stored":
                early_s = stores[-1].begin_s + stores[-1].delay_s - 0.01
                yield "early", changed(at, call._replace(end_s=early_s))
            if life.sure:
                other = "lost" if call.cause == "stored" else "stored"
                yield "with another cause", changed(at, call._replace(cause=other))
        if call.outcome == "refused" and call.epoch < max(
            (one.epoch for one in calls[:at] if one.verb == "deliver" and one.end_s < call.begin_s), default=0
        ):
            yield "stale", changed(at, call._replace(outcome="ok"))
        if call.verb == "delete" and call.outcome == "ok":
            after_s = max(one.end_s for one in calls if one.end_s < inf) + 1.0
            again = Call("h7-99", "deliver", -inf, after_s, epoch=call.epoch + 1, records=("r1",), cause="lost")
            yield "handed over after its delete", [*calls, again]
    if life.phase in ("held", "stored") and life.sure and life.records:
        after_s = max(one.end_s for one in calls if one.end_s < inf) + 1.0
        yield "gone", [*calls, Call("a0-9", "read", after_s, after_s + 1, phase="gone")]


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(lives())
def test_a_life_passes_and_does_not_when_one_thing_is_changed(life: Life) -> None:
    calls = sorted(life.calls, key=lambda call: call.begin_s if call.begin_s > -inf else call.end_s)
    assert explain(calls, RULES) is None
    for what, wrong in spoiled(life):
        found = explain(sorted(wrong, key=lambda call: call.begin_s if call.begin_s > -inf else call.end_s), RULES)
        assert found is not None, what
