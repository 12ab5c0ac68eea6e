"""The metrics as they are at the moment of a scrape: nothing is kept for Prometheus beside what is counted anyway."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence

from prometheus_client import CollectorRegistry
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.metrics_core import Metric as Family
from prometheus_client.registry import Collector

from truba.admin.metrics import BY_NAME
from truba.admin.pulse import Pulse
from truba.admin.subject import Subject
from truba.histogram import Histogram
from truba.node.node import Node
from truba.rejections import Rejections
from truba.types import Phase

Row = tuple[Sequence[str], float]


class NodeCollector(Collector):
    """Called on the loop's thread, by whoever answers the scrape."""

    def __init__(self, subject: Subject, pulse: Pulse, rejections: Rejections) -> None:
        """`rejections`: those of the admin address itself."""
        self._subject = subject
        self._pulse = pulse
        self._rejections = rejections

    def describe(self) -> Iterable[Family]:
        """Nothing is looked at when it is registered."""
        return ()

    def collect(self) -> Iterator[Family]:
        subject, pulse = self._subject, self._pulse
        yield _plain("truba_info", [((subject.version, subject.name, subject.role()), 1)])
        yield _plain("truba_ready", [((), int(subject.ready))])
        yield _plain("truba_log_bytes", [((), subject.log_bytes())])
        yield _plain("truba_store_bytes", [((), subject.store_bytes())])
        if (last_backup_ms := subject.last_backup_ms()) is not None:
            yield _plain("truba_last_backup_timestamp_seconds", [((), last_backup_ms / 1000)])
        doors = subject.doors()
        yield _plain("truba_connections", [((), doors.connections)])
        rejections = {**doors.rejections, "operators": self._rejections.counts}
        yield _plain(
            "truba_rejections_total",
            [
                ((door, cause), count)
                for door, counts in sorted(rejections.items())
                for cause, count in sorted(counts.items())
            ],
        )
        yield _histogram("truba_loop_lag_seconds", [((), pulse.lag_us)], 1e6)
        if (sync_us := subject.sync_us()) is not None:
            yield _histogram("truba_sync_seconds", [((), sync_us)], 1e6)
        meter = pulse.meter
        yield _plain("truba_events_total", [((name,), count) for name, count in sorted(meter.by_type().items())])
        yield _histogram("truba_batch_events", [((), meter.events)])
        yield _plain("truba_batch_bytes_total", [((), meter.bytes)])
        yield _histogram("truba_commit_seconds", [((), meter.commit_us)], 1e6)
        node = subject.current()
        if node is not None and not node.sequencer.over:
            clients = doors.rejections.get("clients")
            yield from self._led(node, clients["connection refused"] if clients else 0)

    def _led(self, node: Node, refused: int) -> Iterator[Family]:
        """What only the node that leads can tell."""
        machine, names = node.machine, {number: kind.name for number, kind in node.kinds.items()}
        now_ms = node.clock.now_ms()
        yield _plain(
            "truba_sessions",
            [((name, phase.value), machine.counts[number, phase]) for number, name in names.items() for phase in Phase],
        )
        due = {number: machine.queue(number).peek() for number in names}
        yield _plain(
            "truba_oldest_due_seconds",
            [((names[n],), max(0, now_ms - key.due_ms) / 1000 if key else 0) for n, key in due.items()],
        )
        lanes = [((names[number],), lane) for number, lane in sorted(node.dispatcher.lanes.items())]
        views = [(labels, lane.view) for labels, lane in lanes]
        yield _plain("truba_kind_paused", [(labels, view.paused) for labels, view in views])
        yield _plain("truba_handlers_busy", [(labels, view.out) for labels, view in views])
        yield _plain("truba_handler_reachable", [(labels, view.reachable) for labels, view in views])
        yield _plain(
            "truba_breaker_open", [(labels, view.probing or view.open_until_ms is not None) for labels, view in views]
        )
        yield _plain("truba_deliveries_total", [(labels, lane.meter.deliveries) for labels, lane in lanes])
        yield _plain(
            "truba_delivery_outcomes_total",
            [
                ((*labels, outcome), count)
                for labels, lane in lanes
                for outcome, count in sorted(lane.meter.outcomes.items())
            ],
        )
        yield _histogram("truba_delivery_late_seconds", [(labels, lane.meter.late_ms) for labels, lane in lanes], 1e3)
        yield _histogram("truba_delivery_held_seconds", [(labels, lane.meter.held_ms) for labels, lane in lanes], 1e3)
        yield _plain("truba_owner_losses_total", [((), node.presence.losses)])
        yield _plain("truba_refusals_total", [((code,), count) for code, count in sorted(node.refusals.items())])
        limits = node.limits_hit + type(node.limits_hit)({"connections_max": refused})
        yield _plain("truba_limits_hit_total", [((limit,), count) for limit, count in sorted(limits.items())])
        yield _plain("truba_log_space_low", [((), node.log.space == "low")])
        yield _histogram("truba_checkpoint_seconds", [((), node.checkpointer.took_ms)], 1e3)
        yield _plain("truba_log_seq", [((), machine.seq)])


def _plain(name: str, rows: Iterable[Row]) -> Family:
    metric = BY_NAME[name]
    make: Callable[..., GaugeMetricFamily | CounterMetricFamily] = (
        GaugeMetricFamily if metric.sort == "gauge" else CounterMetricFamily
    )
    family = make(metric.name, metric.meaning, labels=metric.labels)
    for labels, value in rows:
        family.add_metric(labels, float(value))
    return family


def _histogram(name: str, rows: Iterable[tuple[Sequence[str], Histogram]], per_unit: float = 1) -> Family:
    """`per_unit`: how many of what was counted make one of the metric's unit."""
    metric = BY_NAME[name]
    family = HistogramMetricFamily(metric.name, metric.meaning, labels=metric.labels)
    for labels, counted in rows:
        buckets: list[tuple[str, float]] = []
        below = 0
        for power, count in enumerate(counted.counts[:-1]):
            below += count
            buckets.append((repr((2**power - 1) / per_unit), below))  # whole numbers: below 2^k is up to 2^k - 1
        buckets.append(("+Inf", below + counted.counts[-1]))
        family.add_metric(labels, buckets, counted.sum / per_unit)
    return family


def registry(subject: Subject, pulse: Pulse, rejections: Rejections) -> CollectorRegistry:
    """With this collector, and nothing of the process's own registry."""
    made = CollectorRegistry(auto_describe=False)
    made.register(NodeCollector(subject, pulse, rejections))
    return made
