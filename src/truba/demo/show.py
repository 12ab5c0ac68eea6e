"""What is on the screen while the demo runs: live on a terminal, lines elsewhere, nothing with `--json`."""

from __future__ import annotations

import sys
import time
from collections import deque
from dataclasses import dataclass, field
from types import TracebackType
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from rich.console import Group

Tone = Literal["kill", "good", "plain"]

NEWS_SHOWN = 9
REFRESH_PER_S = 8


@dataclass
class Board:
    """The state of the demo, for the screen. Counts; `unfinished` by phase, None while the pipe does not answer."""

    with_pipe: bool
    total: int
    taken: int = 0
    by_workers: int = 0
    by_handler: int = 0
    workers_killed: int = 0
    unfinished: dict[str, int] | None = None
    others: dict[str, Literal["up", "killed", "stopped"]] = field(default_factory=dict)
    """Handler, and the processes of the pipe."""
    cluster: bool = False


class Show:
    """Shows nothing; the others build on it. A context manager."""

    def __init__(self, board: Board) -> None:
        self.board = board
        self._started_s = time.monotonic()

    @property
    def elapsed_s(self) -> float:
        return time.monotonic() - self._started_s

    def news(self, text: str, tone: Tone = "plain") -> None:
        """Something happened that people want to see."""

    def __enter__(self) -> Show:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None: ...


class Lines(Show):
    def news(self, text: str, tone: Tone = "plain") -> None:
        board = self.board
        where = f"{self.elapsed_s:5.1f}s  {board.taken:4}/{board.total}"
        print(f"{where}  {text}", flush=True)  # noqa: T201 - this is the screen


class Screen(Show):
    """A panel that changes in place."""

    def __init__(self, board: Board) -> None:
        super().__init__(board)
        from rich.live import Live

        self._news: deque[tuple[float, str, Tone]] = deque(maxlen=NEWS_SHOWN)
        self._live = Live(get_renderable=self._render, refresh_per_second=REFRESH_PER_S)

    def news(self, text: str, tone: Tone = "plain") -> None:
        self._news.append((self.elapsed_s, text, tone))

    def _render(self) -> Group:
        from rich.console import Group
        from rich.padding import Padding
        from rich.progress_bar import ProgressBar
        from rich.table import Table
        from rich.text import Text

        board = self.board
        facts = Table.grid(padding=(0, 2))
        facts.add_column(justify="right", style="bold")
        facts.add_column()
        facts.add_row(f"{board.taken}/{board.total}", "transfers begun")
        facts.add_row(str(board.by_workers), "done by workers")
        if board.with_pipe:
            facts.add_row(f"[green]{board.by_handler}", "finished by the handler, after a worker had died or stalled")
            facts.add_row(*self._unfinished())
        facts.add_row(f"[red]{board.workers_killed}", "workers killed")
        for name, state in board.others.items():
            facts.add_row(f"[{'red' if state == 'killed' else 'green'}]{state}", name)
        lines = Text()
        for at_s, text, tone in list(self._news):
            style = {"kill": "red", "good": "green", "plain": ""}[tone]
            lines.append(f"{at_s:5.1f}s  ", "dim").append(text + "\n", style)
        pipe = "a pipe of three nodes" if board.cluster else "one pipe" if board.with_pipe else "and no pipe"
        heading = f"two banks, four workers, {pipe}"
        bar = Padding(ProgressBar(total=board.total, completed=board.taken, width=60), 0)
        return Group(Text(f"{heading}   {self.elapsed_s:.0f}s", "bold"), bar, facts, Text(), lines)

    def _unfinished(self) -> tuple[str, str]:
        counts = self.board.unfinished
        if counts is None:
            return "?", "unfinished sessions now (the pipe does not answer)"
        phases = ", ".join(f"{number} {phase}" for phase, number in counts.items() if number and phase != "active")
        waiting = sum(number for phase, number in counts.items() if phase != "active")
        return str(
            waiting
        ), f"unfinished sessions now{': ' * bool(phases)}{phases}; {counts.get('active', 0)} held by workers"

    def __enter__(self) -> Show:
        self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._live.stop()


def best_show(board: Board, *, silent: bool) -> Show:
    if silent:
        return Show(board)
    return Screen(board) if sys.stdout.isatty() else Lines(board)
