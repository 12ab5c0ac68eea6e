"""The race: servers are started, then sides take turns; who has no turn is frozen (SIGSTOP) and costs nothing.

A frozen server puts nothing off to others' time: what it had left to do, a checkpoint or a compaction, it does in its
own next turn. Between any two turns the disk alone is measured, and before each turn the load alone, against a server
that does nothing.
"""

from __future__ import annotations

import signal
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime
from pathlib import Path

import msgspec

from bench.race import report
from bench.race.load import Measure, Programs, compiled, measured
from bench.race.processes import send_to_trees
from bench.race.report import Absent, Result
from bench.race.sides.side import RECORD_BYTES, Running, Side
from bench.race.turns import Turn, turns
from truba.bench.disk import DiskFigure, DiskProbe
from truba.bench.machine import IN_MEMORY, facts, filesystem
from truba.bench.worker import raise_file_limit
from truba.errors import TrubaError

ALONE_S = 0.5
WARM_S_MAX, WARM_SHARE = 2.0, 0.25
FILES_BESIDE_CLIENTS = 256


class Plan(msgspec.Struct, frozen=True):
    sides: tuple[Side, ...]
    clients: tuple[int, ...]
    seconds: float  # of each turn
    rounds: int
    directory: Path  # raced in a temporary directory inside it

    @property
    def steps(self) -> int:
        return self.rounds * len(self.clients) * len(self.sides)

    @property
    def warm_s(self) -> float:
        return min(WARM_S_MAX, self.seconds * WARM_SHARE)


Tell = Callable[[str], None]
"""Told what comes next: a server's start, or a turn."""
Done = Callable[[], None]
"""Called after each turn."""


def run(plan: Plan, tell: Tell, done: Done) -> Result:
    """All of it. A side that is missing or fails is in the result; every server has ended then, in any case.

    TrubaError or OSError when nothing can be raced at all.
    """
    raise_file_limit(max(plan.clients) + FILES_BESIDE_CLIENTS)
    taken = datetime.now(UTC).isoformat(timespec="seconds")
    absent: list[Absent] = []
    found: dict[tuple[str, int], dict[int, Measure]] = {}
    alone: dict[tuple[str, int], list[float]] = {}
    versions: dict[str, str] = {}
    with ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="truba-race-", dir=plan.directory)))
        directory.chmod(0o711)  # a server that runs as a user of its own must find its directory
        programs = compiled(directory)
        probe = stack.enter_context(DiskProbe(directory))
        runners: dict[str, Running] = {}
        for side in plan.sides:
            if what := side.missing():
                absent.append(Absent(side.name, side.unit, what, side.install))
                continue
            tell(f"starting {side.name}")
            (own := directory / side.name).mkdir(mode=0o711)
            try:
                versions[side.name] = side.version()
                runners[side.name] = stack.enter_context(side.running(own, max(plan.clients)))
            except TrubaError as error:
                absent.append(Absent(side.name, side.unit, str(error), None))
                continue
            stack.callback(_thaw, runners[side.name])  # one that is frozen cannot end
            _freeze(runners[side.name])
        disks = [probe.figure()]
        for turn in turns([side.name for side in plan.sides], plan.clients, plan.rounds):
            if turn.side in runners:
                tell(f"round {turn.number}: {turn.side}, {turn.clients} clients")
                try:
                    measure, most = _take(turn, plan, runners[turn.side], programs)
                except TrubaError as error:
                    unit = next(side.unit for side in plan.sides if side.name == turn.side)
                    absent.append(
                        Absent(turn.side, unit, f"{turn.clients} clients, round {turn.number}: {error}", None)
                    )
                    del runners[turn.side]
                else:
                    found.setdefault((turn.side, turn.clients), {})[turn.number] = measure
                    if most is not None:
                        alone.setdefault((turn.side, turn.clients), []).append(most)
                disks.append(probe.figure())
            done()
        kind_of_disk = filesystem(directory)
    return _result(plan, taken, kind_of_disk, disks, versions, found, alone, absent)


def _take(turn: Turn, plan: Plan, running: Running, programs: Programs) -> tuple[Measure, float | None]:
    """One turn, and what its load reaches alone."""
    most = None
    if running.script is not None:
        with programs.null(running.script) as port:
            against = running.script.against_null()
            alone_s = min(ALONE_S, plan.seconds)
            most = measured(programs.command(against, port, turn.clients, alone_s / 4, alone_s), alone_s).rate_per_s
    with _awake(running):
        command = running.command(programs, turn.clients, plan.warm_s, plan.seconds)
        return measured(command, plan.warm_s + plan.seconds, running.servers, running.workers), most


@contextmanager
def _awake(running: Running) -> Iterator[None]:
    _thaw(running)
    try:
        yield
    finally:
        _freeze(running)


def _freeze(running: Running) -> None:
    send_to_trees((*running.servers, *running.workers), signal.SIGSTOP)


def _thaw(running: Running) -> None:
    send_to_trees((*running.servers, *running.workers), signal.SIGCONT)


def _result(
    plan: Plan,
    taken: str,
    kind_of_disk: str,
    disks: Sequence[DiskFigure],
    versions: dict[str, str],
    found: dict[tuple[str, int], dict[int, Measure]],
    alone: dict[tuple[str, int], list[float]],
    absent: list[Absent],
) -> Result:
    order = {side.name: at for at, side in enumerate(plan.sides)}
    found = dict(sorted(found.items(), key=lambda item: order[item[0][0]]))
    made = report.rows(found, alone, {side.name: side.unit for side in plan.sides})
    said = list(report.notes(made))
    if kind_of_disk in IN_MEMORY:
        said.append(
            f"{plan.directory} is in memory ({kind_of_disk}): a sync costs nothing there; name a disk with --data"
        )
    figure = report.disk(disks)
    return Result(
        taken=taken,
        machine=facts(),
        filesystem=kind_of_disk,
        seconds=plan.seconds,
        rounds=plan.rounds,
        record_bytes=RECORD_BYTES,
        disk_us=figure.median_us,
        disk_rate_per_s=figure.rate_per_s,
        versions=versions,
        rows=made,
        absent=absent,
        notes=said,
    )
