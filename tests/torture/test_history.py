"""What journals say, and what comes of it: records, torn lines, and the calls of each session."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from math import inf
from pathlib import Path

import pytest

from truba.errors import Fenced, UnknownOutcome
from truba.torture import history
from truba.torture.checker import Call
from truba.torture.history import Asked, Delivered, Found, Held, Line, Listed, Told, make_record, read_records
from truba.torture.journal import Journal, read_journal
from truba.torture.sessions import Gathered, gather
from truba.torture.steering import misled


@pytest.mark.parametrize("size", [0, 1, 31, 32, 33, 20_000])
def test_a_record_tells_where_it_comes_from(size: int) -> None:
    record = make_record("c0.17", "c0-1.5", size)
    assert len(record) == len(f"c0.17/c0-1.5*{size} ") + size
    assert read_records([record]) == ("c0.17", (f"c0-1.5*{size}",))


def test_a_record_that_nobody_wrote() -> None:
    record = make_record("c0.17", "c0-1.5", 40)
    flipped = bytearray(record)
    flipped[-1] ^= 1
    for wrong in (bytes(flipped), record[:-1], record + b"x", b"", b"c0.17/x", b"\xff\xfe*3 abc"):
        label, (name,) = read_records([wrong])
        assert label == ""
        assert name.startswith("?")
    label, names = read_records([record, make_record("c0.18", "c0-1.6", 0)])
    assert label == "c0.17"
    assert names[1].startswith("?c0.18")


async def test_a_journal(tmp_path: Path) -> None:
    path = tmp_path / "c0-1.jsonl"

    async def answer(value: object) -> object:
        if isinstance(value, BaseException):
            raise value
        return value

    with Journal(path) as journal:
        await journal.call("open", answer("3-1"), lambda made: {"id": made}, label="c0.1", records=("r",))
        with pytest.raises(Fenced):
            await journal.call("append", answer(Fenced("no")), label="c0.1")
        with pytest.raises(UnknownOutcome):
            await journal.call("delete", answer(UnknownOutcome("perhaps")), label="c0.1")
        with pytest.raises(asyncio.CancelledError):
            await journal.call("touch", answer(asyncio.CancelledError()), label="c0.1")
        journal.delivered(id="3-1", epoch=1, cause="lost")
    lines = read_journal(path)
    match lines:
        case [
            Asked(n=1, verb="open", records=("r",)),
            Told(n=1, outcome="ok", id="3-1"),
            Asked(n=2, verb="append"),
            Told(n=2, outcome="refused", error="FENCED"),
            Asked(n=3, verb="delete"),
            Told(n=3, outcome="unknown", error="UNKNOWN"),
            Asked(n=4, verb="touch"),
            Delivered(id="3-1", epoch=1, cause="lost"),
        ]:
            pass
        case _:
            pytest.fail(str(lines))
    whole = path.read_bytes()
    for cut in (1, 5, 20):
        path.write_bytes(whole[:-cut])
        assert read_journal(path) == lines[:-1]
    with pytest.raises(FileExistsError):  # of another life
        Journal(path)


# -- sessions ------------------------------------------------------------------------------------------------------


def opened(label: str, session_id: str, *records: str, n: int = 1, at_s: float = 0.0) -> list[Line]:
    asked = Asked(n, at_s, "open", label, records=records, kind=7)
    return [asked, Told(n, at_s + 0.5, "ok", id=session_id)] if session_id else [asked]


def only(gathered: Gathered) -> tuple[Call, ...]:
    assert gathered.odd == []
    (session,) = gathered.sessions
    return session.calls


def test_calls_come_together_by_label_and_by_id() -> None:
    calls = only(
        gather(
            {
                "c0-1": [
                    *opened("c0.1", "1-5", "a"),
                    Asked(2, 1.0, "append", "c0.1", "1-5", records=("b",)),
                    Told(2, 1.5, "refused", "FENCED"),
                    Asked(3, 1.6, "delete", "c0.1", "1-5"),
                ],
                "h7-1": [
                    Delivered(2.0, "1-5", 1, "lost", "c0.1", ("a",)),
                    Asked(1, 2.5, "read", id="1-5"),
                    Told(1, 2.6, "ok", found=Found("repeating", 1, "c0.1", ("a",))),
                ],
            }
        )
    )
    assert calls == (
        Call("c0-1", "open", 0.0, 0.5, records=("a",)),
        Call("c0-1", "append", 1.0, 1.5, "refused", records=("b",), error="FENCED"),
        Call("c0-1", "delete", 1.6, inf, "unknown"),
        Call("h7-1", "deliver", -inf, 2.0, epoch=1, records=("a",), cause="lost"),
        Call("h7-1", "read", 2.5, 2.6, epoch=1, records=("a",), phase="repeating"),
    )


def test_who_comes_back_is_told_of_every_session_that_may_be_left() -> None:
    def resumed(*told: Line) -> dict[str, list[tuple[str, int | None]]]:
        gathered = gather(
            {
                "c0-1": [
                    *opened("c0.1", "1-5", "a"),
                    *opened("c0.2", "", "b", n=2),
                    *opened("c0.3", "1-7", "c", n=3),
                    Asked(4, 1.0, "delete", "c0.3", "1-7"),
                    Told(4, 1.1, "ok"),
                ],
                "c1-1": opened("c1.1", "1-9", "d"),
                "c0-2": [Asked(1, 2.0, "resume"), *told],
            }
        )
        assert gathered.odd == []
        return {
            session.label: [(call.outcome, call.writes) for call in session.calls if call.verb == "resume"]
            for session in gathered.sessions
        }

    nothing: list[tuple[str, int | None]] = []
    assert resumed(Told(1, 2.5, "ok", held=(Held("c0.2", "1-6", 0),))) == {
        "c0.1": [("ok", None)],
        "c0.2": [("ok", 0)],
        "c0.3": nothing,  # its end was acknowledged before
        "c1.1": nothing,  # of another client
    }
    assert resumed()["c0.1"] == [("unknown", None)]
    assert resumed(Told(1, 2.5, "ok", held=(Held("c0.3", "1-7", 0),)))["c0.3"] == [("ok", 0)]  # which will be found out
    assert resumed(Told(1, 2.5, "refused", "UNAVAILABLE"))["c0.1"] == nothing


def test_what_is_not_listed_is_gone() -> None:
    def found(*ids: str) -> dict[str, list[str]]:
        gathered = gather(
            {
                "c0-1": [*opened("c0.1", "1-5", "a"), *opened("c0.2", "", n=2), *opened("c0.3", "", "c", n=3)],
                "a0-1": [Listed(4.0, 5.0, ids)],
            }
        )
        assert gathered.odd == []
        return {
            session.label: [call.phase for call in session.calls if call.verb == "read"]
            for session in gathered.sessions
        }

    assert found() == {"c0.1": ["gone"], "c0.2": [], "c0.3": ["gone"]}
    assert found("1-5") == {"c0.1": [], "c0.2": [], "c0.3": ["gone"]}
    assert found("1-5", "1-6")["c0.3"] == ["gone"]  # 1-6 may be c0.2, of which nothing else is known


def odd(*lines: Line) -> str:
    return " | ".join(what for _, what in gather({"c0-1": opened("c0.1", "1-5", "a"), "h7-1": list(lines)}).odd)


def test_what_no_order_explains() -> None:
    handed = Delivered(2.0, "1-5", 1, "lost", "c0.1", ("a",))
    assert odd(handed) == ""
    assert "epoch 1 was handed over twice" in odd(handed, handed)
    assert "there twice, as 1-5 and as 1-6" in odd(Delivered(2.0, "1-6", 1, "lost", "c0.1", ("a",)))
    assert "records of two, c0.1 and c0.9" in odd(Delivered(2.0, "1-5", 1, "lost", "c0.9", ("a",)))
    assert "nobody opened it" in odd(Delivered(2.0, "1-9", 1, "lost", "c0.9", ("a",)))
    assert "it was handed over, and nobody opened it" in odd(Delivered(2.0, "1-9", 1, "lost"))
    assert "lists it, and nobody opened it" in odd(Listed(2.0, 3.0, ("1-5", "1-9")))
    assert "a record that nobody wrote: ?x, 3 bytes" in odd(
        Delivered(2.0, "1-5", 1, "lost", "c0.1", ("a", "?x, 3 bytes"))
    )


# -- kinds that are paused -----------------------------------------------------------------------------------------


def steered(paused: bool, *lines: Line, taken: Sequence[Line] = (), after: Sequence[Line] = ()) -> str:
    journals = {
        "o0-0": lines,
        "a0-1": [Listed(10.0, 10.5, (), (7,) if paused else ())],
        "o0-1": after,
        "f7-1": taken,
    }
    assert gather(journals).odd == [] or taken  # of no session
    return " | ".join(what for _, what in misled(journals, (7, 8)))


def word(
    n: int, verb: history.Steering, at_s: float, outcome: history.Outcome | None = "ok", kind: int = 7
) -> list[Line]:
    asked = Asked(n, at_s, verb, kind=kind)
    return [asked] if outcome is None else [asked, Told(n, at_s + 0.5, outcome)]


def test_the_last_word_about_a_kind_holds() -> None:
    pause, go_on = word(1, "pause", 1.0), word(2, "continue", 2.0)
    assert steered(False) == steered(True, *pause) == steered(False, *pause, *go_on) == ""
    assert "7" not in steered(False, *word(1, "pause", 1.0, kind=8))
    another = "the last acknowledged word was another"
    assert another in steered(True)
    assert another in steered(False, *pause)
    assert another in steered(True, *pause, *go_on)
    assert another in steered(True, *word(1, "pause", 1.0, "refused"))
    for outcome in ("unknown", None):  # it came to something or not, at any time since
        for paused in (True, False):
            assert steered(paused, *word(1, "pause", 1.0, outcome)) == ""
            assert steered(paused, *pause, *word(2, "continue", 2.0, outcome)) == ""
            assert steered(paused, *word(1, "pause", 1.0, outcome), *go_on) == ""
    both = [Asked(1, 1.0, "pause", kind=7), Told(1, 3.0, "ok"), *go_on]  # at the same time
    assert steered(True, *both) == steered(False, *both) == ""


def test_nothing_of_a_paused_kind_is_handed_over() -> None:
    pause, go_on = word(1, "pause", 1.0), word(1, "continue", 12.0)
    given: list[Line] = [Delivered(11.0, "1-5", 1, "lost", "c0.1", ("a",))]
    assert "1-5 was handed over while the kind was paused" in steered(True, *pause, taken=given, after=go_on)
    assert "while the kind was paused" in steered(True, *pause, taken=given)
    assert steered(True, *pause, taken=given, after=word(1, "continue", 10.9)) == ""
    assert steered(False, taken=given) == ""
