"""The result as tables, for a terminal and for the marks of a page. Pure, but for `rewrite`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from bench.scale.pauses import Late
from bench.scale.results import Result, Step, verdicts
from truba.errors import ConfigError

BEGIN, END = "<!-- make scale: begin -->", "<!-- make scale: end -->"

STEP_COLUMNS = (
    "stored sessions",
    "memory, filling MiB",
    "memory, resting MiB",
    "stored/s",
    "ready s",
    "new work op/s",
    "of empty",
    "loop CPU, of empty",
    "next due p99.9 ms",
    "max ms",
    "handed over/s",
    "to a service/s",
    "log MiB",
    "store MiB",
)


def step_row(step: Step) -> tuple[str, ...]:
    return (
        f"{step.sessions:,}",
        f"{step.memory_mib:,.0f}",
        f"{step.rest_mib:,.0f}",
        f"{step.stored_per_s:,.0f}" if step.sessions else "",
        f"{step.ready_s:.2f}",
        f"{step.work_per_s:,.0f}",
        f"{step.work_ratio:.2f}",
        f"{step.loop_ratio:.2f}",
        f"{step.due_p999_ms:.3f}",
        f"{step.due_max_ms:.2f}",
        f"{step.local_per_s:,.0f}" if step.sessions else "",
        f"{step.service_per_s:,.0f}" if step.sessions else "",
        f"{step.log_bytes / 2**20:,.0f}",
        f"{step.store_bytes / 2**20:,.0f}",
    )


def late(found: Late) -> str:
    return f"{found.p50_ms:.2f} / {found.p99_ms:.1f} / {found.p999_ms:.1f} / {found.max_ms:.1f} ms"


def cases(result: Result) -> Iterator[tuple[str, str]]:
    """What was measured besides, a line each. Pauses are p50 / p99 / p99.9 / max."""
    if (o := result.owners) is not None:
        yield f"{o.connections:,} connections with a name and a session", f"{o.bytes_each:,.0f} bytes each"
        yield "100,000 of them, by that figure", f"{o.bytes_each * 100_000 / 2**20:,.0f} MiB"
        yield "opened, named, a session begun", f"{o.opened_per_s:,.0f}/s"
        yield "one append after the other on each", f"{o.operations_per_s:,.0f}/s"
        yield "longest PING meanwhile, and while all broke", f"{o.ping_max_ms:,.0f} ms"
        yield "all broke: until all sessions were stored, grace of 1 s included", f"{o.lost_s:.2f} s"
    if (a := result.active) is not None:
        yield f"{a.sessions:,} active sessions", f"{a.bytes_each:,.0f} bytes each, opened at {a.opened_per_s:,.0f}/s"
        yield "pauses, 64 clients at work beside them", late(a.work_late)
        yield "last checkpoint", f"{a.checkpoint_s:.2f} s"
        yield "their owner lost", f"{a.lost_s:.1f} s until all were stored, 64 clients at work meanwhile"
        yield "pauses meanwhile", late(a.lost_late)
        yield "after kill -9: ready, all given back", f"{a.ready_s:.1f} s"
    if (n := result.long) is not None:
        yield f"a session of {n.records:,} records: appends, first tenth", f"{n.per_s[0]:,.0f}/s"
        yield "last tenth", f"{n.per_s[-1]:,.0f}/s"
        yield "its hand-over", f"{n.repeat_ms:,.1f} ms"
    if (g := result.large) is not None:
        yield f"{g.records:,} records of {g.record_bytes >> 20} MiB", f"{g.mib_per_s:,.0f} MiB/s"
        yield "memory grown", f"{g.memory_mib:,.0f} MiB"
    if (s := result.steady) is not None:
        yield "full load, 64 clients in process, every other session stored", f"{s.operations_per_s:,.0f} operations/s"
        yield (
            f"in {s.seconds:.0f} s",
            f"{s.checkpoints} checkpoints, {s.stored:,} sessions stored, {s.log_bytes >> 20:,} MiB of log",
        )
        yield "pauses of the loop", late(s.late)


def goals(result: Result) -> list[tuple[str, str, str]]:
    return [(each.goal, each.found, "yes" if each.met else "NO") for each in verdicts(result)]


def origin(result: Result) -> str:
    named = ", ".join(f"{name} {value}" for name, value in result.machine.items())
    return f"Measured {result.taken} at commit {result.commit}: {named}."


def markdown(result: Result) -> str:
    parts = [origin(result), table(("goal", "found", "met"), goals(result))]
    if result.steps:
        parts.append(table(STEP_COLUMNS, [step_row(step) for step in result.steps]))
    parts.append(table(("what", "result"), list(cases(result))))
    return "\n\n".join(parts)


def table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [columns, ["---"] * len(columns), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def rewrite(page: Path, text: str) -> None:
    """Put `text` between the page's marks. ConfigError when it has none."""
    before, begin, rest = page.read_text().partition(BEGIN)
    _, end, after = rest.partition(END)
    if not (begin and end):
        raise ConfigError(f"{page} has no place for the result: write {BEGIN} and {END} where it belongs")
    page.write_text(f"{before}{begin}\n{text}\n{end}{after}")
