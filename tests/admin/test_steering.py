"""Changes: what each does, that it is durable and in the audit log before it is answered, and how refusals are told."""

from __future__ import annotations

import asyncio
import errno
import json
import os
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest

from tests.admin.support import Place, place
from tests.client.inprocess import until
from truba.admin import documents, jobs
from truba.audit import AuditFile
from truba.errors import Unavailable
from truba.machine.events import Parked
from truba.testing.jump import JumpClock
from truba.types import Cause, Phase


async def change(here: Place, method: str, path: str, status: int = 200, **body: Any) -> Any:
    answer = await here.client.request(method, path, **({"json": body} if body else {}))
    assert answer.status_code == status, answer.text
    return answer.json()


async def test_resume_deliver_due_and_delete(tmp_path: Path) -> None:
    async with place(tmp_path) as here:
        here.world.route(7).up = here.world.route(8).up = False
        here.node.operators.pause(8, True)
        index, other, gone = here.stored(7), here.stored(8), here.stored(7)
        now_ms = here.world.clock.now_ms()
        done = documents.Done.model_validate(await change(here, "POST", f"/v1/sessions/{index}/resume"))
        assert (done.done, done.paused) == ("resume", False)
        head = here.node.look_up(index)
        assert (head.due_ms, head.cause) == (now_ms, "resumed")
        done = documents.Done.model_validate(await change(here, "POST", f"/v1/sessions/{other}/deliver"))
        assert done.paused
        assert (here.node.look_up(other).due_ms, here.node.look_up(other).cause) == (now_ms, "stored")
        await change(here, "PUT", f"/v1/sessions/{other}/due", in_s=1.5)
        assert here.node.look_up(other).due_ms == now_ms + 1500
        await change(here, "PUT", f"/v1/sessions/{other}/due", at_ms=now_ms + 99)
        assert here.node.look_up(other).due_ms == now_ms + 99
        await change(here, "DELETE", f"/v1/sessions/{gone}")
        assert here.node.machine.get(gone.seq) is None
        assert [(line["act"], line["on"], line["result"]) for line in here.audit()] == [
            (act, f"session {on}", result)
            for act, on in (
                ("resume", index), ("deliver now", other), (f"change due to {now_ms + 1500}", other),
                (f"change due to {now_ms + 99}", other), ("delete", gone),
            )
            for result in ("asked", "done")
        ]  # fmt: skip
        assert {line["who"] for line in here.audit()} == {"local"}
        assert here.audit()[0]["at"].startswith("20")


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ({"in_s": 1, "at_ms": 2}, "one of them"),
        ({"nonsense": 1}, "nonsense"),
        ({"in_s": -1}, "in_s"),
        ({"in_s": "1e400"}, "in_s"),
        ({"in_s": 10**9}, "in_s"),
        ({"at_ms": 10**15}, "ten years"),
        ({"at_ms": 1.5}, "at_ms"),
    ],
)
async def test_a_due_time_that_makes_no_sense(tmp_path: Path, body: dict[str, Any], said: str) -> None:
    async with place(tmp_path) as here:
        problem = await change(here, "PUT", f"/v1/sessions/{here.stored()}/due", 400, **body)
        assert said in problem["detail"]
        assert not here.audit_path.exists()


async def test_refusals_change_nothing_and_are_in_the_audit_log(tmp_path: Path) -> None:
    async with place(tmp_path) as here:
        held = here.node.new(here.node.presence.attach(), 7, [b"x"]).id
        (parked,) = await here.parked()
        seq = here.node.machine.seq
        for method, path in (("POST", "resume"), ("POST", "deliver"), ("DELETE", "")):
            assert (await change(here, method, f"/v1/sessions/{held}/{path}".rstrip("/"), 409))["code"] == "BUSY"
        assert "resume it" in (await change(here, "POST", f"/v1/sessions/{parked}/deliver", 409))["detail"]
        gone = await change(here, "POST", "/v1/sessions/1-9999/resume", 404)
        assert (gone["happened"], gone["detail"].partition("; ")[2]) == ("no", "nothing was changed")
        assert (await change(here, "POST", "/v1/kinds/9/pause", 404))["code"] == "UNKNOWNKIND"
        assert here.node.machine.seq == seq
        assert here.results() == ["asked", "refused"] * 5


async def test_pause_and_continue(tmp_path: Path) -> None:
    async with place(tmp_path) as here:
        documents.Paused.model_validate(await change(here, "POST", "/v1/kinds/mail/pause"))
        here.stored(8, 0)
        await here.world.durable()
        assert not here.world.route(8).given
        assert (await here.get("/v1/kinds/8"))["paused"]
        await change(here, "POST", "/v1/kinds/8/continue")
        await here.world.durable()
        assert len(here.world.route(8).given) == 1
        assert [line["act"] for line in here.audit()] == ["pause", "pause", "continue", "continue"]


async def test_nothing_is_changed_without_an_audit_log(tmp_path: Path) -> None:
    async with place(tmp_path, audit="missing/audit.jsonl") as here:
        index = here.stored()
        problem = await change(here, "DELETE", f"/v1/sessions/{index}", 503)
        assert "audit log" in problem["detail"]
        assert "nothing was changed" in problem["detail"]
        await change(here, "POST", "/v1/kinds/7/pause", 503)
        assert here.node.look_up(index)
        assert not here.node.dispatcher.lanes[7].paused


async def test_a_change_whose_result_cannot_be_recorded_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with place(tmp_path) as here:
        index = here.stored()
        lines = 0
        write = AuditFile._append  # noqa: SLF001

        def full(self: AuditFile, line: bytes) -> None:
            nonlocal lines
            lines += 1
            if lines > 1:
                raise OSError(28, "No space left on device")
            write(self, line)

        monkeypatch.setattr(AuditFile, "_append", full)
        problem = await change(here, "DELETE", f"/v1/sessions/{index}", 500)
        assert problem["happened"] == "unknown"
        assert "it ended as 'done'" in problem["detail"]
        assert here.results() == ["asked"]


async def test_the_answer_waits_for_the_disk_and_an_unknown_outcome_is_told(tmp_path: Path) -> None:
    async with place(tmp_path) as here:
        index = here.stored()
        await here.world.durable()
        here.world.log.held = True
        asking = asyncio.create_task(here.client.delete(f"/v1/sessions/{index}"))
        await until(lambda: here.node.machine.get(index.seq) is None)
        assert here.results() == ["asked"]
        assert not asking.done()
        here.node.give_up(RuntimeError("the disk is gone"))
        answer = await asking
        assert answer.json()["code"] == "UNKNOWN"
        assert here.results() == ["asked", "unknown"]


async def test_who_hangs_up_does_not_undo_the_audit(tmp_path: Path) -> None:
    async with place(tmp_path) as here:
        index = here.stored()
        await here.world.durable()
        here.world.log.held = True
        asking = asyncio.create_task(here.client.delete(f"/v1/sessions/{index}"))
        await until(lambda: here.node.machine.get(index.seq) is None)
        asking.cancel()
        here.world.log.held = False  # what is not with the log yet is not held either
        here.world.log.release()
        await until(lambda: here.results() == ["asked", "done"])


async def test_the_audit_log_may_be_renamed_at_any_time(tmp_path: Path) -> None:
    log = AuditFile(tmp_path / "audit.jsonl", JumpClock())
    await log.asked(act="one")
    (tmp_path / "audit.jsonl").rename(tmp_path / "audit.jsonl.1")
    await log.ended("done", act="one")
    await log.close()
    assert (tmp_path / "audit.jsonl.1").read_text().endswith('"act":"one","result":"asked"}\n')
    assert (tmp_path / "audit.jsonl").read_text().endswith('"act":"one","result":"done"}\n')
    assert (tmp_path / "audit.jsonl").stat().st_mode & 0o777 == 0o600


async def test_a_line_that_was_cut_off_does_not_spoil_the_next(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write = os.write
    room = 40

    def full(fd: int, data: memoryview) -> int:
        nonlocal room
        if not room:
            raise OSError(errno.ENOSPC, "No space left on device")
        wrote = write(fd, data[:room])
        room -= wrote
        return wrote

    log = AuditFile(tmp_path / "audit.jsonl", JumpClock())
    with monkeypatch.context() as patch:
        patch.setattr(os, "write", full)
        with pytest.raises(Unavailable, match="No space left"):
            await log.asked(act="one")
    await log.asked(act="two")
    await log.ended("done", act="two")
    await log.close()
    torn, *lines = (tmp_path / "audit.jsonl").read_text().splitlines()
    assert len(torn) == 40
    assert [(line["act"], line["result"]) for line in map(json.loads, lines)] == [("two", "asked"), ("two", "done")]


async def test_a_defect_is_written_down_as_one_whose_outcome_nobody_knows(tmp_path: Path) -> None:
    """An act that was asked for and has no result would mean that the process crashed."""

    async def do() -> None:
        raise ValueError("a handler module of somebody's own")

    log = AuditFile(tmp_path / "audit.jsonl", JumpClock())
    with pytest.raises(ValueError, match="somebody's own"):
        await log.audited(do, act="reload")
    await log.close()
    results = [json.loads(line)["result"] for line in (tmp_path / "audit.jsonl").read_text().splitlines()]
    assert results == ["asked", """unknown: ValueError("a handler module of somebody's own")"""]


async def job_ended(here: Place, job_id: str) -> documents.Job:
    while True:
        job = documents.Job.model_validate(await here.get(f"/v1/jobs/{job_id}"))
        if job.state != "running":
            return job
        await asyncio.sleep(0)


async def test_all_parked_of_a_kind_are_resumed_in_slices(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jobs, "SLICE", 16)
    monkeypatch.setattr(jobs, "RESUMED_AT_ONCE", 8)
    async with place(tmp_path) as here:
        other = here.stored(8)
        here.node.sequencer.stage(Parked(other.seq, Cause.FAILED))
        parked = await here.parked(40)
        here.world.route(7).up = False
        turns = 0

        async def count() -> None:
            nonlocal turns
            while True:
                turns += 1
                await asyncio.sleep(0)

        counting = asyncio.create_task(count())
        job = documents.Job.model_validate(await change(here, "POST", "/v1/kinds/7/resume", 202))
        assert (job.state, job.expected) == ("running", 40)
        assert (await change(here, "POST", "/v1/kinds/transfer/resume", 409))["code"] == "BUSY"
        ended = await job_ended(here, job.id)
        counting.cancel()
        assert (ended.state, ended.resumed, ended.refused) == ("done", 40, 0)
        assert turns >= 10
        assert all(here.node.look_up(index).phase is Phase.STORED for index in parked)
        assert here.node.look_up(other).phase is Phase.PARKED
        assert documents.Jobs.model_validate(await here.get("/v1/jobs")).jobs == [ended]
        for _ in range(2_000):  # it is told of when it has ended, on a thread
            if len(here.audit()) == 2:
                break
            await asyncio.sleep(0.005)
        assert [line["result"] for line in here.audit()] == ["asked", "done: 40 resumed, 0 refused"]


async def test_two_who_ask_for_the_same_at_once_are_both_written_down_to_the_end(tmp_path: Path) -> None:
    async with place(tmp_path) as here:
        await here.parked(3)
        here.world.route(7).up = False
        here.world.log.held = True  # or the first one might be done by then
        asked = [here.client.request("POST", "/v1/kinds/7/resume") for _ in range(2)]
        answers = {answer.status_code: answer.json() for answer in await asyncio.gather(*asked)}
        assert answers.keys() == {202, 409}
        here.world.log.held = False
        here.world.log.release()
        await job_ended(here, answers[202]["id"])
        await until(lambda: sorted(here.results()) == ["asked", "asked", "done", "refused"])


async def test_a_job_can_be_cancelled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jobs, "SLICE", 4)
    monkeypatch.setattr(jobs, "RESUMED_AT_ONCE", 4)
    async with place(tmp_path) as here:
        await here.parked(200)
        here.world.route(7).up = False
        here.world.log.held = True
        job = await change(here, "POST", "/v1/kinds/7/resume", 202)
        await until(lambda: here.node.sequencer.latest is not None)
        await change(here, "DELETE", f"/v1/jobs/{job['id']}")
        here.world.log.held = False
        here.world.log.release()
        ended = await job_ended(here, job["id"])
        assert ended.state == "cancelled"
        assert 0 < ended.resumed < 200
        assert (await here.get("/v1/jobs/none", 404))["code"] == "NOSESSION"


async def test_a_job_that_the_pipe_outlives_not_says_how_far_it_came(tmp_path: Path) -> None:
    async with place(tmp_path) as here:
        await here.parked(3)
        here.world.route(7).up = False
        here.world.log.held = True
        job = await change(here, "POST", "/v1/kinds/7/resume", 202)
        await until(lambda: here.node.sequencer.latest is not None)
        here.node.give_up(RuntimeError("the disk is gone"))
        ended = await job_ended(here, job["id"])
        assert ended.state == "failed"
        assert "unknown" in ended.detail


async def test_a_job_that_meets_a_store_that_cannot_be_read_has_failed_and_keeps_no_other_away(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with place(tmp_path) as here:
        heard: list[object] = []
        asyncio.get_running_loop().set_exception_handler(lambda _, context: heard.append(context["exception"]))
        await here.parked(3)
        here.world.route(7).up = False
        broken = OSError("the store cannot be read")
        with monkeypatch.context() as patched:
            patched.setattr(here.node.machine, "page", Mock(side_effect=broken))
            job = await change(here, "POST", "/v1/kinds/7/resume", 202)
            ended = await job_ended(here, job["id"])
        assert (ended.state, ended.detail) == ("failed", "the store cannot be read")
        assert heard == [broken]
        again = await change(here, "POST", "/v1/kinds/7/resume", 202)
        assert (await job_ended(here, again["id"])).resumed == 3
