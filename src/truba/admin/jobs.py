"""Work on many sessions, done in slices while everybody else is served, with its progress to be asked for.

A job is this process's own: it ends with it. What it has done so far is durable, and doing it again does no harm.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from dataclasses import dataclass
from typing import Literal

from truba.admin.subject import Subject
from truba.errors import Busy, NoSession, TrubaError
from truba.node.node import Node
from truba.ports.audit import AuditLog
from truba.types import Phase

SLICE = 256
"""Sessions looked at in one turn of the loop."""

RESUMED_AT_ONCE = 256
"""Staged before they are waited for: a few milliseconds of the log."""

KEPT = 32
"""Jobs that are remembered, the oldest forgotten first; those that run always are."""


@dataclass
class ResumeJob:
    """Resumes all parked sessions of one kind."""

    id: str
    kind: int
    expected: int
    state: Literal["running", "done", "cancelled", "failed"] = "running"
    looked_at: int = 0
    resumed: int = 0
    refused: int = 0
    detail: str = ""


class Jobs:
    def __init__(self, subject: Subject, audit: AuditLog) -> None:
        self._subject = subject
        self._audit = audit
        self._jobs: OrderedDict[str, ResumeJob] = OrderedDict()
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._count = 0

    def all(self) -> list[ResumeJob]:
        """The newest first."""
        return list(reversed(self._jobs.values()))

    def get(self, job_id: str) -> ResumeJob:
        """NoSession when it is forgotten, or never was."""
        job = self._jobs.get(job_id)
        if job is None:
            raise NoSession(f"no job {job_id[:64]!r}: it is forgotten, or never was; nothing was changed")
        return job

    def refuse_second(self, kind: int) -> None:
        """Busy: one of this kind runs already."""
        for job in self._jobs.values():
            if job.kind == kind and job.state == "running":
                raise Busy(f"job {job.id} resumes this kind's sessions already; nothing was changed")

    def resume_parked(self, node: Node, kind: int, who: dict[str, str]) -> ResumeJob:
        """Begin. Busy: one of this kind runs already. `who`: for the audit log, which is told how it ended."""
        self.refuse_second(kind)
        self._count += 1
        job = ResumeJob(f"{node.machine.term}.{self._count}", kind, node.machine.counts[kind, Phase.PARKED])
        self._jobs[job.id] = job
        self._forget()
        task = asyncio.get_running_loop().create_task(self._run(node, job, who), name=f"admin job {job.id}")
        self._tasks[job.id] = task
        task.add_done_callback(lambda _: self._tasks.pop(job.id))
        return job

    def cancel(self, job_id: str) -> ResumeJob:
        """What is resumed stays so."""
        job = self.get(job_id)
        if (task := self._tasks.get(job_id)) is not None:
            task.cancel()
        return job

    async def stop(self) -> None:
        tasks = list(self._tasks.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _forget(self) -> None:
        for job_id in [job.id for job in self._jobs.values() if job.state != "running"][: len(self._jobs) - KEPT]:
            del self._jobs[job_id]

    async def _run(self, node: Node, job: ResumeJob, who: dict[str, str]) -> None:
        try:
            await self._resume(node, job)
            job.state = "done"
        except asyncio.CancelledError:
            job.state = "cancelled"
        except Exception as error:  # whatever it is: one that runs for ever would keep the next one away
            job.state, job.detail = "failed", str(error) or repr(error)
            if not isinstance(error, TrubaError):  # a store that cannot be read, or a fault of ours
                asyncio.get_running_loop().call_exception_handler(
                    {"message": f"job {job.id} failed", "exception": error}
                )
        result = f"{job.state}: {job.resumed} resumed, {job.refused} refused"
        await self._audit.ended(result, **who, act="resume all parked", on=f"kind {job.kind}")

    async def _resume(self, node: Node, job: ResumeJob) -> None:
        """Through all sessions once: those that fail again meanwhile and are parked anew are left alone."""
        at: int | None = 0
        through = node.machine.seq
        staged = 0
        while at is not None and at < through:
            heads, at = node.machine.page(at, SLICE)
            for head in heads:
                job.looked_at += 1
                if head.kind != job.kind or head.phase is not Phase.PARKED or head.order > through:
                    continue
                try:
                    node.operators.resume(head.id)
                except (NoSession, Busy):  # changed while the last ones were waited for
                    job.refused += 1
                    continue
                job.resumed += 1
                staged += 1
            if staged >= RESUMED_AT_ONCE or at is None:
                await node.sequencer.flush()
                staged = 0
            else:
                await asyncio.sleep(0)
        await node.sequencer.flush()
