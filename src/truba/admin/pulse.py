"""What only time tells: how late the loop is, and how fast each kind's sessions are finished."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from typing import NamedTuple

from truba.admin.subject import Subject
from truba.histogram import Histogram
from truba.node.meters import BatchMeter
from truba.node.node import Node
from truba.types import Phase

BEAT_S = 0.5
WINDOW_S = 60.0
"""Rates are those of the last minute: short enough to see a change, long enough not to jump."""

UNFINISHED = (Phase.STORED, Phase.REPEATING)


class _Sample(NamedTuple):
    at_s: float
    finished: dict[int, int]  # by kind: hand-overs after which the session was gone, since the node began to lead
    unfinished: dict[int, int]


class Rate(NamedTuple):
    """Of one kind, over the last minute or as long as it is known."""

    window_s: float
    finished_per_s: float
    backlog_per_s: float  # by how much the unfinished sessions grew; negative: they become fewer
    drained_in_s: float | None  # when none is left if it goes on like that; None: never, or not known


class Pulse:
    """Runs beside the node and costs two turns of the loop a second. Attaches the meter of batches to each node."""

    def __init__(self, subject: Subject) -> None:
        self._subject = subject
        self.meter = BatchMeter(time.perf_counter)
        self.lag_us = Histogram()
        self.lag_max_s = 0.0  # the worst of the last minute
        self._lags: deque[float] = deque(maxlen=round(WINDOW_S / BEAT_S))
        self._samples: deque[_Sample] = deque()
        self._node: Node | None = None
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        self._task = asyncio.get_running_loop().create_task(self._run(), name="admin pulse")

    async def stop(self) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])

    async def _run(self) -> None:
        while True:
            self.beat(time.perf_counter())
            began_s = time.perf_counter()
            await asyncio.sleep(BEAT_S)
            late_s = max(0.0, time.perf_counter() - began_s - BEAT_S)
            self.lag_us.add(round(late_s * 1e6))
            self._lags.append(late_s)
            self.lag_max_s = max(self._lags)

    def beat(self, now_s: float) -> None:
        """Look at the node as it is now."""
        node = self._subject.current()
        if node is not self._node:
            self._node = node
            self._samples.clear()
        if node is None:
            return
        node.sequencer.meter = self.meter
        counts = node.machine.counts
        self._samples.append(
            _Sample(
                now_s,
                {number: lane.meter.outcomes["deleted"] for number, lane in node.dispatcher.lanes.items()},
                {number: sum(counts[number, phase] for phase in UNFINISHED) for number in node.kinds},
            )
        )
        while now_s - self._samples[0].at_s > WINDOW_S:
            self._samples.popleft()

    def rate(self, kind: int) -> Rate | None:
        """None: not known yet."""
        if len(self._samples) < 2:
            return None
        first, last = self._samples[0], self._samples[-1]
        window_s = last.at_s - first.at_s
        left = last.unfinished.get(kind, 0)
        growth_per_s = (left - first.unfinished.get(kind, 0)) / window_s
        return Rate(
            window_s,
            (last.finished.get(kind, 0) - first.finished.get(kind, 0)) / window_s,
            growth_per_s,
            0.0 if not left else left / -growth_per_s if growth_per_s < 0 else None,
        )
