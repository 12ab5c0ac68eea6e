"""The rounds: each goes once through all concurrencies and modes, so that what disturbs the machine disturbs all alike.

Between any two measurements of different concurrency the disk alone is measured. Sums up; prints nothing.
"""

from __future__ import annotations

import statistics
import tempfile
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

import msgspec

from truba.bench import embedded, load
from truba.bench.disk import DiskFigure, DiskProbe
from truba.bench.latency import merged, percentiles
from truba.bench.machine import IN_MEMORY, facts, filesystem
from truba.bench.served import served
from truba.bench.worker import Measure, Order, Worker, raise_file_limit
from truba.client.target import Target
from truba.tls import Tls

Mode = Literal["embedded", "tcp", "cluster", "url"]

PACED: frozenset[Mode] = frozenset({"tcp", "cluster", "url"})
"""Measured once more at half of the rate just reached: what an operation takes where the pipe is not at its limit."""

FILES_BESIDE_CLIENTS = 256
"""Of a pipe's process: segments, store, sockets of its own."""


class Plan(msgspec.Struct, frozen=True):
    """What is to be measured."""

    modes: tuple[Mode, ...]
    clients: tuple[int, ...]
    measure_s: float  # of each row, all rounds together
    rounds: int
    record_bytes: int
    kind: int
    directory: Path  # measured in a temporary directory inside it
    target: Target | None = None  # of mode "url"
    nats_server: str | None = None  # of mode "cluster": the binary to use

    @property
    def steps(self) -> int:
        each = sum(2 if mode in PACED else 1 for mode in self.modes)
        return self.rounds * len(self.clients) * each

    def order(self, clients: int, rate_per_s: float | None = None) -> Order:
        measure_s = self.measure_s / self.rounds
        return Order(clients, min(0.5, measure_s / 4), measure_s, rate_per_s)


class Row(msgspec.Struct, frozen=True):
    """One mode at one concurrency. Times are of all operations, everything else is the median of the rounds."""

    mode: Mode
    clients: int
    operations: int
    rate_per_s: float
    rates_per_s: list[float]  # of each round, in order
    p50_us: int
    p99_us: int
    max_us: int
    half_p99_us: int | None  # at half of that rate, from when an operation was due; None: not measured
    load_cpu: float  # share of one processor that the clients' process used; embedded: clients and pipe
    pipe_user_us: float | None  # for each operation
    pipe_system_us: float | None
    others_cpu: float | None  # share of one processor that everything else on the machine used meanwhile
    disk_us: float  # write + fdatasync, before and after
    disk_rate_per_s: float


class Report(msgspec.Struct, frozen=True):
    taken: str
    machine: dict[str, str | int]
    filesystem: str
    directory: str
    url: str | None
    seconds: float
    rounds: int
    record_bytes: int
    disk_us: float
    disk_rate_per_s: float
    rows: list[Row]
    notes: list[str]


Tell = Callable[[str, int, int], None]
"""Called before each measurement: mode, clients, number of the round from 1."""


def run(plan: Plan, tell: Tell) -> Report:
    """Measure all of it. TrubaError or OSError, of which HandshakeFailed is one, when that cannot be; every child has
    ended then too."""
    raise_file_limit(max(plan.clients) + FILES_BESIDE_CLIENTS)
    kind_of_disk = filesystem(plan.directory)
    taken = datetime.now(UTC).isoformat(timespec="seconds")
    measures: dict[tuple[Mode, int], list[Measure]] = {(m, c): [] for c in plan.clients for m in plan.modes}
    halves: dict[tuple[Mode, int], list[Measure]] = {(m, c): [] for c in plan.clients for m in plan.modes}
    disks: dict[int, list[DiskFigure]] = {clients: [] for clients in plan.clients}
    with ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="truba-bench-", dir=plan.directory)))
        probe = stack.enter_context(DiskProbe(directory))
        workers = {mode: _start(mode, plan, directory, stack) for mode in plan.modes}
        before = probe.figure()
        for number in range(1, plan.rounds + 1):
            for clients in plan.clients:
                for mode in plan.modes:
                    tell(mode, clients, number)
                    measure = workers[mode].measure(plan.order(clients))
                    measures[mode, clients].append(measure)
                    if mode in PACED:
                        tell(f"{mode}, half", clients, number)
                        half = plan.order(clients, measure.rate_per_s / 2)
                        halves[mode, clients].append(workers[mode].measure(half))
                after = probe.figure()
                disks[clients] += [before, after]
                before = after
    every = [figure for figures in disks.values() for figure in figures]
    return Report(
        taken=taken,
        machine=facts(),
        filesystem=kind_of_disk,
        directory=str(plan.directory.resolve()),
        url=None if plan.target is None else str(plan.target),
        seconds=plan.measure_s,
        rounds=plan.rounds,
        record_bytes=plan.record_bytes,
        disk_us=_median([figure.median_us for figure in every]),
        disk_rate_per_s=_median([figure.rate_per_s for figure in every]),
        rows=[_row(*key, found, halves[key], disks[key[1]]) for key, found in measures.items()],
        notes=list(_notes(plan, kind_of_disk)),
    )


def _start(mode: Mode, plan: Plan, directory: Path, stack: ExitStack) -> Worker:
    match mode:
        case "embedded":
            data = str(directory / "embedded")
            return stack.enter_context(
                Worker("truba.bench.embedded", embedded.Setup(data, plan.kind, plan.record_bytes))
            )
        case "tcp":
            pid: int | None
            pipe = stack.enter_context(served(directory, plan.kind, plan.record_bytes, max(plan.clients)))
            target, pid = Target(pipe.host, pipe.port), pipe.pid
        case "cluster":
            from truba.bench.clustered import clustered  # NATS is an extra

            led = clustered(directory, plan.kind, plan.record_bytes, max(plan.clients), plan.nats_server)
            leader = stack.enter_context(led)
            target, pid = Target(leader.host, leader.port), leader.pid
        case "url":
            assert plan.target is not None
            target, pid = plan.target, None
    setup = load.Setup(
        target.host,
        target.port,
        target.path,
        target.user,
        target.password,
        plan.kind,
        plan.record_bytes,
        pid,
        None if target.tls is None else _files(target.tls.tls),
    )
    return stack.enter_context(Worker("truba.bench.load", setup))


def _files(tls: Tls) -> load.TlsFiles:
    return load.TlsFiles(*(None if one is None else str(one) for one in (tls.ca, tls.certificate, tls.key)))


def _row(
    mode: Mode, clients: int, found: Sequence[Measure], half: Sequence[Measure], disk: Sequence[DiskFigure]
) -> Row:
    counts, half_counts = (merged(measure.counts for measure in measures) for measures in (found, half))
    p50_us, p99_us, max_us = percentiles(counts, (50, 99, 100))
    user_us = [measure.pipe_user_us for measure in found if measure.pipe_user_us is not None]
    system_us = [measure.pipe_system_us for measure in found if measure.pipe_system_us is not None]
    others = [measure.others_cpu for measure in found if measure.others_cpu is not None]
    rates = [measure.rate_per_s for measure in found]
    return Row(
        mode=mode,
        clients=clients,
        operations=sum(counts.values()),
        rate_per_s=_median(rates),
        rates_per_s=[round(rate, 1) for rate in rates],
        p50_us=p50_us,
        p99_us=p99_us,
        max_us=max_us,
        half_p99_us=percentiles(half_counts, (99,))[0] if half_counts else None,
        load_cpu=round(statistics.median(measure.load_cpu for measure in found), 3),
        pipe_user_us=_median(user_us) if user_us else None,
        pipe_system_us=_median(system_us) if system_us else None,
        others_cpu=round(statistics.median(others), 3) if others else None,
        disk_us=_median([figure.median_us for figure in disk]),
        disk_rate_per_s=_median([figure.rate_per_s for figure in disk]),
    )


def _median(values: Sequence[float]) -> float:
    return round(statistics.median(values), 1)


def _notes(plan: Plan, kind_of_disk: str) -> list[str]:
    notes = []
    if kind_of_disk in IN_MEMORY:
        notes.append(
            f"{plan.directory} is in memory ({kind_of_disk}): a sync costs nothing there, and nothing is durable;"
            " name a directory on a disk with --data"
        )
    if plan.target is not None:
        notes.append("the disk measured is that of --data on this machine; the pipe of --url may have another one")
    return notes
