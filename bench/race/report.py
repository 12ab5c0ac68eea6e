"""The result of a race: values, tables for a terminal, Markdown for the marks of a page. Pure, but for `rewrite`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import msgspec

from bench.race.load import Measure
from bench.race.sides.side import OPERATIONS, Unit
from bench.race.turns import median, ratio
from truba.bench.disk import DiskFigure
from truba.bench.latency import merged, percentiles
from truba.errors import ConfigError

BEGIN, END = "<!-- make race: begin -->", "<!-- make race: end -->"
MARK = "truba"
"""The side that the others are compared with."""
OWN_CLIENTS = "truba-python"
"""What a user of truba has in place of an engine's library."""
HEADROOM = 2.0
"""So many times a side's rate the load must reach alone, or it may be what was measured."""

WHY_LETTERS = 600

COLUMNS = (
    "side",
    "clients",
    "{unit}/s",
    "of truba",
    "p50 ms",
    "p99 ms",
    "server us",
    "worker us",
    "load CPU",
    "load alone/s",
    "others CPU",
)


class Row(msgspec.Struct, frozen=True):
    """A side with so many clients. Times are for each operation, or session."""

    side: str
    unit: Unit
    clients: int
    count: int
    rate_per_s: float
    rates_per_s: dict[int, float]  # by round
    ratio: float | None  # to truba over TCP, paired by rounds
    p50_us: int | None  # None: not measured in this unit
    p99_us: int | None
    server_user_us: float
    server_system_us: float
    worker_us: float  # user's code beside the load; user + system
    load_cpu: float  # share of one processor
    alone_per_s: float | None  # the same load against a server that does nothing; None: another program is the load
    others_cpu: float


class Absent(msgspec.Struct, frozen=True):
    """A side that was not measured, or not to the end."""

    side: str
    unit: Unit
    why: str
    install: str | None  # the command that helps; None: it is installed, and failed


class Result(msgspec.Struct, frozen=True):
    taken: str
    machine: dict[str, str | int]
    filesystem: str
    seconds: float  # of each turn
    rounds: int
    record_bytes: int
    disk_us: float
    disk_rate_per_s: float
    versions: dict[str, str]
    rows: list[Row]
    absent: list[Absent]
    notes: list[str]


Measures = Mapping[tuple[str, int], Mapping[int, Measure]]
"""Side and clients -> round -> what was measured."""


def rows(found: Measures, alone: Mapping[tuple[str, int], Sequence[float]], units: Mapping[str, Unit]) -> list[Row]:
    """Of all sides that were measured; truba's operations are also given as whole sessions beside those of others."""
    made = [
        _row(side, units[side], 1, clients, measures, alone.get((side, clients), ()), found)
        for (side, clients), measures in found.items()
        if measures
    ]
    if any(row.unit == "sessions" for row in made):
        made += [
            _row(side, "sessions", OPERATIONS, clients, measures, (), found)
            for (side, clients), measures in found.items()
            if side == MARK and measures
        ]
    return made


def _row(
    side: str,
    unit: Unit,
    per: int,
    clients: int,
    measures: Mapping[int, Measure],
    alone: Sequence[float],
    found: Measures,
) -> Row:
    """`per`: how many of what was counted make one of `unit`."""
    rates = {number: measure.rate_per_s / per for number, measure in measures.items()}
    mark_per = OPERATIONS if unit == "sessions" else 1
    marks = {number: mark.rate_per_s / mark_per for number, mark in found.get((MARK, clients), {}).items()}
    every = list(measures.values())
    p50_us, p99_us = percentiles(merged(measure.counts for measure in every), (50, 99)) if per == 1 else (None, None)

    def each_us(seconds: Sequence[float]) -> float:
        pairs = zip(seconds, every, strict=True)
        return round(median(used * per / max(1, measure.operations) * 1e6 for used, measure in pairs), 2)

    compared = ratio(rates, marks)
    return Row(
        side=side,
        unit=unit,
        clients=clients,
        count=sum(measure.operations for measure in every) // per,
        rate_per_s=round(median(rates.values()), 1),
        rates_per_s={number: round(rate, 1) for number, rate in rates.items()},
        ratio=None if compared is None else round(compared, 3),
        p50_us=p50_us,
        p99_us=p99_us,
        server_user_us=each_us([measure.servers.user_s for measure in every]),
        server_system_us=each_us([measure.servers.system_s for measure in every]),
        worker_us=each_us([sum(measure.workers) for measure in every]),
        load_cpu=round(median(sum(measure.load) / measure.seconds for measure in every), 3),
        alone_per_s=round(median(alone), 1) if alone else None,
        others_cpu=round(median(measure.others_s / measure.seconds for measure in every), 3),
    )


def disk(figures: Sequence[DiskFigure]) -> DiskFigure:
    return DiskFigure(
        round(median(figure.median_us for figure in figures), 1),
        round(median(figure.rate_per_s for figure in figures), 1),
    )


def notes(made: Sequence[Row]) -> Iterator[str]:
    """What a reader must know to believe the figures."""
    for row in made:
        if row.alone_per_s is not None and row.alone_per_s < HEADROOM * row.rate_per_s:
            yield (
                f"{row.side}, {row.clients} clients: the load alone reaches only "
                f"{row.alone_per_s / row.rate_per_s:.1f} times this rate, and may be what was measured"
            )
    own = {row.clients: row for row in made if row.side == OWN_CLIENTS}
    for row in made:
        if row.unit != "sessions" or row.side in (MARK, OWN_CLIENTS) or row.clients not in own:
            continue
        if (times := ratio(own[row.clients].rates_per_s, row.rates_per_s)) is not None:
            yield f"{row.side}, {row.clients} clients: {OWN_CLIENTS} does {times:.0f} times as many sessions"
    busiest = max((row.others_cpu for row in made), default=0.0)
    if busiest > 0.1:
        yield f"other work used up to {busiest:.0%} of a core meanwhile: compare ratios and processor times, not rates"


# -- written down ------------------------------------------------------------------------------------------------------


def columns(unit: Unit) -> list[str]:
    return [column.format(unit=unit) for column in COLUMNS]


def table(result: Result, unit: Unit) -> list[list[str]]:
    """As `columns`: for each number of clients the sides in order; those that are absent at the end."""
    counts = list(dict.fromkeys(row.clients for row in result.rows))
    wanted = [row for count in counts for row in result.rows if row.unit == unit and row.clients == count]
    wanted.sort(key=lambda row: (counts.index(row.clients), row.side != MARK))  # truba first, the rest as it was
    cells = [_cells(row) for row in wanted]
    empty = [""] * (len(COLUMNS) - 3)
    measured = {row.side for row in result.rows}
    cells += [
        [absent.side, "", "missing" if absent.install else "failed", *empty]
        for absent in result.absent
        if absent.side not in measured and absent.unit == unit
    ]
    return cells


def _cells(row: Row) -> list[str]:
    return [
        row.side,
        f"{row.clients}",
        f"{row.rate_per_s:,.0f}",
        "" if row.ratio is None else f"{row.ratio:.2f}",
        "" if row.p50_us is None else f"{row.p50_us / 1000:.2f}",
        "" if row.p99_us is None else f"{row.p99_us / 1000:.2f}",
        f"{row.server_user_us:.1f} + {row.server_system_us:.1f}",
        f"{row.worker_us:.1f}" if row.worker_us else "",
        f"{row.load_cpu:.0%}",
        "" if row.alone_per_s is None else f"{row.alone_per_s:,.0f}",
        f"{row.others_cpu:.0%}",
    ]


def summary(result: Result) -> list[str]:
    """What stands under the tables, a line each."""
    machine, seconds, syncs = result.machine, f"{result.seconds:g} s", f"{result.disk_rate_per_s:,.0f}"
    job = f"open with a record + 2 appends + delete are {OPERATIONS} operations and one session"
    return [
        f"{result.record_bytes}-byte records; {job}, each operation durable before its answer",
        f"{result.rounds} rounds, {seconds} each turn, warm-up apart; medians, ratios of turns of the same round",
        f"disk alone ({result.filesystem}): write + fdatasync of 4 KiB {result.disk_us:.0f} us, {syncs} a second",
        f"{machine['cores']} cores, {machine['processor']}, {machine['kernel']}, {machine['python']}",
        "; ".join(f"{side}: {version}" for side, version in result.versions.items()),
        *(f"{one.side} {_absence(one)}" for one in result.absent),
        *result.notes,
    ]


def _absence(one: Absent) -> str:
    why = " ".join(one.why.split())[:WHY_LETTERS]  # a server's last words may be many lines
    return f"is missing ({why}): {one.install}" if one.install else f"failed: {why}"


def units(result: Result) -> list[Unit]:
    """Those that there is something to say about, in order."""
    every: tuple[Unit, ...] = ("operations", "sessions")
    return [unit for unit in every if table(result, unit)]


def markdown(result: Result) -> str:
    """Tables and summary, without the marks."""
    lines = [f"Measured {result.taken[:10]} with `make race`:", ""]
    for unit in units(result):
        lines += [_line(columns(unit)), _line(["---", *["---:"] * (len(COLUMNS) - 1)])]
        lines += [*map(_line, table(result, unit)), ""]
    return "\n".join([*lines, *(f"* {line}" for line in summary(result))]) + "\n"


def _line(words: Sequence[str]) -> str:
    return f"| {' | '.join(words)} |"


def check_page(page: Path) -> None:
    """ConfigError unless a result can be put there: better said before measuring."""
    _parts(page)


def rewrite(page: Path, result: Result) -> None:
    """Put the result between the marks of a page, in place of what stands there."""
    before, after = _parts(page)
    page.write_text(f"{before}{BEGIN}\n{markdown(result)}{END}{after}")


def _parts(page: Path) -> tuple[str, str]:
    before, begin, rest = page.read_text().partition(BEGIN)
    _, end, after = rest.partition(END)
    if not (begin and end):
        raise ConfigError(f"{page}: there is no place for the result; write {BEGIN} and {END} on lines of their own")
    return before, after
