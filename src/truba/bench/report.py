"""A report as tables: for a terminal, and as Markdown between the marks of a page. Pure, but for `rewrite`."""

from __future__ import annotations

from pathlib import Path

from truba.bench.run import Report, Row
from truba.errors import ConfigError

BEGIN, END = "<!-- truba bench: begin -->", "<!-- truba bench: end -->"

COLUMNS = (
    "mode",
    "clients",
    "operations/s",
    "p50 ms",
    "p99 ms",
    "p99 ms, half load",
    "load CPU",
    "pipe us/op",
    "others CPU",
    "disk us",
    "disk syncs/s",
)
NUMERIC = COLUMNS[1:]


def cells(row: Row) -> list[str]:
    """As `COLUMNS`. Pipe us/op: user + system."""
    pipe = "" if row.pipe_user_us is None else f"{row.pipe_user_us:.1f} + {row.pipe_system_us:.1f}"
    return [
        row.mode,
        f"{row.clients}",
        f"{row.rate_per_s:,.0f}",
        f"{row.p50_us / 1000:.2f}",
        f"{row.p99_us / 1000:.2f}",
        "" if row.half_p99_us is None else f"{row.half_p99_us / 1000:.2f}",
        f"{row.load_cpu:.0%}",
        pipe,
        "" if row.others_cpu is None else f"{row.others_cpu:.0%}",
        f"{row.disk_us:.0f}",
        f"{row.disk_rate_per_s:,.0f}",
    ]


def summary(report: Report) -> list[str]:
    """What stands under the table, a line each."""
    machine = report.machine
    versions = ", ".join(f"{name} {machine[name]}" for name in ("truba", "uvloop", "msgspec", "hiredis", "rocksdict"))
    syncs = f"{report.disk_rate_per_s:,.0f}"
    return [
        f"{report.record_bytes}-byte records; New + 3 Append + Delete are 5 operations, each durable before its answer",
        f"{report.seconds:g} s each, in {report.rounds} rounds, warm-up apart; rates are medians of the rounds",
        f"disk alone ({report.filesystem}): write + fdatasync of 4 KiB {report.disk_us:.0f} us, {syncs} a second",
        f"{machine['cores']} cores, {machine['processor']}, {machine['kernel']}, {machine['python']}, {versions}",
        *report.notes,
    ]


def markdown(report: Report) -> str:
    """Table and summary, one line each, without the marks."""
    lines = [f"Measured {report.taken[:10]} with `truba bench`:", "", _line(COLUMNS)]
    lines.append(_line(["---:" if column in NUMERIC else "---" for column in COLUMNS]))
    lines += [_line(cells(row)) for row in report.rows]
    lines += ["", *(f"* {line}" for line in summary(report))]
    return "\n".join(lines) + "\n"


def _line(words: tuple[str, ...] | list[str]) -> str:
    return f"| {' | '.join(words)} |"


def check_page(page: Path) -> None:
    """ConfigError unless a report can be put there: better said before measuring."""
    _parts(page)


def rewrite(page: Path, report: Report) -> None:
    """Put the report between the marks of a page, in place of what stands there."""
    before, after = _parts(page)
    page.write_text(f"{before}{BEGIN}\n{markdown(report)}{END}{after}")


def _parts(page: Path) -> tuple[str, str]:
    before, begin, rest = page.read_text().partition(BEGIN)
    _, end, after = rest.partition(END)
    if not (begin and end):
        raise ConfigError(f"{page}: there is no place for the result; write {BEGIN} and {END} on lines of their own")
    return before, after
