"""The measurements in order, each in a process of its own, on one disk."""

from __future__ import annotations

import resource
import subprocess
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from shutil import rmtree
from typing import Any

import msgspec

from bench.scale import child
from bench.scale.results import Active, Large, Long, Owners, Result, Steady, Step
from bench.scale.serving import served
from truba.bench.machine import facts, filesystem

CASES = ("stored", "owners", "active", "long", "large", "steady")


@dataclass(frozen=True, slots=True)
class Plan:
    """How much of everything."""

    steps: tuple[int, ...]
    seconds: float  # of each turn of work
    turns: int
    due: int  # sessions handed over at each step, to each kind of handler
    connections: int
    active: int
    records: int  # of one session
    large: int  # records of 1 MiB
    steady_s: float
    cases: tuple[str, ...] = CASES


def steps_to(sessions: int) -> tuple[int, ...]:
    """0, then tens of thousands, and tenfold from there, to `sessions`."""
    found, size = [0], 10_000
    while size < sessions:
        found.append(size)
        size *= 10
    return (*found, sessions) if sessions else (0,)


def full(sessions: int, cases: tuple[str, ...] = CASES) -> Plan:
    return Plan(steps_to(sessions), 3.0, 8, 40_000, 5_000, 1_000_000, 10_000, 512, 60.0, cases)


def quick(sessions: int, cases: tuple[str, ...] = CASES) -> Plan:
    """Seconds, not minutes: shows that it works, and little more."""
    return Plan((0, sessions), 0.1, 1, sessions // 10, 50, 2_000, 100, 16, 0.5, cases)


Tell = Callable[[str, int, int], None]
"""What is done now, how far it is, and how far it goes."""


async def run(plan: Plan, directory: Path, tell: Tell) -> Result:
    """Everything in the plan. TrubaError, OSError."""
    found: dict[str, Any] = {}
    steps = await stored(plan, directory / "stored", tell) if "stored" in plan.cases else []
    for case, measure in (
        ("owners", owners),
        ("active", active),
        ("long", long),
        ("large", large),
        ("steady", steady),
    ):
        if case in plan.cases:
            tell(case, 0, 1)
            place = directory / case
            found[case] = await measure(plan, place, tell)
            rmtree(place, ignore_errors=True)
    return Result(
        datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        commit(),
        facts() | {"disk": filesystem(directory)},
        steps,
        **found,
    )


def commit() -> str:
    """What was measured, with a + where files had changed since."""
    here = Path(__file__).parent
    said = [
        subprocess.run(["git", *words], cwd=here, capture_output=True, text=True, check=False).stdout.strip()
        for words in (["rev-parse", "--short", "HEAD"], ["status", "--porcelain", "--untracked-files=no"])
    ]
    return said[0] + ("+" if said[1] else "")


async def stored(plan: Plan, data: Path, tell: Tell) -> list[Step]:
    """One directory, filled step by step, and looked at after each."""
    steps: list[Step] = []
    rest_of_none = 0.0
    before = 0
    for at, sessions in enumerate(plan.steps):
        size = f"{sessions:,} stored sessions"
        due = min(plan.due, (sessions - before) // 4)
        filled = await child.run(
            "fill",
            lambda done, size=size, sessions=sessions: tell(f"{size}: fill", done, sessions),  # type: ignore[misc]
            data=data,
            before=before,
            after=sessions,
            due=due,
        )
        tell(f"{size}: start", 0, 1)
        with served(data) as pipe:
            ready_s = pipe.ready_s
        tell(f"{size}: new work", 0, 1)
        empty = data.with_name("empty")
        looked = await child.run("look", _nobody, data=data, empty=empty, seconds=plan.seconds, turns=plan.turns)
        rmtree(empty)
        local = service = 0.0
        if due:
            tell(f"{size}: deliveries", 0, 1)
            local = (await child.run("deliver", _nobody, data=data, count=due))["per_s"]
            async with handler_service() as address:
                service = (await child.run("deliver", _nobody, data=data, count=due, service=address))["per_s"]
        if at == 0:
            rest_of_none = looked["rest_mib"]
        looked["rest_mib"] -= rest_of_none
        steps.append(
            Step(sessions=sessions, ready_s=ready_s, local_per_s=local, service_per_s=service, **filled, **looked)
        )
        before = sessions
    rmtree(data)
    return steps


@asynccontextmanager
async def handler_service() -> AsyncIterator[str]:
    """A handler service as a process of its own: its address."""
    async with child.started("service") as process:
        yield f"truba://{(await child.result_of(process, _nobody))['address']}"


async def owners(plan: Plan, data: Path, tell: Tell) -> Owners:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, max(soft, 2 * plan.connections + 1_000)), hard))
    with served(data) as pipe:
        found = await child.run(
            "owners",
            lambda done: tell("owners", done, plan.connections),
            host="127.0.0.1",
            port=pipe.port,
            pid=pipe.pid,
            connections=plan.connections,
            seconds=plan.seconds,
        )
    return msgspec.convert(found, Owners)


async def active(plan: Plan, data: Path, tell: Tell) -> Active:
    def progressed(done: int) -> None:
        tell("active", done, plan.active)

    found = await child.run("active", progressed, data=data, sessions=plan.active, seconds=plan.seconds, die=False)
    rmtree(data)
    await child.run("active", progressed, data=data, sessions=plan.active, seconds=plan.seconds, die=True)
    with served(data) as pipe:
        ready_s = pipe.ready_s
    return msgspec.convert(found | {"ready_s": ready_s}, Active)


async def long(plan: Plan, data: Path, tell: Tell) -> Long:
    return msgspec.convert(await child.run("long", _nobody, data=data, records=plan.records), Long)


async def large(plan: Plan, data: Path, tell: Tell) -> Large:
    return msgspec.convert(await child.run("large", _nobody, data=data, records=plan.large), Large)


async def steady(plan: Plan, data: Path, tell: Tell) -> Steady:
    return msgspec.convert(await child.run("steady", _nobody, data=data, seconds=plan.steady_s), Steady)


def _nobody(done: int) -> None:
    """Too short for a progress bar."""
