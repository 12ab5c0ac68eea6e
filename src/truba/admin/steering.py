"""Changes. Each is asked for in the audit log, made durable, told in the audit log again, and then answered."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import asdict
from typing import Annotated, Any, TypeVar

from fastapi import APIRouter, Body, Request
from fastapi.responses import Response
from pydantic import BaseModel, ConfigDict, Field

from truba.admin import documents
from truba.admin.jobs import Jobs
from truba.admin.looking import find_kind, parse_id, say
from truba.admin.subject import Settings, Subject
from truba.errors import BadRequest, Busy, ConfigError
from truba.node.operators import UNCHANGED, Operators
from truba.ports.audit import AuditLog
from truba.session import STORE_SECONDS_MAX
from truba.types import Index

T = TypeVar("T")


class Due(BaseModel):
    """One of the two."""

    model_config = ConfigDict(extra="forbid")
    in_s: Annotated[float | None, Field(ge=0, le=STORE_SECONDS_MAX, allow_inf_nan=False)] = None
    at_ms: Annotated[int | None, Field(ge=0)] = None
    """Milliseconds since 1970."""


def router(subject: Subject, settings: Settings, audit: AuditLog, jobs: Jobs) -> APIRouter:
    routes = APIRouter(prefix="/v1")
    now_ms = subject.clock.now_ms
    problems: dict[int | str, dict[str, Any]] = {
        code: {"model": documents.Problem} for code in (400, 401, 403, 404, 409, 500, 503)
    }

    def who(request: Request) -> dict[str, str]:
        return {"who": request.state.who, "peer": request.state.peer}

    async def audited(request: Request, act: str, on: str, do: Callable[[], Awaitable[T]]) -> T:
        return await audit.audited(do, **who(request), act=act, on=on)

    async def on_session(request: Request, text: str, act: str, do: Callable[[Operators, Index], None]) -> Response:
        index = parse_id(text)
        node = subject.node()

        async def durably() -> bool:
            paused = node.look_up(index, UNCHANGED).kind in node.machine.paused
            do(node.operators, index)
            await node.sequencer.flush()
            return paused

        paused = await audited(request, act, f"session {index}", durably)
        return say({"id": str(index), "done": act, "paused": paused})

    @routes.post("/sessions/{session_id}/resume", response_model=documents.Done, responses=problems, tags=["sessions"])
    async def resume(request: Request, session_id: str) -> Response:
        """Parked or stored: due at once, its attempts and its age counted anew."""
        return await on_session(request, session_id, "resume", Operators.resume)

    @routes.post("/sessions/{session_id}/deliver", response_model=documents.Done, responses=problems, tags=["sessions"])
    async def deliver(request: Request, session_id: str) -> Response:
        """Stored: due at once; its attempts and its age go on."""
        return await on_session(
            request, session_id, "deliver now", lambda operators, index: operators.reschedule(index, now_ms())
        )

    @routes.put("/sessions/{session_id}/due", response_model=documents.Done, responses=problems, tags=["sessions"])
    async def change_due(request: Request, session_id: str, due: Annotated[Due, Body()]) -> Response:
        """Stored: handed over then, sooner or later; its attempts and its age go on."""
        if (due.in_s is None) == (due.at_ms is None):
            raise BadRequest("give in_s or at_ms, one of them; nothing was changed")
        at_ms = now_ms() + round((due.in_s or 0) * 1000) if due.at_ms is None else due.at_ms
        if at_ms > now_ms() + STORE_SECONDS_MAX * 1000:
            raise BadRequest("that is more than ten years from now; nothing was changed")
        return await on_session(
            request, session_id, f"change due to {at_ms}", lambda operators, index: operators.reschedule(index, at_ms)
        )

    @routes.delete("/sessions/{session_id}", response_model=documents.Done, responses=problems, tags=["sessions"])
    async def delete(request: Request, session_id: str) -> Response:
        """Stored or parked: gone with all its records, for good."""
        return await on_session(request, session_id, "delete", Operators.remove)

    async def pause_kind(request: Request, text: str, on: bool) -> Response:
        node = subject.node()
        number = find_kind(node, text)

        async def durably() -> None:
            node.operators.pause(number, on)
            await node.sequencer.flush()

        await audited(request, "pause" if on else "continue", f"kind {number}", durably)
        return say({"kind": number, "name": node.kinds[number].name, "paused": on})

    @routes.post("/kinds/{kind}/pause", response_model=documents.Paused, responses=problems, tags=["kinds"])
    async def pause(request: Request, kind: str) -> Response:
        """Hand over nothing more of a kind until it is continued, whatever restarts. Clients notice nothing; what
        handlers hold they may finish."""
        return await pause_kind(request, kind, True)

    @routes.post("/kinds/{kind}/continue", response_model=documents.Paused, responses=problems, tags=["kinds"])
    async def go_on(request: Request, kind: str) -> Response:
        return await pause_kind(request, kind, False)

    @routes.post(
        "/kinds/{kind}/resume", response_model=documents.Job, responses=problems, status_code=202, tags=["kinds"]
    )
    async def resume_kind(request: Request, kind: str) -> Response:
        """Resume all parked sessions of a kind. Goes on by itself; ask for the job's progress."""
        node = subject.node()
        number = find_kind(node, kind)
        jobs.refuse_second(number)
        by = who(request)
        await audit.asked(**by, act="resume all parked", on=f"kind {number}")
        try:
            job = jobs.resume_parked(node, number, by)
        except Busy as error:  # somebody else asked in the same moment, and was written down first
            await audit.ended(f"refused: {error}", **by, act="resume all parked", on=f"kind {number}")
            raise
        return say(asdict(job), 202)

    @routes.get("/jobs", response_model=documents.Jobs, tags=["kinds"])
    async def all_jobs() -> Response:
        """Those that run, and the last ones that ended; the newest first."""
        return say({"jobs": [asdict(job) for job in jobs.all()]})

    @routes.get("/jobs/{job_id}", response_model=documents.Job, responses=problems, tags=["kinds"])
    async def one_job(job_id: str) -> Response:
        return say(asdict(jobs.get(job_id)))

    @routes.delete("/jobs/{job_id}", response_model=documents.Job, responses=problems, tags=["kinds"])
    async def cancel(request: Request, job_id: str) -> Response:
        """Stop a job; what it has resumed stays resumed."""
        job = jobs.get(job_id)

        async def stop() -> None:
            jobs.cancel(job_id)

        await audited(request, "cancel", f"job {job.id}", stop)
        return say(asdict(job))

    @routes.post("/configuration/reload", response_model=documents.Reload, responses=problems, tags=["node"])
    async def reload(request: Request, apply: bool = True) -> Response:
        """Take what the configuration's file says now, all of it or nothing. `apply=false`: only say what would
        change, and how many sessions of which kinds that touches."""
        if settings.reload is None:
            raise BadRequest("this pipe was started without a file to read again; nothing was changed")
        take = settings.reload

        async def do() -> dict[str, Any]:
            try:
                return documents.reload(await take(apply=apply))
            except ConfigError as error:
                raise BadRequest(f"{error}; nothing was changed") from error

        if not apply:
            return say(await do())
        return say(await audited(request, "reload", "configuration", do))

    return routes
