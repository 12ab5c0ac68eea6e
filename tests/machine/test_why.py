"""Why a session is where it is: what a person must read for each phase and each thing that can hold it back."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest

from truba.kinds import Kind
from truba.machine.why import ENDED, LaneView, span, why
from truba.ports.store import Head, Held
from truba.testing.store import make_head
from truba.types import Cause, Phase

NOW_MS = 1_800_000_000_000
MINUTE_MS = 60_000
KIND = Kind(7, "transfer", "truba://h:1", max_attempts=3, max_age_s=86_400, idle_timeout_s=3600, handler_timeout_s=60)
LANE = LaneView("truba://h:1", "connected, credit 64", 0, 64, paused=False)


def said(head: Head, lane: LaneView = LANE, kind: Kind = KIND) -> str:
    return " ".join(why(head, kind, lane, NOW_MS))


def head(phase: Phase, **fields: object) -> Head:
    plain = {"phase": phase, "created_ms": NOW_MS - 5 * MINUTE_MS, "aged_from_ms": NOW_MS - 5 * MINUTE_MS, "next": 1}
    return make_head(9, **(plain | fields))  # type: ignore[arg-type]


def stored(**fields: object) -> Head:
    plain = {"due_ms": NOW_MS - 1000, "cause": Cause.LOST, "left_ms": NOW_MS - 2 * MINUTE_MS}
    return head(Phase.STORED, **(plain | fields))


def test_active() -> None:
    text = said(head(Phase.ACTIVE, grace_ms=30_000))
    assert "Active: a client holds it, since it opened it 5 min ago" in text
    assert "grace of 30 s" in text
    assert "5 s to 7 s later" in text
    assert "it would be deleted" in said(head(Phase.ACTIVE, next=0))


def test_repeating() -> None:
    holds = (Held(0, 1, "", 2, "lost"), Held(1, NOW_MS - 90_000, "truba://old:1"))
    text = said(head(Phase.REPEATING, attempts=1, deliveries=1, epoch=1, history=holds))
    assert "the handler truba://old:1 holds it, handed over 90 s ago" in text
    assert "attempt 1 of 3" in text
    assert "the session is parked" in said(head(Phase.REPEATING, attempts=3, deliveries=3, epoch=1, history=holds))


@pytest.mark.parametrize("cause", Cause)
def test_every_cause_has_its_words(cause: Cause) -> None:
    text = said(stored(cause=cause, detail="no such account"))
    assert ENDED[cause].partition("{")[0].strip().casefold() in text.casefold()
    assert "no such account" in text
    assert "{" not in text


def test_due_later_says_when() -> None:
    text = said(stored(due_ms=NOW_MS + 42_000))
    assert "It is to be handed to truba://h:1 in 42 s (2027-01-15 08:00:42 UTC)." in text
    assert "waits for its turn" not in text


HELD_BACK = [
    (LANE, "comes at once"),
    (replace(LANE, out=64), "as many as its concurrency"),
    (replace(LANE, out=3, room=3), "as many as may be out so soon after trouble"),
    (replace(LANE, rate_per_s=5), "5 a second are handed over"),
    (replace(LANE, probing=True), "one session has been handed to it, and decides"),
    (replace(LANE, reachable=False, state="unreachable: refused"), "The handler takes none now: unreachable: refused"),
    (replace(LANE, open_until_ms=NOW_MS + 20_000, trouble="late"), "(late) and left alone; one session is tried in 20"),
    (replace(LANE, open_until_ms=NOW_MS - 1), "left alone; one session is tried at once"),
    (replace(LANE, paused=True, reachable=False), "An operator has paused this kind"),
]  # fmt: skip


@pytest.mark.parametrize(("lane", "words"), HELD_BACK)
def test_due_and_held_back_says_by_what(lane: LaneView, words: str) -> None:
    text = said(stored(), lane)
    assert "It came due 1 s ago" in text
    assert words in text
    assert sum(other in text for _, other in HELD_BACK) == 1


def test_what_will_be_parked_is_not_promised_to_a_handler() -> None:
    assert "It will be parked instead of handed over, in 10 s" in said(stored(attempts=3, due_ms=NOW_MS + 10_000))
    old = stored(due_ms=NOW_MS + 2 * 86_400_000)
    assert "older than max_age (24 h)" in said(old)
    assert "parked" not in said(old, kind=replace(KIND, max_age_s=0))


def test_parked_says_what_to_do() -> None:
    text = said(head(Phase.PARKED, detail="3 attempts, max_attempts is 3: boom", cause=Cause.FAILED, deliveries=3))
    assert "(3 attempts, max_attempts is 3: boom)" in text
    assert "handed over 3 times" in text
    assert re.search(r"truba resume \d+-9\b", text)


@pytest.mark.parametrize(
    ("time_ms", "text"),
    [(-5, "0 s"), (1500, "1.5 s"), (99_000, "99 s"), (120_000, "2 min"), (7_200_000, "2 h"), (172_800_000, "2 days")],
)
def test_spans(time_ms: float, text: str) -> None:
    assert span(time_ms) == text


def test_times_without_end_are_told_as_well() -> None:
    assert "s since 1970" in said(stored(due_ms=10**17), kind=replace(KIND, max_age_s=0))
