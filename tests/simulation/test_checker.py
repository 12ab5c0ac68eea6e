"""The checker itself, with histories made by hand: it takes what is right, and names what is broken."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from tests.simulation.checker import Call, Checker, Steering, Violation, WallClock
from truba.kinds import Kind

KIND = Kind(1, "one", "", recovery_delay_s=2.0, handler_timeout_s=5.0, max_attempts=3)
ID = "1-2"


class History:
    """Calls of one client and its handlers, at times that go on by themselves."""

    def __init__(self, grace_s: float = 0.0) -> None:
        self.wall = WallClock(0.0)
        self.checker = Checker([KIND], self.wall)
        self.now_s = 10.0
        self.grace_s = grace_s
        self.new = self.send("new", b"a", epoch=0)
        self.answer(self.new)

    def send(self, verb: str, *records: bytes, epoch: int = 0, link: str = "1", **more: Any) -> Call:
        self.now_s += 0.01
        session = "" if verb == "new" else ID
        call = Call("c", link, session, epoch, verb, self.now_s, records, kind=1, tag=1, grace_s=self.grace_s, **more)
        self.checker.sent(call)
        return call

    def answer(self, call: Call, outcome: str = "ok") -> None:
        self.now_s += 0.01
        self.checker.answered(call, outcome, self.now_s, ID)

    def do(self, verb: str, *records: bytes, epoch: int = 0, outcome: str = "ok", **more: Any) -> Call:
        call = self.send(verb, *records, epoch=epoch, **more)
        if outcome == "unknown":
            self.checker.unknown(call)
        elif outcome:
            self.answer(call, outcome)
        return call

    def hand(
        self, *records: bytes, epoch: int = 1, cause: str = "lost", after_s: float = 10.0, attempt: int = 0
    ) -> None:
        self.now_s += after_s
        self.checker.delivered(ID, epoch, 1, attempt or epoch, cause, list(records), self.now_s)

    def steer(self, verb: str, outcome: str = "ok", kind: int = 1) -> None:
        self.now_s += 0.01
        steering = Steering(kind, verb, self.now_s, outcome)
        if outcome != "unknown":
            self.now_s += 0.01
            steering.answered_s = self.now_s
        self.checker.steered(steering)

    def owner(self, *held: tuple[str, int, int, int], believed: bool = True) -> None:
        asked_s = self.now_s = self.now_s + 0.01
        self.checker.listed("c", asked_s, asked_s, held, [(ID, 0)] if believed else [])


Play = Callable[[History], object]

RIGHT: list[Play] = [
    lambda h: (h.steer("pause", "unknown"), h.hand(b"a")),
    lambda h: (h.steer("pause", "UNKNOWNKIND"), h.hand(b"a")),
    lambda h: (h.steer("pause", kind=2), h.hand(b"a")),
    lambda h: (setattr(h, "now_s", 20.0), h.steer("pause"), h.hand(b"a", after_s=0.0)),  # it was on its way already
    lambda h: (h.steer("pause"), h.steer("continue"), h.hand(b"a")),
    lambda h: (h.steer("pause"), h.steer("continue", "unknown"), h.hand(b"a")),
    lambda h: (h.steer("continue", "unknown"), h.steer("pause"), h.hand(b"a")),
    lambda h: (h.do("append", b"b", b"c"), h.hand(b"a", b"b", b"c")),
    lambda h: (h.do("append", b"b", outcome="unknown"), h.hand(b"a")),
    lambda h: (h.do("append", b"b", outcome="unknown"), h.hand(b"a", b"b")),
    lambda h: (h.do("append", b"b", outcome="TOOBIG"), h.hand(b"a")),
    lambda h: (h.do("append", b"b", outcome="unknown"), h.do("replace", b"c"), h.hand(b"c")),
    lambda h: (h.do("store", seconds=3.0), h.hand(b"a", after_s=3.0, cause="stored")),
    lambda h: (h.do("delete"), h.checker.finish()),
    lambda h: (h.do("delete", outcome="unknown"), h.checker.finish()),
    lambda h: (h.hand(b"a"), h.do("append", b"b", epoch=1), h.hand(b"a", b"b", epoch=3)),
    lambda h: (h.do("append", b"b", outcome=""), h.hand(b"a", b"b")),
    lambda h: (h.wall.jumped(h.now_s + 1, 3_600_000), h.hand(b"a", after_s=1.5)),
    lambda h: h.hand(b"a", after_s=2.5),
    lambda h: (h.hand(b"a"), h.checker.resumed(ID, h.now_s + 1), h.hand(b"a", epoch=2, cause="resumed", attempt=1)),
    lambda h: (
        h.do("append", b"b", link="old", stale=True, outcome="unknown"),  # never arrived, and was of no right
        h.do("append", b"c", outcome="unknown"),
        h.owner((ID, 1, 1, 1)),
        h.hand(b"a", b"c"),
    ),
    lambda h: (
        h.do("append", b"b", link="old", outcome="unknown"),  # got lost, or the next one did
        h.do("append", b"c", outcome="unknown"),
        h.owner((ID, 1, 1, 1)),
        h.hand(b"a", b"c"),
    ),
    lambda h: (h.wall.jumped(h.now_s + 1, -3_600_000), h.hand(b"a")),  # it may have been lost just after the jump
]

WRONG: list[tuple[str, Play]] = [
    ("G1", lambda h: (h.do("append", b"b"), h.hand(b"a"))),
    ("G1", lambda h: (h.do("append", b"b"), h.checker.finish())),
    ("G1", lambda h: (h.hand(b"a"), h.checker.finish())),
    ("G1", lambda h: (h.send("append", b"b"), h.hand(b"a"), h.answer(h.checker.sessions[ID].holds[0].calls[-1]))),
    ("G2", lambda h: (h.do("append", b"b", b"c", outcome="unknown"), h.hand(b"a", b"b"))),
    ("G2", lambda h: (h.do("append", b"b"), h.do("append", b"c"), h.hand(b"a", b"c", b"b"))),
    ("G2", lambda h: (h.do("replace", b"b"), h.hand(b"a", b"b"))),
    ("G2", lambda h: (h.do("append", b"b", outcome="TOOBIG"), h.hand(b"a", b"b"))),
    ("G2", lambda h: h.hand(b"a", b"x")),
    (
        "G2",
        lambda h: (
            h.do("append", b"b", outcome="unknown"),
            h.do("append", b"c", outcome="unknown"),
            h.hand(b"a", b"c"),
        ),
    ),
    ("G2", lambda h: (h.do("delete"), h.do("append", b"b"))),
    ("G2", lambda h: h.checker.delivered("1-3", 1, 1, 1, "lost", [b"q"], 99.0)),
    ("G2", lambda h: h.do("append", b"b", never=True)),
    ("G3", lambda h: h.do("append", b"b", stale=True)),
    ("G1/G2", lambda h: (h.do("append", b"b", stale=True, outcome="unknown"), h.hand(b"a", b"b"))),
    ("G3", lambda h: (h.hand(b"a"), h.do("append", b"b"))),
    ("G3", lambda h: (h.hand(b"a"), h.do("touch"))),
    ("G3", lambda h: (h.hand(b"a"), h.hand(b"a", attempt=2))),
    ("G3", lambda h: (h.do("append", b"b", outcome="unknown"), h.owner((ID, 1, 1, 0)), h.hand(b"a", b"b"))),
    ("G3", lambda h: (h.hand(b"a"), h.owner((ID, 1, 1, 0)))),
    ("G1", lambda h: (h.do("append", b"b", outcome="unknown"), h.owner((ID, 1, 1, 1)), h.hand(b"a"))),
    ("G1", lambda h: (h.do("append", b"b"), h.owner((ID, 1, 1, 0)))),
    ("G1", lambda h: (h.do("append", b"b"), h.owner((ID, 1, 1, 2)))),
    ("G1", lambda h: (h.do("delete"), h.owner((ID, 1, 1, 0)))),
    ("G4", lambda h: (h.do("store", seconds=3.0), h.hand(b"a", after_s=2.9, cause="stored"))),
    ("G4", lambda h: (h.do("store", seconds=3.0), h.wall.jumped(h.now_s + 1, -5_000), h.hand(b"a", after_s=7.0))),
    ("G4", lambda h: h.hand(b"a", after_s=1.0)),
    ("G4", lambda h: (h.hand(b"a"), h.hand(b"a", epoch=2, cause="late", after_s=4.0))),
    ("G4", lambda h: h.hand(b"a", epoch=4, attempt=4)),
    ("G4", lambda h: (h.hand(b"a"), h.hand(b"a", epoch=2, attempt=1))),
    ("G4", lambda h: h.hand(b"a", epoch=2, cause="unreachable", attempt=2)),
    ("G5", lambda h: (h.do("delete"), h.hand(b"a"))),
    ("G5", lambda h: (h.hand(b"a"), h.do("delete", epoch=1), h.hand(b"a", epoch=2))),
    ("pause", lambda h: (h.steer("pause"), h.hand(b"a"))),
    ("pause", lambda h: (h.steer("continue"), h.steer("pause"), h.hand(b"a"))),
    ("pause", lambda h: (h.steer("pause"), h.steer("continue", "BUSY"), h.hand(b"a"))),
    ("pause", lambda h: (h.steer("pause"), h.steer("continue", kind=2), h.hand(b"a"))),
    ("pause", lambda h: (h.steer("pause"), h.steer("continue"), h.steer("pause"), h.hand(b"a"))),
    ("G5", lambda h: (h.do("delete"), h.checker.seen(h.checker.sessions[ID], h.now_s + 1))),
]


@pytest.mark.parametrize("number", range(len(RIGHT)))
def test_what_is_right_passes(number: int) -> None:
    RIGHT[number](History())


@pytest.mark.parametrize("number", range(len(WRONG)))
def test_what_is_wrong_is_named(number: int) -> None:
    guarantee, play = WRONG[number]
    with pytest.raises(Violation, match=guarantee):
        play(History())


def test_a_session_is_not_taken_within_the_grace() -> None:
    history = History(grace_s=8.0)
    history.now_s += 5.0
    with pytest.raises(Violation, match="within its grace"):
        history.owner()
    late = History(grace_s=8.0)
    late.now_s += 9.0
    late.owner()
    with pytest.raises(Violation, match="G4"):
        History(grace_s=8.0).hand(b"a", after_s=9.0)
    History(grace_s=8.0).hand(b"a", after_s=10.1)


def test_a_new_without_an_answer_is_known_by_its_records_or_its_tag() -> None:
    for found in (
        lambda h: h.checker.delivered("1-9", 1, 1, 1, "lost", [b"z"], 99.0),
        lambda h: h.owner(("1-9", 1, 7, 0), believed=False),
    ):
        history = History()
        new = Call("c", "1", "", 0, "new", 11.0, (b"z",), kind=1, tag=7)
        history.checker.sent(new)
        history.checker.unknown(new)
        found(history)
        assert new.session == "1-9"
