"""One mutant on trial: a copy of the source, the change, and the tests that must fail on it."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterable
from dataclasses import dataclass
from importlib.util import cache_from_source
from pathlib import Path
from typing import Literal

from tests.mutants.catalogue import ROOT, Mutant

SOURCE = "TRUBA_MUTANT_SOURCE"
"""For `tests.mutants.guard`: the directory that truba must come from."""
FAILED = "TRUBA_MUTANT_FAILED"
"""For it, too: the file that it writes the first failed test to, as JSON."""

TEST_S = 60.0
"""A test that takes longer hangs: ten times what the slowest of them takes on a busy machine."""
TRIAL_S = 300.0
"""Where not even that could be seen, because nothing gets the interpreter any more."""

LOOK_S = 0.05

Verdict = Literal["caught", "hang", "survived", "broken"]
"""hang: caught, by standing still. broken: the tests could not be run at all, which says nothing."""

_FAILED, _PASSED = 1, 0  # exit codes of pytest


@dataclass(frozen=True, slots=True)
class Outcome:
    verdict: Verdict
    test: str  # the first that failed
    why: str
    seconds: float

    @property
    def caught(self) -> bool:
        return self.verdict in ("caught", "hang")


class Court:
    """Tries one mutant after another, on any thread, until it is closed."""

    def __init__(self) -> None:
        self._running: set[subprocess.Popen[str]] = set()
        self._lock = threading.Lock()
        self._closed = False

    def try_mutant(self, mutant: Mutant) -> Outcome:
        return self._try(mutant.tests, mutant)

    def try_nothing(self, tests: Iterable[str]) -> Outcome:
        """The control: the same tests on the same kind of copy, without any change."""
        return self._try(sorted(set(tests)), None)

    def close(self) -> None:
        """End what is under way, and begin nothing more."""
        with self._lock:
            self._closed = True
            for process in self._running:
                _kill_group(process)

    def _try(self, tests: Iterable[str], mutant: Mutant | None) -> Outcome:
        began = time.monotonic()
        with tempfile.TemporaryDirectory(prefix="mutant-", ignore_cleanup_errors=True) as made:
            place = Path(made)
            # With the compiled files and the times, so that only what is changed is compiled again.
            shutil.copytree(ROOT / "src", place / "src")
            if mutant is not None:
                _apply(mutant, place / "src")
            code, said = self._run(place, tests, limit_s=TRIAL_S if mutant is not None else None)
            seconds = time.monotonic() - began
            found = place / "failed.json"
            failed = json.loads(found.read_text()) if found.exists() else {"test": "", "why": ""}
        if code is None:
            return Outcome("hang", failed["test"], f"not over after {TRIAL_S:.0f} s", seconds)
        if code == _PASSED:
            return Outcome("survived", "", "", seconds)
        if code == _FAILED and failed["test"]:
            hang = failed["why"].startswith("Failed: Timeout (>")
            return Outcome("hang" if hang else "caught", failed["test"], failed["why"], seconds)
        return Outcome("broken", "", f"pytest ended with {code}: {said[-2000:]}", seconds)

    def _run(self, place: Path, tests: Iterable[str], limit_s: float | None) -> tuple[int | None, str]:
        """Exit code of pytest, None when it hangs; and what it said."""
        command = [
            sys.executable, "-m", "pytest", "-x", "-q", "--no-header", "-p", "tests.mutants.guard",
            "-p", "no:cacheprovider", "-p", "no:xdist", "--hypothesis-seed=0", f"--timeout={TEST_S}",
            f"--basetemp={place / 't'}", *tests,
        ]  # fmt: skip
        said = place / "said.txt"
        with said.open("w") as out:
            with self._lock:
                if self._closed:
                    return None, ""
                process = subprocess.Popen(
                    command, cwd=ROOT, env=_environment(place), stdin=subprocess.DEVNULL, stdout=out, stderr=out,
                    start_new_session=True,
                )  # fmt: skip
                self._running.add(process)
            over = _await_end(process, limit_s)
            with self._lock:
                _kill_group(process)  # whatever the tests have started, too
                code = process.wait()
                self._running.discard(process)
        return code if over else None, said.read_text(errors="replace")


def _await_end(process: subprocess.Popen[str], limit_s: float | None) -> bool:
    """Whether it ended in time. It is left a zombie, so that its number is still its own when its group is killed."""
    until = time.monotonic() + (float("inf") if limit_s is None else limit_s)
    while os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None:
        if time.monotonic() > until:
            return False
        time.sleep(LOOK_S)
    return True


def _apply(mutant: Mutant, source: Path) -> None:
    path = source / "truba" / mutant.file
    path.write_text(mutant.mutate(path.read_text()))
    Path(cache_from_source(str(path))).unlink(missing_ok=True)


def _environment(place: Path) -> dict[str, str]:
    plain = {name: value for name, value in os.environ.items() if not name.startswith(("PYTEST_", "TRUBA_"))}
    return plain | {
        "PYTHONPATH": os.pathsep.join((str(place / "src"), str(ROOT))),
        "HYPOTHESIS_STORAGE_DIRECTORY": str(place / "hypothesis"),
        SOURCE: str(place / "src"),
        FAILED: str(place / "failed.json"),
    }


def _kill_group(process: subprocess.Popen[str]) -> None:
    """The process, which nobody has waited for yet, and all that it started in its group."""
    os.killpg(process.pid, signal.SIGKILL)
