"""Everything that tries to break truba, for as long as you like: `make torture TIME=10m`.

    python -m tests.long --time 10m                    all suites, each in a process of its own
    python -m tests.long --time 1h simulation storms   only these
    python -m tests.long --list                        what there is
    python -m tests.long simulation --case 4711        one case again

A failing case stops its suite, not the others. Exit status 1 when any failed.
"""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
import tempfile
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path

import click
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn
from rich.table import Table

from tests.long.suites import SUITES, Suite
from truba.config.units import seconds, time_text

ROOT = Path(__file__).parents[2]
LAST_CASE_S = 300.0
"""How long the last case of a suite may take after its time is over. Then it hangs, which is a failure."""


@dataclass
class Outcome:
    suite: str
    first: int
    cases: int
    seconds: float
    failed: int | None
    story: str


class Runner:
    """Runs suites, `jobs` at a time, each for its share of the time."""

    def __init__(self, suites: list[Suite], time_s: float, jobs: int, base: int | None) -> None:
        self.suites = suites
        self.jobs = min(jobs, len(suites))
        self.share_s = time_s * self.jobs / sum(suite.share for suite in suites)
        self.base = random.randrange(1_000_000_000) if base is None else base
        self.running: dict[str, subprocess.Popen[str]] = {}
        self._lock = threading.Lock()
        self._stopped = False

    def run(self, progress: Progress) -> list[Outcome]:
        tasks = {suite.name: progress.add_task(suite.name, total=self.share_s * suite.share, cases=0, start=False)
                 for suite in self.suites}  # fmt: skip
        with ThreadPoolExecutor(self.jobs) as pool:
            try:
                return list(pool.map(lambda suite: self._one(suite, progress, tasks[suite.name]), self.suites))
            except BaseException:
                self.stop()
                raise

    def stop(self) -> None:
        with self._lock:
            self._stopped = True
            for process in self.running.values():
                process.kill()

    def _one(self, suite: Suite, progress: Progress, task: TaskID) -> Outcome:
        first = 0 if suite.listed else self.base
        time_s = self.share_s * suite.share
        command = [sys.executable, "-m", "tests.long.child", suite.name, str(first), str(time_s)]
        with tempfile.TemporaryFile("w+", encoding="utf-8") as story:
            with self._lock:
                if self._stopped:
                    return Outcome(suite.name, first, 0, 0.0, None, "")
                process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=story, text=True)
                self.running[suite.name] = process
            progress.start_task(task)
            began = time.monotonic()
            last = Last(first)
            reading = threading.Thread(target=last.read, args=(process,))
            reading.start()
            while reading.is_alive():
                reading.join(0.2)
                passed = time.monotonic() - began
                progress.update(task, completed=min(passed, time_s), cases=last.n - first)
                if passed > time_s + LAST_CASE_S:
                    process.kill()
            code = process.wait()
            progress.update(task, completed=time_s, cases=last.n - first)
            with self._lock:
                del self.running[suite.name]
            story.seek(0)
            failed = last.n if code else None
            return Outcome(suite.name, first, last.n - first, time.monotonic() - began, failed, story.read())


class Last:
    """The number of the case that runs."""

    def __init__(self, first: int) -> None:
        self.n = first

    def read(self, process: subprocess.Popen[str]) -> None:
        assert process.stdout is not None
        with process.stdout as lines:
            for line in lines:
                self.n = int(line)


def again(outcome: Outcome) -> str:
    return f"python -m tests.long {outcome.suite} --case {outcome.failed}"


def report(outcomes: list[Outcome], console: Console) -> None:
    table = Table("suite", "cases", "seconds", "result", box=None, header_style="bold")
    for one in outcomes:
        result = "[green]held" if one.failed is None else f"[red]failed: {again(one)}"
        table.add_row(one.suite, f"{one.cases:,}", f"{one.seconds:.0f}", result)
    console.print(table)


def parse_time(_context: click.Context, _parameter: click.Parameter, value: str) -> float:
    try:
        return seconds(value)
    except ValueError as error:
        raise click.BadParameter("; ".join(map(str, error.args))) from None


@click.command(help=__doc__.replace("\n\n    ", "\n\n\b\n    "))
@click.argument("names", nargs=-1, type=click.Choice([suite.name for suite in SUITES]))
@click.option("--time", "time_s", default="10m", callback=parse_time, help="For all suites together [10m].")
@click.option("--jobs", default=os.cpu_count() or 1, type=click.IntRange(1), help="Suites at a time [one a core].")
@click.option("--seed", type=click.IntRange(0), help="The number of the first case [by chance].")
@click.option("--case", "case", type=click.IntRange(0), help="Run this case of one suite, in this process.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object at the end.")
@click.option("--list", "listing", is_flag=True, help="Show the suites.")
def main(
    names: tuple[str, ...], time_s: float, jobs: int, seed: int | None, case: int | None, as_json: bool, listing: bool
) -> None:
    suites = [suite for suite in SUITES if not names or suite.name in names]
    console = Console(stderr=as_json)
    if listing:
        table = Table("suite", "asserts", box=None, header_style="bold")
        for suite in suites:
            table.add_row(suite.name, suite.asserts)
        Console().print(table)
        return
    if case is not None:
        if len(names) != 1:
            raise click.UsageError("--case wants the name of one suite")
        suites[0].load()(case)
        console.print(f"{suites[0].name} {case}: held")
        return
    runner = Runner(suites, time_s, jobs, seed)
    console.print(f"{len(suites)} suites in {time_text(time_s)}, {runner.jobs} at a time, first case {runner.base}")
    columns = (TextColumn("{task.description:<14}"), BarColumn(30), TextColumn("{task.fields[cases]:,} cases"),
               TimeElapsedColumn())  # fmt: skip
    with Progress(*columns, console=console) as progress:
        outcomes = runner.run(progress)
    for one in outcomes:
        if one.failed is not None:
            console.rule(f"{one.suite}, case {one.failed}")
            console.print("\n".join(one.story.splitlines()[-200:]), markup=False, highlight=False)
    report(outcomes, console)
    failed = [one for one in outcomes if one.failed is not None]
    if as_json:
        print(json.dumps({"seed": runner.base, "suites": [asdict(one) for one in outcomes]}))  # noqa: T201
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
