"""Pictures of a result, by matplotlib: cost against size, and pauses over time. SVG: small, and legible at any size."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("svg")

from matplotlib import pyplot
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from bench.scale.results import (
    GOAL_DUE_MS,
    GOAL_LOCAL_PER_S,
    GOAL_MEMORY_MIB,
    GOAL_PAUSE_MS,
    GOAL_RATIO,
    GOAL_READY_S,
    GOAL_SERVICE_PER_S,
    Result,
    Steady,
    Step,
)

BLUE, ORANGE, GREY, RED = "#2b6cb0", "#c05621", "#a0aec0", "#c53030"

STYLE: dict[str, Any] = {
    "svg.hashsalt": "truba",  # the same result gives the same file
    "svg.fonttype": "path",
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": "#e2e8f0",
    "figure.facecolor": "white",
    "figure.dpi": 100,
}

Series = tuple[str, str, Callable[[Step], float]]

PANELS: tuple[tuple[str, str, tuple[Series, ...], tuple[float, ...]], ...] = (
    (
        "memory grown",
        "MiB",
        (("filling", BLUE, lambda step: step.memory_mib), ("resting", ORANGE, lambda step: step.rest_mib)),
        (GOAL_MEMORY_MIB,),
    ),
    ("new work, of that on an empty directory", "", (("", BLUE, lambda step: step.work_ratio),), (GOAL_RATIO,)),
    ("restart after kill -9 until ready", "s", (("", BLUE, lambda step: step.ready_s),), (GOAL_READY_S,)),
    (
        "finding the next due",
        "ms",
        (("p99.9", BLUE, lambda step: step.due_p999_ms), ("max", ORANGE, lambda step: step.due_max_ms)),
        (GOAL_DUE_MS,),
    ),
    (
        "sessions handed over and finished",
        "a second",
        (
            ("in process", BLUE, lambda step: step.local_per_s),
            ("to a service", ORANGE, lambda step: step.service_per_s),
        ),
        (GOAL_LOCAL_PER_S, GOAL_SERVICE_PER_S),
    ),
    ("store on disk", "bytes a session", (("", BLUE, lambda step: step.store_bytes / max(step.sessions, 1)),), ()),
)


def draw(result: Result, directory: Path) -> list[Path]:
    """The pictures that this result has figures for."""
    directory.mkdir(parents=True, exist_ok=True)
    drawn = []
    with matplotlib.rc_context(STYLE):
        if len(result.steps) > 1:
            drawn.append(_size(result.steps, directory / "scale.svg"))
        if result.steady is not None:
            drawn.append(_steady(result.steady, directory / "steady.svg"))
    return drawn


def _size(steps: list[Step], path: Path) -> Path:
    figure, grid = pyplot.subplots(2, 3, figsize=(10, 5.2), layout="constrained")
    some = [step for step in steps if step.sessions]
    for axes, (title, unit, series, goals) in zip(grid.flat, PANELS, strict=True):
        axes.set_title(title, fontsize=9, loc="left")
        axes.set_xscale("log")
        axes.set_ylabel(unit)
        for name, colour, value in series:
            axes.plot(
                [step.sessions for step in some], [value(step) for step in some], "o-", color=colour, label=name, ms=4
            )
        for goal in goals:
            axes.axhline(goal, color=RED, linewidth=0.8, linestyle="--")
        axes.set_ylim(bottom=0)
        if len(series) > 1:
            axes.legend(frameon=False, fontsize=8)
    for axes in grid[-1]:
        axes.set_xlabel("stored sessions")
    return _saved(figure, path)


def _steady(steady: Steady, path: Path) -> Path:
    figure, axes = pyplot.subplots(figsize=(10, 2.8), layout="constrained")
    _mark_checkpoints(axes, steady)
    axes.plot([each.at_s for each in steady.moments], [each.late_ms for each in steady.moments], color=BLUE, lw=0.8)
    axes.axhline(GOAL_PAUSE_MS, color=RED, linewidth=0.8, linestyle="--")
    axes.set_ylim(0, max(GOAL_PAUSE_MS * 1.1, steady.late.max_ms * 1.05))
    axes.set_xlim(0, steady.seconds)
    axes.set_xlabel("seconds; grey: a checkpoint is under way")
    axes.set_ylabel("longest pause, ms")
    axes.set_title(
        f"pauses of the loop, {steady.operations_per_s:,.0f} operations/s, longest of each 0.1 s;"
        f" p99.9 of all: {steady.late.p999_ms:.1f} ms",
        fontsize=9,
        loc="left",
    )
    return _saved(figure, path)


def _mark_checkpoints(axes: Axes, steady: Steady) -> None:
    width_s = steady.moments[1].at_s - steady.moments[0].at_s if len(steady.moments) > 1 else steady.seconds
    for moment in steady.moments:
        if moment.checkpoint:
            axes.axvspan(moment.at_s, moment.at_s + width_s, color=GREY, alpha=0.35, linewidth=0)


def _saved(figure: Figure, path: Path) -> Path:
    figure.savefig(path, metadata={"Date": None})
    pyplot.close(figure)
    return path
