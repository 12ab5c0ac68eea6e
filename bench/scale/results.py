"""What is measured, as values, and the goals it is held against. Pure."""

from __future__ import annotations

from collections.abc import Iterator

import msgspec

from bench.scale.pauses import Late, Moment

GOAL_MEMORY_MIB = 400
GOAL_RATIO = 0.9
GOAL_READY_S = 3.0
GOAL_DUE_MS = 1.0
GOAL_LOCAL_PER_S = 20_000
GOAL_SERVICE_PER_S = 5_000
GOAL_PAUSE_MS = 50.0


class Step(msgspec.Struct, frozen=True):
    """A data directory with so many stored sessions."""

    sessions: int
    memory_mib: float  # grown in the process that stored the last of them, at most
    rest_mib: float  # grown in a process that began with them, against one that began with none
    stored_per_s: float  # while it was filled
    ready_s: float  # `truba serve`, from its start to `ready`, after kill -9
    work_per_s: float  # operations of new sessions
    work_ratio: float  # to the same on an empty directory, turn by turn
    due_first_ms: float
    due_p999_ms: float
    due_max_ms: float
    local_per_s: float  # sessions handed over and finished, each event durable
    service_per_s: float
    log_bytes: int
    store_bytes: int
    loop_ratio: float = 1.0  # the loop's processor time for an operation of new work, to that on an empty directory


class Owners(msgspec.Struct, frozen=True):
    connections: int
    bytes_each: float  # of the pipe's memory; each connection has a name and holds a session with one record
    opened_per_s: float
    operations_per_s: float
    ping_max_ms: float  # while they worked, and while all of them broke
    lost_s: float  # from the break of all until all their sessions were stored


class Active(msgspec.Struct, frozen=True):
    sessions: int
    bytes_each: float
    opened_per_s: float
    work_late: Late  # of the loop, under a load beside them
    checkpoint_s: float
    checkpoint_late: Late
    lost_s: float
    lost_late: Late
    ready_s: float  # `truba serve` after kill -9, all of them given back


class Long(msgspec.Struct, frozen=True):
    records: int
    per_s: tuple[float, ...]  # appends, each waited for: by tenths of the session
    repeat_ms: float  # from Store(0) to the handler, all records


class Large(msgspec.Struct, frozen=True):
    record_bytes: int
    records: int
    mib_per_s: float
    memory_mib: float


class Steady(msgspec.Struct, frozen=True):
    seconds: float
    operations_per_s: float
    stored: int
    checkpoints: int
    log_bytes: int  # written, so segments were recycled
    late: Late
    moments: tuple[Moment, ...]


class Result(msgspec.Struct, frozen=True):
    taken: str
    commit: str
    machine: dict[str, str | int]
    steps: list[Step]
    owners: Owners | None = None
    active: Active | None = None
    long: Long | None = None
    large: Large | None = None
    steady: Steady | None = None


class Verdict(msgspec.Struct, frozen=True):
    goal: str
    found: str
    met: bool


def verdicts(result: Result) -> Iterator[Verdict]:
    """Each goal that this result can be held against."""
    if result.steps:
        last = result.steps[-1]
        at = f"at {last.sessions:,} stored sessions"
        yield _under(f"memory {at}, grown", max(last.memory_mib, last.rest_mib), GOAL_MEMORY_MIB, "MiB")
        yield _over(f"new work {at}, of that on an empty directory", last.work_ratio, GOAL_RATIO, "")
        yield _under(f"ready {at}", last.ready_s, GOAL_READY_S, "s")
        yield _under(f"next due found {at}, p99.9", last.due_p999_ms, GOAL_DUE_MS, "ms")
        yield _over(f"deliveries {at}, in process", last.local_per_s, GOAL_LOCAL_PER_S, "/s")
        yield _over(f"deliveries {at}, to a service", last.service_per_s, GOAL_SERVICE_PER_S, "/s")
    if result.steady is not None:
        yield _under("pause of the loop under full load, p99.9", result.steady.late.p999_ms, GOAL_PAUSE_MS, "ms")
    if result.active is not None:
        for what, late in (
            ("work beside", result.active.work_late),
            ("a checkpoint of", result.active.checkpoint_late),
            ("the loss of", result.active.lost_late),
        ):
            yield _under(f"pause in {what} {result.active.sessions:,} active ones", late.p999_ms, GOAL_PAUSE_MS, "ms")


def _under(goal: str, found: float, limit: float, unit: str) -> Verdict:
    return Verdict(f"{goal}: under {limit:,g} {unit}".rstrip(), f"{found:,.3g} {unit}".rstrip(), found < limit)


def _over(goal: str, found: float, limit: float, unit: str) -> Verdict:
    said = f"{found:.3g}" if found < 100 else f"{found:,.0f}"
    return Verdict(f"{goal}: at least {limit:,g}{unit}", said + unit, found >= limit)
