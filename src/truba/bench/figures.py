"""What a round of a benchmark yields. Pure."""

from __future__ import annotations

import statistics
from array import array
from dataclasses import asdict, dataclass
from typing import Any

OPERATIONS_PER_SESSION = 5
"""New, three Appends, Delete."""


@dataclass(frozen=True, slots=True)
class Round:
    """One round: latencies in seconds, one for each operation."""

    operations: int
    seconds: float
    p50_s: float
    p99_s: float
    load_cpu: float  # of one core, by whoever makes the load; 1.0: it may be the limit itself
    server_user_us: float  # CPU of the pipe for each operation; 0 where load and pipe are one process
    server_system_us: float

    @property
    def per_second(self) -> float:
        return self.operations / self.seconds


@dataclass(frozen=True, slots=True)
class Row:
    """The medians of all rounds of one side at one concurrency."""

    side: str  # "embedded" or "tcp"
    clients: int
    per_second: float
    p50_ms: float
    p99_ms: float
    load_cpu: float
    server_user_us: float
    server_system_us: float

    def as_document(self) -> dict[str, Any]:
        return asdict(self)


def percentile(sorted_values: array[float], share: float) -> float:
    """The value below which `share` of them lie (nearest rank); 0 of none."""
    if not sorted_values:
        return 0.0
    return sorted_values[min(len(sorted_values) - 1, int(len(sorted_values) * share))]


def make_round(
    latencies_s: array[float], seconds: float, load_cpu_s: float, server_cpu_s: tuple[float, float] = (0.0, 0.0)
) -> Round:
    operations = len(latencies_s)
    ordered = array("d", sorted(latencies_s))
    each = 1e6 / max(operations, 1)
    return Round(
        operations,
        seconds,
        percentile(ordered, 0.5),
        percentile(ordered, 0.99),
        load_cpu_s / seconds,
        server_cpu_s[0] * each,
        server_cpu_s[1] * each,
    )


def median_row(side: str, clients: int, rounds: list[Round]) -> Row:
    def median(values: list[float]) -> float:
        return statistics.median(values)

    return Row(
        side,
        clients,
        round(median([one.per_second for one in rounds])),
        round(median([one.p50_s for one in rounds]) * 1000, 3),
        round(median([one.p99_s for one in rounds]) * 1000, 3),
        round(median([one.load_cpu for one in rounds]), 2),
        round(median([one.server_user_us for one in rounds]), 1),
        round(median([one.server_system_us for one in rounds]), 1),
    )
