"""The checker against histories written by hand: what may have happened passes, what cannot have happened does not."""

from __future__ import annotations

from math import inf
from typing import Any

import pytest

from truba.torture.checker import Call, Outcome, Rules, State, Unexplained, Verb, explain

CLIENT, AGAIN, HANDLER, OTHER = "c0-1", "c0-2", "h7-1", "h7-2"
RULES = Rules(recovery_delay_s=0.5, slack_s=0.0)


class History:
    """Calls one after the other, each a second long, unless they say `during` the one before."""

    def __init__(self) -> None:
        self.calls: list[Call] = []
        self.now_s = 0.0

    def add(
        self, who: str, verb: Verb, *records: str, outcome: Outcome = "ok", during: int = 0, **more: Any
    ) -> History:
        """`during`: it overlaps that many of the calls before it."""
        begin_s = self.calls[-during].begin_s if during else self.now_s
        self.now_s += 1.0
        end_s = inf if outcome == "unknown" else self.now_s
        self.now_s += 1.0
        if verb == "deliver":
            begin_s = -inf
        self.calls.append(Call(who, verb, begin_s, end_s, outcome, records=records, **more))
        return self

    def wait(self, seconds: float) -> History:
        self.now_s += seconds
        return self

    def judged(self, rules: Rules = RULES) -> Unexplained | None:
        return explain(self.calls, rules)


def opened(*records: str) -> History:
    return History().add(CLIENT, "open", *records)


def passes(history: History, rules: Rules = RULES) -> None:
    assert history.judged(rules) is None


def fails(history: History, rules: Rules = RULES) -> Unexplained:
    unexplained = history.judged(rules)
    assert unexplained is not None
    return unexplained


# -- what may happen ---------------------------------------------------------------------------------------------


def test_a_whole_life() -> None:
    passes(
        opened("a")
        .add(CLIENT, "append", "b", "c")
        .add(CLIENT, "read", "a", "b", "c", phase="active")
        .add(CLIENT, "replace", "d")
        .add(CLIENT, "touch")
        .add(CLIENT, "store", delay_s=3.0)
        .add(CLIENT, "read", "d", phase="stored")
        .wait(3.0)
        .add(HANDLER, "deliver", "d", epoch=1, cause="stored")
        .add(HANDLER, "append", "e", epoch=1)
        .add(HANDLER, "read", "d", "e", phase="repeating", epoch=1)
        .add(HANDLER, "delete", epoch=1)
        .add(CLIENT, "read", phase="gone")
    )


def test_a_lost_client() -> None:
    passes(opened("a").add(HANDLER, "deliver", "a", epoch=1, cause="lost").add(HANDLER, "delete", epoch=1))


def test_lost_without_a_record() -> None:
    passes(opened().add(AGAIN, "read", phase="gone"))


def test_handlers_that_never_said_so() -> None:
    passes(opened("a").add(HANDLER, "deliver", "a", epoch=4, cause="lost"))


@pytest.mark.parametrize("found", [("a",), ("a", "b")])
def test_an_unknown_append_is_there_or_not(found: tuple[str, ...]) -> None:
    passes(
        opened("a")
        .add(CLIENT, "append", "b", outcome="unknown")
        .add(HANDLER, "deliver", *found, epoch=1, cause="lost")
        .add(HANDLER, "delete", epoch=1)
    )


def test_an_unknown_open_never_was() -> None:
    passes(History().add(CLIENT, "open", "a", outcome="unknown").add(AGAIN, "read", phase="gone"))


def test_an_unknown_delete() -> None:
    passes(opened("a").add(CLIENT, "delete", outcome="unknown").add(AGAIN, "read", phase="gone"))
    passes(opened("a").add(CLIENT, "delete", outcome="unknown").add(HANDLER, "deliver", "a", epoch=1, cause="lost"))


def test_reads_at_the_same_time_as_a_write_see_either() -> None:
    passes(opened("a").add(CLIENT, "append", "b").add(AGAIN, "read", "a", phase="active", during=1))
    passes(opened("a").add(CLIENT, "append", "b").add(AGAIN, "read", "a", "b", phase="active", during=1))


def test_a_delivery_may_arrive_late() -> None:
    """It lay in the buffer of a frozen handler while the next one finished the session."""
    passes(
        opened("a")
        .add(OTHER, "deliver", "a", epoch=2, cause="late")
        .add(OTHER, "delete", epoch=2)
        .add(HANDLER, "deliver", "a", epoch=1, cause="lost")
        .add(HANDLER, "append", "x", epoch=1, outcome="refused", error="FENCED")
    )


def test_who_comes_back_goes_on() -> None:
    passes(
        opened("a")
        .add(CLIENT, "append", "b")
        .add(AGAIN, "resume", writes=1)
        .add(CLIENT, "append", "x", outcome="refused", error="FENCED")
        .add(AGAIN, "append", "c")
        .add(AGAIN, "read", "a", "b", "c", phase="active")
    )


def test_who_comes_back_too_late_holds_nothing() -> None:
    passes(opened("a").add(AGAIN, "resume").add(HANDLER, "deliver", "a", epoch=1, cause="lost"))


PARKS = Rules(recovery_delay_s=0.5, attempts_max=2, slack_s=0.0)


def parked() -> History:
    lost = opened("a").add(HANDLER, "deliver", "a", epoch=1, cause="lost")
    return lost.add(OTHER, "deliver", "a", epoch=2, cause="late").add(AGAIN, "read", "a", epoch=2, phase="parked")


def test_parked_until_an_operator_releases_it() -> None:
    passes(parked().add(AGAIN, "release").add(HANDLER, "deliver", "a", epoch=3, cause="resumed"), PARKS)
    passes(parked().add(AGAIN, "remove").add(AGAIN, "read", phase="gone"), PARKS)
    fails(parked().add(HANDLER, "deliver", "a", epoch=3, cause="late"), PARKS)
    fails(parked().add(AGAIN, "read", phase="gone"), PARKS)
    fails(parked().add(AGAIN, "remove").add(HANDLER, "deliver", "a", epoch=3, cause="late"), PARKS)


def test_parked_only_after_all_its_attempts() -> None:
    fails(parked())
    fails(parked(), Rules(recovery_delay_s=0.5, attempts_max=3, slack_s=0.0))
    again = parked().add(AGAIN, "release").add(HANDLER, "deliver", "a", epoch=3, cause="resumed")
    fails(again.add(AGAIN, "read", "a", epoch=3, phase="parked"), PARKS)


def test_what_is_released_is_due_at_once() -> None:
    stored = opened("a").add(CLIENT, "store", delay_s=60.0)
    passes(stored.add(AGAIN, "release").add(HANDLER, "deliver", "a", epoch=1, cause="resumed"))
    stored = opened("a").add(CLIENT, "store", delay_s=60.0)
    fails(stored.add(AGAIN, "release", outcome="unknown").add(HANDLER, "deliver", "a", epoch=1, cause="stored"))


def test_an_operator_does_nothing_to_what_is_held() -> None:
    for verb in ("release", "remove"):
        fails(opened("a").add(AGAIN, verb).add(CLIENT, "append", "b"))  # type: ignore[arg-type]
        fails(opened("a").add(CLIENT, "delete").add(AGAIN, verb))  # type: ignore[arg-type]


# -- what may not ------------------------------------------------------------------------------------------------


def test_a_lost_append() -> None:
    unexplained = fails(opened("a").add(CLIENT, "append", "b").add(HANDLER, "deliver", "a", epoch=1, cause="lost"))
    assert [call.verb for call in unexplained.calls] == ["deliver"]
    assert unexplained.state.records == ("a", "b")


def test_a_doubled_append() -> None:
    fails(opened("a").add(CLIENT, "append", "b").add(HANDLER, "deliver", "a", "b", "b", epoch=1, cause="lost"))


def test_appends_in_another_order() -> None:
    swapped = opened().add(CLIENT, "append", "b").add(CLIENT, "append", "c", during=1)
    fails(swapped.add(HANDLER, "deliver", "c", "b", epoch=1, cause="lost"))


def test_half_an_append() -> None:
    fails(
        opened("a")
        .add(CLIENT, "append", "b", "c", outcome="unknown")
        .add(HANDLER, "deliver", "a", "b", epoch=1, cause="lost")
    )


@pytest.mark.parametrize("found", [("a", "b"), (), ("a",)])
def test_half_a_replace(found: tuple[str, ...]) -> None:
    fails(opened("a").add(CLIENT, "replace", "b").add(HANDLER, "deliver", *found, epoch=1, cause="lost"))


def test_an_unknown_append_that_came_after_a_later_one() -> None:
    fails(
        opened("a")
        .add(CLIENT, "append", "b", outcome="unknown")
        .add(CLIENT, "append", "c")
        .add(HANDLER, "deliver", "a", "c", "b", epoch=1, cause="lost")
    )


def test_a_stale_write_that_is_accepted() -> None:
    fails(opened("a").add(HANDLER, "deliver", "a", epoch=1, cause="lost").add(CLIENT, "append", "x"))
    fails(
        opened("a")
        .add(HANDLER, "deliver", "a", epoch=1, cause="lost")
        .add(CLIENT, "append", "x", outcome="unknown")
        .add(HANDLER, "append", "b", epoch=1)
        .add(CLIENT, "read", "a", "b", "x", phase="repeating", epoch=1)
    )


def test_a_write_of_an_earlier_life() -> None:
    fails(opened("a").add(AGAIN, "resume", writes=0).add(CLIENT, "append", "x"))


def test_a_write_of_the_first_of_two_handlers() -> None:
    fails(
        opened("a")
        .add(HANDLER, "deliver", "a", epoch=1, cause="lost")
        .add(OTHER, "deliver", "a", epoch=2, cause="late")
        .add(OTHER, "append", "b", epoch=2)
        .add(HANDLER, "delete", epoch=1)
    )


@pytest.mark.parametrize("outcome", ["ok", "unknown"])
def test_a_write_under_an_earlier_epoch_of_its_own(outcome: Outcome) -> None:
    """The same handler was given the session again: what its first task still sends is stale."""
    once = opened("a").add(HANDLER, "deliver", "a", epoch=1, cause="lost")
    again = once.add(HANDLER, "deliver", "a", epoch=2, cause="late")
    again.add(HANDLER, "append", "x", epoch=1, outcome=outcome)
    fails(again.add(OTHER, "read", "a", "x", epoch=2, phase="repeating"))


def test_an_open_of_an_earlier_life() -> None:
    fails(History().add(AGAIN, "resume").add(CLIENT, "open", "a"))


def test_a_read_of_an_earlier_epoch() -> None:
    fails(opened("a").add(HANDLER, "deliver", "a", epoch=1, cause="lost").add(OTHER, "read", "a", phase="stored"))


def test_a_write_after_the_end() -> None:
    for end in ("delete", "store", "fail"):
        fails(opened("a").add(CLIENT, end, delay_s=0.0).add(CLIENT, "append", "x"))  # type: ignore[arg-type]


def test_accepted_after_it_was_fenced() -> None:
    fails(opened("a").add(CLIENT, "append", "b", outcome="refused", error="FENCED").add(CLIENT, "append", "c"))


def test_a_refused_write_that_happened() -> None:
    fails(
        opened("a")
        .add(CLIENT, "append", "b", outcome="refused", error="UNAVAILABLE")
        .add(CLIENT, "read", "a", "b", phase="active")
    )


def test_an_early_delivery() -> None:
    def delivered_after(seconds: float) -> History:
        stored = opened("a").add(CLIENT, "store", delay_s=10.0)  # asked at 2.0 s
        return stored.wait(seconds - 5.0).add(HANDLER, "deliver", "a", epoch=1, cause="stored")

    passes(delivered_after(12.0))
    fails(delivered_after(11.9))


def test_an_early_delivery_that_was_not_told() -> None:
    """Somebody must have been given it before the time, for the next one to be given it at epoch 2 already."""
    stored = opened("a").add(CLIENT, "store", delay_s=10.0)
    fails(stored.add(HANDLER, "deliver", "a", epoch=2, cause="lost"))


def test_a_lost_client_has_its_delay() -> None:
    lost = opened("a").add(HANDLER, "deliver", "a", epoch=1, cause="lost")  # opened at 0.0 s, delivered at 3.0 s
    passes(lost, Rules(recovery_delay_s=3.0, slack_s=0.0))
    fails(lost, Rules(recovery_delay_s=3.1, slack_s=0.0))
    passes(lost, Rules(recovery_delay_s=3.1, slack_s=0.2))


def test_a_cause_that_is_not_so() -> None:
    fails(opened("a").add(HANDLER, "deliver", "a", epoch=1, cause="stored"))
    fails(opened("a").add(CLIENT, "store", delay_s=0.0).add(HANDLER, "deliver", "a", epoch=1, cause="lost"))


def test_a_delivery_after_the_delete() -> None:
    fails(opened("a").add(CLIENT, "delete").add(HANDLER, "deliver", "a", epoch=1, cause="lost"))
    fails(
        opened("a")
        .add(HANDLER, "deliver", "a", epoch=1, cause="lost")
        .add(HANDLER, "delete", epoch=1)
        .add(OTHER, "deliver", "a", epoch=2, cause="late")
    )


def test_gone_without_a_delete() -> None:
    unexplained = fails(opened("a").add(CLIENT, "append", "b").add(OTHER, "read", phase="gone"))
    assert unexplained.state == State("held", 0, CLIENT, ("a", "b"), 1, now_s=2.0)
    assert unexplained.explained == 2


def test_still_there_after_the_delete() -> None:
    fails(opened("a").add(CLIENT, "delete").add(OTHER, "read", "a", phase="stored"))


def test_a_wrong_count_for_who_comes_back() -> None:
    for writes in (0, 2, None):
        history = opened("a").add(CLIENT, "append", "b").add(AGAIN, "resume", writes=writes)
        if writes is not None:
            fails(history)
        else:
            fails(history.add(AGAIN, "append", "c"))


def test_an_open_that_came_twice() -> None:
    fails(opened("a").add(CLIENT, "delete").add(CLIENT, "open", "a"))


def test_a_read_that_goes_back() -> None:
    fails(
        opened("a")
        .add(CLIENT, "append", "b", outcome="unknown")
        .add(OTHER, "read", "a", "b", phase="active")
        .add(OTHER, "read", "a", phase="active")
    )


def test_an_epoch_that_goes_back() -> None:
    fails(
        opened("a")
        .add(HANDLER, "deliver", "a", epoch=2, cause="lost")
        .add(HANDLER, "append", "b", epoch=2)
        .add(OTHER, "deliver", "a", "b", epoch=1, cause="late")
    )


def test_what_takes_too_long_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("truba.torture.checker.STATES_MAX", 50)
    history = opened("a")
    for number in range(8):
        history.add(f"c{number}-1", "resume", outcome="unknown")
    assert "no order found among the first 50" in fails(history.add(OTHER, "read", "x", phase="active")).why
