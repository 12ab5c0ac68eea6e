"""Reads: what each answers, within what bounds, and that nobody waits for it."""

from __future__ import annotations

import asyncio
import base64
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families
from structlog.testing import capture_logs

from tests.admin import handlers
from tests.admin.support import Place, place
from truba.admin import documents, looking, showing
from truba.admin.metrics import METRICS, series
from truba.errors import DataDamaged
from truba.machine.machine import Machine
from truba.ports.records import Codec
from truba.records import Json
from truba.types import Index


async def test_health_and_readiness(tmp_path: Path) -> None:
    async with place(tmp_path) as here:
        documents.Alive.model_validate(await here.get("/v1/health"))
        documents.Ready.model_validate(await here.get("/v1/readiness"))
        documents.Serving.model_validate(await here.get("/v1/serving"))
        here.node.drain()
        document = await here.get("/v1/readiness", 503)
        assert document == {"ready": False, "role": "single", "leader": "", "trouble": ""}
        assert (await here.get("/v1/serving", 503)) == {"serving": False, "role": "single", "leader": "", "trouble": ""}
        assert (await here.get("/v1/health"))["alive"]


async def test_a_node_that_does_not_lead_says_who_does(tmp_path: Path) -> None:
    async with place(tmp_path, role="follower") as here:
        here.node_there = False
        assert (await here.get("/v1/readiness", 503))["leader"] == "b"
        assert (await here.get("/v1/serving"))["serving"], "its clients are passed on"
        problem = documents.Problem.model_validate(await here.get("/v1/overview", 503))
        assert problem.code == "NOTLEADER"
        assert "node b leads" in problem.detail
        assert "truba_ready 0.0" in (await here.client.get("/v1/metrics")).text


async def test_overview(tmp_path: Path) -> None:
    async with place(tmp_path) as here:
        here.stored(7), here.stored(8, 0)
        await here.world.durable()
        here.pulse.beat(0.0), here.pulse.beat(10.0)
        overview = documents.Overview.model_validate(await here.get("/v1/overview"))
        transfer, mail = overview.kinds
        assert transfer.phases == {"active": 0, "stored": 1, "repeating": 0, "parked": 0}
        assert transfer.oldest_due_s is None
        assert transfer.rate is not None
        assert transfer.rate.drained_in_s is None
        assert (mail.deliveries, mail.handler.out, mail.handler.reachable) == (1, 1, True)
        assert (overview.node.ready, overview.node.connections, overview.node.seq) == (True, 3, here.node.machine.seq)
        assert await here.get("/v1/kinds/mail") == await here.get("/v1/kinds/8")
        for nonsense in ("9", "nope", "7" * 400):
            assert (await here.get(f"/v1/kinds/{nonsense}", 404))["code"] == "UNKNOWNKIND"


async def test_rates_are_those_of_the_last_minute(tmp_path: Path) -> None:
    async with place(tmp_path) as here:
        for _ in range(20):
            here.stored(8, 0)
        await here.world.durable()
        here.pulse.beat(0.0)
        while here.world.route(8).given:
            here.node.delete(here.world.route(8).given.pop().hold)
            if here.node.dispatcher.lanes[8].meter.outcomes["deleted"] == 10:
                break
            await here.world.durable()
            await asyncio.sleep(0)
        here.pulse.beat(10.0)
        rate = here.pulse.rate(8)
        assert rate == (10.0, 1.0, -1.0, 10.0)
        here.pulse.beat(100.0)  # what is older than a minute is forgotten
        assert here.pulse.rate(8) is None


async def test_sessions_are_found_by_kind_phase_age_cause_and_due(tmp_path: Path) -> None:
    async with place(tmp_path) as here:
        here.world.route(8).up = False
        old, due = here.stored(7), here.stored(8, 0)
        here.world.clock.advance(100)
        (parked,) = await here.parked()
        active = here.node.new(here.node.presence.attach(), 7, []).id
        await here.world.durable()

        async def ids(**wish: Any) -> list[str]:
            page = documents.Sessions.model_validate(await here.get("/v1/sessions", **wish))
            assert page.next is None
            return [session.id for session in page.sessions]

        def text(*indexes: Index) -> list[str]:
            return [str(index) for index in indexes]

        assert await ids() == text(old, due, parked, active)
        assert await ids(kind="mail") == text(due)
        assert await ids(kind=7, phase="stored") == text(old)
        assert await ids(cause="failed") == text(parked)
        assert await ids(cause="lost") == []  # what an active session's head says of a cause is nothing
        assert await ids(min_age_s=50) == text(old, due)
        assert await ids(max_age_s=50) == text(parked, active)
        assert await ids(due=True) == text(due)
        assert await ids(due=False) == text(old)
        assert await ids(after=str(due)) == text(parked, active)


@pytest.mark.parametrize(
    "params",
    [{"limit": 0}, {"limit": 1001}, {"phase": "gone"}, {"after": "x"}, {"min_age_s": "nan"}, {"max_age_s": -1},
     {"after": "1-" + "9" * 30}, {"cause": ""}, {"min_age_s": "1e400"}],
)  # fmt: skip
async def test_what_makes_no_sense_is_refused(tmp_path: Path, params: dict[str, Any]) -> None:
    async with place(tmp_path) as here:
        problem = documents.Problem.model_validate(await here.get("/v1/sessions", 400, **params))
        assert "nothing was changed" in problem.detail


async def test_pages_under_change_show_who_stays_exactly_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(looking, "STEPS_MAX", 64)
    monkeypatch.setattr(looking, "SLICE", 16)
    async with place(tmp_path) as here:
        staying = [here.stored(8) for _ in range(100)]
        leaving = [here.stored(7) for _ in range(300)]
        staying += [here.stored(8) for _ in range(100)]
        await here.world.durable()
        found: list[str] = []
        after, pages = {}, 0
        while True:
            page = await here.get("/v1/sessions", kind=8, limit=10, **after)
            found += [session["id"] for session in page["sessions"]]
            if leaving:
                here.node.operators.remove(leaving.pop()), here.node.operators.remove(leaving.pop(0))
            here.node.operators.reschedule(staying[pages], 10**13)
            pages += 1
            if pages % 10 == 0:
                await here.node.checkpoint()
            if page["next"] is None:
                break
            after = {"after": page["next"]}
        assert found == [str(index) for index in staying]
        assert pages > 22  # those in which only others were looked at are short, and say where to go on


async def test_a_search_through_many_lets_others_have_their_turn(tmp_path: Path) -> None:
    async with place(tmp_path) as here:
        for _ in range(20 * looking.SLICE):
            here.stored(7)
        await here.world.durable()
        turns = 0

        async def count() -> None:
            nonlocal turns
            while True:
                turns += 1
                await asyncio.sleep(0)

        counting = asyncio.create_task(count())
        page = await here.get("/v1/sessions", kind=8)
        counting.cancel()
        assert page["sessions"] == []
        assert turns >= 20


async def test_one_session_with_its_history_and_sizes_only(tmp_path: Path) -> None:
    async with place(tmp_path) as here:
        (index,) = await here.parked()
        raw = await here.client.get(f"/v1/sessions/{index}")
        assert "hidden" not in raw.text
        session = documents.WholeSession.model_validate(raw.json())
        assert [hold.cause for hold in session.history] == ["stored", "failed"]
        assert session.history[1].detail.endswith("no such account")
        assert session.history_complete
        assert [record.model_dump() for record in session.record_list] == [
            {"number": 0, "bytes": 15, "shown": None, "base64": None}
        ]
        assert session.why == await here.get(f"/v1/sessions/{index}/why")
        refused = await here.client.get(f"/v1/sessions/{index}", params={"contents": True})
        assert refused.status_code == 403
        assert "show_records" in refused.json()["detail"]


async def test_contents_where_they_are_allowed_come_in_bounded_pages(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(documents, "RECORDS_BYTES_MAX", 10)
    async with place(tmp_path, show_records=True) as here:
        hold = here.node.new(here.node.presence.attach(), 8, [b"1" * 20, b"2" * 6, b"3" * 4, b"4"])
        path, found, first = f"/v1/sessions/{hold.id}", [], 0
        sizes = []
        while True:
            page = await here.get(path, contents=True, first_record=first)
            found += [base64.b64decode(record["base64"]) for record in page["record_list"]]
            sizes.append(len(page["record_list"]))
            if page["next_record"] is None:
                break
            first = page["next_record"]
        assert found == [b"1" * 20, b"2" * 6, b"3" * 4, b"4"]
        assert sizes == [1, 2, 1]
        assert (await here.get(path))["record_list"][0]["base64"] is None


CONTENTS = [b'{"step":"debit","from":"hidden"}', b"hidden", b'{"step":"credit","to":"hidden"}']


def with_codec(here: Place, codec: Codec[Any]) -> Index:
    """A session of kind 8, which has this codec from now on."""
    here.node.kinds[8] = replace(here.node.kinds[8], codec=codec)
    return here.node.new(here.node.presence.attach(), 8, CONTENTS).id


@pytest.mark.parametrize("show_records", [False, True])
async def test_with_a_codec_what_it_allows_is_shown_and_the_bytes_never(tmp_path: Path, show_records: bool) -> None:
    async with place(tmp_path, show_records=show_records) as here:
        path = f"/v1/sessions/{with_codec(here, handlers.STEPS)}"
        for asked in ({}, {"contents": True})[: 1 + show_records]:
            session = documents.WholeSession.model_validate(await here.get(path, **asked))
            assert [(record.number, record.bytes, record.shown, record.base64) for record in session.record_list] == [
                (0, 32, "dict(step='debit', …)", None),
                (1, 6, "6 bytes, not readable by the codec", None),
                (2, 31, "dict(step='credit', …)", None),
            ]
        if not show_records:
            assert (await here.client.get(path, params={"contents": True})).status_code == 403
        other = here.stored(7)  # whose kind has none
        (record,) = (await here.get(f"/v1/sessions/{other}"))["record_list"]
        assert record == {"number": 0, "bytes": 15, "shown": None, "base64": None}


async def test_what_a_codec_allows_comes_in_bounded_pages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(documents, "RECORDS_BYTES_MAX", 40)
    async with place(tmp_path) as here:
        path, first, sizes = f"/v1/sessions/{with_codec(here, handlers.STEPS)}", 0, []
        while first is not None:
            page = await here.get(path, first_record=first)
            sizes.append([record["number"] for record in page["record_list"]])
            first = page["next_record"]
        assert sizes == [[0, 1], [2]]
        assert (await here.get(path, first_record=3))["record_list"] == []


@pytest.mark.parametrize(
    ("sizes", "first", "sizes_only", "numbers", "after"),
    [
        ([], 0, True, range(0), None),
        ([1] * 1000, 0, True, range(1000), None),
        ([1] * 1001, 0, True, range(1000), 1000),
        ([1] * 1001, 1000, True, range(1000, 1001), None),
        ([1] * 3, 10**30, True, range(0), None),
        ([1 << 20, 1, 1], 0, True, range(3), None),
        ([1 << 20, 1, 1], 0, False, range(1), 1),
        ([1, (1 << 20) - 1, 1], 0, False, range(2), 2),
    ],
)
def test_a_page_of_records(sizes: list[int], first: int, sizes_only: bool, numbers: range, after: int | None) -> None:
    page = documents.page([bytes(size) for size in sizes], first, sizes_only=sizes_only)
    assert page == (numbers, after)  # empty ranges are all equal


async def test_a_codec_that_fails_is_told_once_and_without_the_record(tmp_path: Path) -> None:
    async with place(tmp_path) as here:
        path = f"/v1/sessions/{with_codec(here, handlers.BROKEN)}"
        with capture_logs() as logged:
            for _ in range(2):
                shown = [record["shown"] for record in (await here.get(path))["record_list"]]
                assert shown == [
                    "32 bytes, the codec failed to show them: ValueError",
                    "6 bytes, not readable by the codec",
                    "31 bytes, the codec failed to show them: ValueError",
                ]
        (told,) = logged
        assert (told["event"], told["kind"], told["error"]) == ("a codec failed to show records", "mail", "ValueError")
        assert "tests/admin/handlers.py:" in told["place"]
        assert "hidden" not in str(logged)
        with_codec(here, Json(show=handlers.BROKEN.encode))  # type: ignore[arg-type] # another one that fails
        with capture_logs() as logged:
            await here.get(path)
        assert [told["error"] for told in logged] == ["TypeError"]


async def test_a_codec_that_never_answers_holds_up_nobody_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(showing, "WAIT_S", 0.05)
    async with place(tmp_path) as here:
        hanging = handlers.Never()
        path = f"/v1/sessions/{with_codec(here, hanging)}"
        with capture_logs() as logged:
            both = await asyncio.gather(here.get(path), here.get(path))
            assert (await here.get("/v1/overview"))["kinds"]
        for session in both:
            assert session["record_list"][1]["shown"] == "6 bytes, the codec takes too long to show them"
        assert [told["error"] for told in logged] == ["no answer within 0.05 s"]
        names = [thread.name for thread in threading.enumerate()]
        assert names.count("truba codec mail") == 1  # however many ask
        monkeypatch.undo()
        with_codec(here, handlers.STEPS)  # as a reload would
        assert (await here.get(path))["record_list"][0]["shown"] == "dict(step='debit', …)"
        with_codec(here, hanging)
        hanging.over.set()
        assert (await here.get(path))["record_list"][0]["shown"] == "at last"  # it has its thread back


async def test_many_who_look_wait_for_each_other(tmp_path: Path) -> None:
    async with place(tmp_path) as here:
        path = f"/v1/sessions/{with_codec(here, handlers.STEPS)}"
        for session in await asyncio.gather(*(here.get(path) for _ in range(20))):
            assert session["record_list"][0]["shown"] == "dict(step='debit', …)"


async def test_who_is_not_there(tmp_path: Path) -> None:
    async with place(tmp_path) as here:
        assert (await here.get("/v1/sessions/1-99", 404))["code"] == "NOSESSION"
        assert (await here.get("/v1/sessions/nonsense", 400))["code"] == "ERR"
        assert (await here.get("/v1/nothing", 404))["type"] == "about:blank"
        assert (await here.client.post("/v1/health")).status_code == 405


async def test_damage_found_by_a_look_stops_the_pipe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with place(tmp_path) as here:
        index = here.stored()

        def damaged(*_: object) -> None:
            raise DataDamaged("not what was written")

        monkeypatch.setattr(Machine, "records", damaged)
        assert "the pipe stops" in (await here.get(f"/v1/sessions/{index}", 503))["detail"]
        assert here.node.failed.done()
        assert (await here.get("/v1/overview", 503))["code"] == "UNAVAILABLE"


async def test_the_scrape_is_the_table_of_metrics(tmp_path: Path) -> None:
    async with place(tmp_path) as here:
        here.pulse.beat(0.0)
        await here.parked(3)
        here.stored(8, 0)
        await here.world.durable()
        here.node.refusals["BUSY"] += 2
        for accept in ("text/plain", "application/openmetrics-text; version=1.0.0"):
            text = (await here.client.get("/v1/metrics", headers={"accept": accept})).text
            scraped = {line.partition(" ")[0].partition("{")[0] for line in text.splitlines() if line[0] != "#"}
            assert scraped == {name for metric in METRICS for name in series(metric)}
        text = (await here.client.get("/v1/metrics")).text
        families = {family.name: family for family in text_string_to_metric_families(text)}
        for metric in METRICS:
            family = families[metric.name.removesuffix("_total")]
            assert (family.type, family.documentation) == (metric.sort, metric.meaning)
            assert {key for sample in family.samples for key in sample.labels} - {"le"} == set(metric.labels)
        for line in (
            'truba_sessions{kind="transfer",phase="parked"} 3.0',
            'truba_delivery_outcomes_total{kind="transfer",outcome="failed"} 3.0',
            'truba_deliveries_total{kind="mail"} 1.0',
            'truba_handlers_busy{kind="mail"} 1.0',
            'truba_refusals_total{code="BUSY"} 2.0',
            'truba_limits_hit_total{limit="connections_max"} 4.0',
            'truba_rejections_total{cause="connection refused",door="clients"} 4.0',
            'truba_events_total{event="Created"} 4.0',
            'truba_events_total{event="Parked"} 3.0',
            "truba_last_backup_timestamp_seconds 1.7000000005e+09",
        ):
            assert line in text, line


async def test_openapi_has_every_route_and_each_answer_its_model(tmp_path: Path) -> None:
    async with place(tmp_path) as here:
        document = await here.get("/openapi.json")
        assert len(document["paths"]) >= 17
        for path, methods in document["paths"].items():
            for method, told in methods.items():
                assert path.startswith("/v1/")
                ok = next(code for code in told["responses"] if code.startswith("2"))
                if path not in ("/v1/metrics", "/v1/configuration"):
                    assert told["responses"][ok]["content"]["application/json"]["schema"], (method, path)
        assert await here.get("/v1/configuration") == {"node": {"data": "data"}}
