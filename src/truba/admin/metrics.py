"""Every metric: name, unit, labels, meaning. docs/metrics.md, the dashboard and the alerts are checked against it.

Names end as Prometheus wants them: `_total` for what only grows, and the base unit (`_seconds`, `_bytes`) before that.
Pure.
"""

from __future__ import annotations

from typing import Literal, NamedTuple


class Metric(NamedTuple):
    name: str  # as scraped, but for the suffixes of a histogram
    sort: Literal["gauge", "counter", "histogram"]
    unit: str
    labels: tuple[str, ...]
    meaning: str


KIND = ("kind",)

METRICS: tuple[Metric, ...] = (
    Metric("truba_info", "gauge", "", ("version", "node", "role"), "always 1; the labels tell"),
    Metric("truba_ready", "gauge", "", (), "1: this node takes sessions itself"),
    Metric("truba_sessions", "gauge", "sessions", ("kind", "phase"), "sessions there are"),
    Metric(
        "truba_oldest_due_seconds",
        "gauge",
        "seconds",
        KIND,
        "for how long the session due first has been due; 0: none is",
    ),
    Metric("truba_kind_paused", "gauge", "", KIND, "1: an operator has paused the hand-over"),
    Metric(
        "truba_events_total",
        "counter",
        "events",
        ("event",),
        "events decided: Created is New, Appended is Append, and so on",
    ),
    Metric("truba_batch_events", "histogram", "events", (), "events in a batch, which shares one sync"),
    Metric("truba_batch_bytes_total", "counter", "bytes", (), "encoded events of all batches"),
    Metric("truba_commit_seconds", "histogram", "seconds", (), "from a batch's end to its being durable; one of 16"),
    Metric("truba_sync_seconds", "histogram", "seconds", (), "write and sync of a batch on the own disk; one of 8"),
    Metric("truba_deliveries_total", "counter", "hand-overs", KIND, "hand-overs that were tried"),
    Metric(
        "truba_delivery_outcomes_total",
        "counter",
        "hand-overs",
        ("kind", "outcome"),
        "how they ended: deleted (finished), or the cause why not",
    ),
    Metric("truba_delivery_late_seconds", "histogram", "seconds", KIND, "from due to handed over"),
    Metric("truba_delivery_held_seconds", "histogram", "seconds", KIND, "from handed over to the end of the hold"),
    Metric("truba_handlers_busy", "gauge", "sessions", KIND, "sessions that handlers hold now"),
    Metric(
        "truba_handler_reachable",
        "gauge",
        "",
        KIND,
        "1: the handler would take one more session, or has as many as it may",
    ),
    Metric("truba_breaker_open", "gauge", "", KIND, "1: the handler is in trouble and left alone"),
    Metric("truba_owner_losses_total", "counter", "sessions", (), "sessions whose owner was lost"),
    Metric(
        "truba_refusals_total", "counter", "operations", ("code",), "operations refused, by the first word of the error"
    ),
    Metric(
        "truba_rejections_total",
        "counter",
        "",
        ("door", "cause"),
        "who was turned away: at the address of clients, operators or peers; the cause as the log has it",
    ),
    Metric(
        "truba_limits_hit_total",
        "counter",
        "",
        ("limit",),
        "how often a limit held somebody up, by its name in the configuration",
    ),
    Metric("truba_connections", "gauge", "connections", (), "clients connected"),
    Metric("truba_log_bytes", "gauge", "bytes", (), "log that a start from an empty state would read"),
    Metric("truba_log_space_low", "gauge", "", (), "1: only the reserve is left; what grows the data is refused"),
    Metric("truba_store_bytes", "gauge", "bytes", (), "the store's tables"),
    Metric(
        "truba_last_backup_timestamp_seconds",
        "gauge",
        "seconds",
        (),
        "when the newest backup was begun, in Unix time; 0: none is known. Only where `backups` is configured",
    ),
    Metric("truba_checkpoint_seconds", "histogram", "seconds", (), "how long checkpoints took; nobody waits for them"),
    Metric(
        "truba_loop_lag_seconds", "histogram", "seconds", (), "how late the event loop was, looked at twice a second"
    ),
    Metric("truba_log_seq", "gauge", "events", (), "number of the last event decided"),
)

BY_NAME = {metric.name: metric for metric in METRICS}


def series(metric: Metric) -> tuple[str, ...]:
    """The names under which its numbers are scraped."""
    if metric.sort == "histogram":
        return tuple(f"{metric.name}_{suffix}" for suffix in ("bucket", "sum", "count"))
    return (metric.name,)
