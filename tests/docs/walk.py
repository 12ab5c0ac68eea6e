"""A page that is walked through: its files written, its commands typed into one shell, in order, as a reader would.

`console` blocks have a `$ ` before each command, and below it what it prints. `...` in that stands for anything, and a
time for any time. A Python or TOML block whose first line is `# name` is the file of that name.

Three things a reader does without being told, and so does the walk: wait for what a command in the background (`&`)
will say, look again when what is shown takes a moment to come about, and overlook the shell's own notes about jobs.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import threading
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

PATIENCE_S = 60.0
"""For one command to show what the page shows: far above what it takes on a busy machine."""

LOOKS = ("truba ls", "truba show", "python bank.py")
"""They change nothing, so that a look can be taken again."""

NOBODY = "truba: no pipe at"
"""What is not a matter of another look: the page must wait for the pipe before."""

FENCE = re.compile(r"^```(\w+)\n(.*?)^```$", re.DOTALL | re.MULTILINE)
TIME = re.compile(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d")
MARK = re.compile(r"^MARK (\d+) (\d+)$")
SHELLS_OWN = re.compile(r"^\S*bash: line \d+: +\d+ Killed ")


class File(NamedTuple):
    name: str
    text: str


class Command(NamedTuple):
    line: str
    shown: tuple[str, ...]

    def is_shown_by(self, output: list[str]) -> bool:
        """Blank lines and blanks at the end of lines apart."""
        seen, wanted = ([line.rstrip() for line in lines if line.strip()] for lines in (output, self.shown))
        return len(seen) == len(wanted) and all(
            re.fullmatch(_pattern(want), line) for want, line in zip(wanted, seen, strict=True)
        )


def _pattern(want: str) -> str:
    parts = re.split(rf"({TIME.pattern})", want)
    return "".join(TIME.pattern if TIME.fullmatch(part) else re.escape(part).replace(r"\.\.\.", ".*") for part in parts)


def steps(page: str) -> Iterator[File | Command]:
    for language, text in FENCE.findall(page):
        first, _, rest = text.partition("\n")
        if language == "console":
            yield from _commands(text)
        elif first.startswith("# "):
            yield File(first.removeprefix("# "), rest)


def _commands(text: str) -> Iterator[Command]:
    for part in re.split(r"^\$ ", text, flags=re.MULTILINE)[1:]:
        line, *shown = part.splitlines()
        yield Command(line, tuple(shown))


class Shell:
    """One bash, and what it and everything in its background say."""

    def __init__(self, directory: Path, environment: Mapping[str, str]) -> None:
        self._process = subprocess.Popen(
            ["bash", "--norc"], cwd=directory, env=environment, start_new_session=True, text=True, bufsize=1,
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        )  # fmt: skip
        self._lines: list[str] = []
        self._news = threading.Condition()
        self._count = 0
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            if not SHELLS_OWN.match(line):
                with self._news:
                    self._lines.append(line.rstrip("\n"))
                    self._news.notify_all()

    def type(self, command: Command) -> None:
        """AssertionError: it did not show what the page shows, or failed where the page shows nothing of that."""
        deadline_s = time.monotonic() + PATIENCE_S
        while True:
            code, output = self._once(command, deadline_s)
            if command.is_shown_by(output):
                assert code == 0 or command.shown, f"$ {command.line}: exit code {code}"
                return
            met = not any(line.startswith(NOBODY) for line in output)
            again = command.line.startswith(LOOKS) and met and time.monotonic() < deadline_s
            assert again, "\n".join([f"$ {command.line}", *output, "-- but the page shows:", *command.shown])

    def _once(self, command: Command, deadline_s: float) -> tuple[int, list[str]]:
        assert self._process.stdin is not None
        self._count += 1
        begin = len(self._lines)
        print(command.line, file=self._process.stdin)
        print(f"echo MARK {self._count} $?", file=self._process.stdin, flush=True)

        def said() -> tuple[int | None, list[str]]:
            code, output = None, []
            for line in self._lines[begin:]:
                if mark := MARK.match(line):
                    code = int(mark[2])
                else:
                    output.append(line)
            return code, output

        def complete() -> bool:
            code, output = said()
            return code is not None and (not command.line.endswith("&") or command.is_shown_by(output))

        with self._news:
            self._news.wait_for(complete, max(0, deadline_s - time.monotonic()))
        code, output = said()
        assert code is not None, f"$ {command.line}: it did not end"
        return code, output

    def close(self) -> None:
        """Everything that was started from here ends with it."""
        os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        self._reader.join()
        for stream in (self._process.stdin, self._process.stdout):
            assert stream is not None
            stream.close()
