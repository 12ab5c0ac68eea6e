"""The measurement of size: figures and goals with values, pictures of a made-up result, and one short real run."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest

from bench.scale.charts import draw
from bench.scale.pauses import Late, Moment, Pauses, moments, percentile, summed_up
from bench.scale.report import BEGIN, END, cases, markdown, rewrite
from bench.scale.results import Active, Large, Long, Owners, Result, Steady, Step, verdicts
from bench.scale.run import full, quick, steps_to
from truba.errors import ConfigError

ROOT = Path(__file__).parents[2]
LATE = Late(1_000, 0.1, 2.0, 30.0, 70.0)


def step(sessions: int) -> Step:
    return Step(sessions, 100, 50, 60_000, 0.5, 180_000, 0.97, 2.0, 0.001, 0.3, 25_000, 9_000, 1 << 27, sessions * 400)


RESULT = Result(
    "2026-01-01 00:00 UTC",
    "abcdef0",
    {"cores": 2},
    [step(0), step(10_000), step(100_000)],
    Owners(5_000, 4_096, 7_000, 60_000, 20, 1.2),
    Active(1_000_000, 1_024, 90_000, LATE, 0.5, LATE, 12, LATE, 9.5),
    Long(10_000, (5_000.0, 4_900.0), 12),
    Large(1 << 20, 512, 100, 230),
    Steady(60, 120_000, 900_000, 55, 1 << 30, LATE, (Moment(0.0, 3.0, False), Moment(0.1, 30.0, True))),
)


def test_a_percentile_is_a_value_that_was_seen() -> None:
    ordered = list(range(1, 1_001))
    assert [percentile(ordered, each) for each in (0.1, 50, 99, 99.9, 100)] == [1, 500, 990, 999, 1_000]
    assert percentile([7], 50) == 7
    with pytest.raises(ValueError, match="nothing"):
        percentile([], 50)


def test_pauses_are_summed_up_in_milliseconds() -> None:
    assert summed_up([0.001] * 998 + [0.05, 0.2]) == Late(1_000, 1.0, 1.0, 50.0, 200.0)


def test_of_each_moment_the_longest_pause_counts_and_a_checkpoint_that_touched_it() -> None:
    samples = [(0.01, 0.002, False), (0.09, 0.001, True), (0.11, 0.003, False), (0.35, 0.004, False)]
    assert moments(samples, 0.1) == [
        Moment(0.0, 2.0, True),
        Moment(0.1, 3.0, False),
        Moment(pytest.approx(0.3), 4.0, False),
    ]


async def test_a_loop_that_is_held_is_seen() -> None:
    with Pauses() as pauses:
        await asyncio.sleep(0)
        hold = asyncio.get_running_loop().time() + 0.05
        while asyncio.get_running_loop().time() < hold:
            pass
    assert pauses.late.max_ms >= 40


def test_steps_go_up_tenfold() -> None:
    assert steps_to(10_000_000) == (0, 10_000, 100_000, 1_000_000, 10_000_000)
    assert steps_to(50_000) == (0, 10_000, 50_000)
    assert full(10_000_000).steps[-1] == 10_000_000
    assert quick(1_000).steps == (0, 1_000)


def test_a_goal_that_is_missed_is_said() -> None:
    assert all(verdict.met for verdict in verdicts(RESULT))
    last = msgspec.structs.replace(step(100_000), ready_s=3.5, local_per_s=19_999, work_ratio=0.89)
    worse = msgspec.structs.replace(RESULT, steps=[step(0), last])
    missed = {verdict.goal: verdict.found for verdict in verdicts(worse) if not verdict.met}
    assert missed == {
        "new work at 100,000 stored sessions, of that on an empty directory: at least 0.9": "0.89",
        "ready at 100,000 stored sessions: under 3 s": "3.5 s",
        "deliveries at 100,000 stored sessions, in process: at least 20,000/s": "19,999/s",
    }


def test_what_was_not_measured_is_not_judged() -> None:
    only = Result("", "", {}, [], steady=RESULT.steady)
    assert [verdict.goal for verdict in verdicts(only)] == ["pause of the loop under full load, p99.9: under 50 ms"]
    assert len(list(cases(only))) == 3


def test_the_page_gets_the_tables_between_its_marks(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(f"before\n{BEGIN}\nold\n{END}\nafter\n")
    rewrite(page, markdown(RESULT))
    text = page.read_text()
    assert text.startswith(f"before\n{BEGIN}\nMeasured 2026-01-01 00:00 UTC at commit abcdef0: cores 2.\n")
    assert (
        "| 100,000 | 100 | 50 | 60,000 | 0.50 | 180,000 | 0.97 | 1.00 | 0.001 | 0.30 | 25,000 | 9,000 | 128 | 38 |"
        in text
    )
    assert "| 100,000 of them, by that figure | 391 MiB |" in text
    assert text.endswith(f"{END}\nafter\n")
    assert "old" not in text
    page.write_text("no marks")
    with pytest.raises(ConfigError, match="no place for the result"):
        rewrite(page, "")


def test_pictures_are_the_same_for_the_same_result(tmp_path: Path) -> None:
    drawn = draw(RESULT, tmp_path / "a")
    assert [path.name for path in drawn] == ["scale.svg", "steady.svg"]
    again = draw(RESULT, tmp_path / "b")
    assert [path.read_bytes() for path in drawn] == [path.read_bytes() for path in again]
    assert all(b"<svg" in path.read_bytes() for path in drawn)
    assert draw(Result("", "", {}, []), tmp_path / "c") == []


@pytest.mark.timeout(300)
def test_a_short_run_measures_everything(tmp_path: Path) -> None:
    words = [sys.executable, "-m", "bench.scale", "--quick", "--sessions", "2000", "--data", str(tmp_path), "--json"]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(ROOT / "src"), str(ROOT)])}
    done = subprocess.run(words, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    result = msgspec.convert(json.loads(done.stdout), Result)
    assert [each.sessions for each in result.steps] == [0, 2_000]
    last = result.steps[-1]
    assert min(last.stored_per_s, last.ready_s, last.work_per_s, last.local_per_s, last.service_per_s) > 0
    assert last.log_bytes > 0
    assert None not in (result.owners, result.active, result.long, result.large, result.steady)
    assert list(tmp_path.iterdir()) == []

    page = tmp_path / "page.md"
    page.write_text(f"{BEGIN}\n{END}\n")
    earlier = tmp_path / "result.json"
    earlier.write_text(done.stdout)
    shown = [*words[:3], "--from", str(earlier), "--quick", "--update", str(page), "--charts", str(tmp_path)]
    subprocess.run(shown, cwd=ROOT, env=environment, check=True, capture_output=True)
    assert "| 2,000 |" in page.read_text()
    assert (tmp_path / "scale.svg").exists()
