"""The service as its users run it: `python -m truba serve`, a process of its own on a free port, ended by its id.

Nothing here imports the service: what these tests know of it came over a socket, a signal or standard error.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterable, Iterator
from importlib.machinery import ModuleSpec
from importlib.util import find_spec
from pathlib import Path
from typing import Any, cast

ROOT = Path(__file__).parents[2]
SOURCE = Path(str(cast(ModuleSpec, find_spec("truba")).origin)).parents[1]
"""Where truba comes from: not always this checkout, e.g. a copy of it that has a bug on purpose."""
PATIENCE_S = 30.0
"""How long anything may take before the test that waits for it fails: far above what it takes on a busy machine."""

NOBODY = "truba://127.0.0.1:1"
"""A handler's address at which nothing listens: port 1 belongs to nobody."""


def environment() -> dict[str, str]:
    """Ours, without settings of the commands, so that children import the truba that we would, and these tests."""
    plain = {name: value for name, value in os.environ.items() if not name.startswith("TRUBA_")}
    path = (str(SOURCE), str(ROOT), plain.get("PYTHONPATH"))
    return plain | {"PYTHONPATH": os.pathsep.join(filter(None, path)), "PYTHONUNBUFFERED": "1"}


def cli(*words: str, **variables: str) -> subprocess.CompletedProcess[str]:
    """A command of truba, to its end; `variables`: of its environment."""
    return subprocess.run(
        [sys.executable, "-m", "truba", *words],
        env=environment() | variables, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip


class Child:
    """A process with piped standard error, read by a thread so that it never stands still for us."""

    def __init__(self, command: list[str], **options: Any) -> None:
        self.lines: list[str] = []
        self._news = threading.Condition()
        self._over = False
        self.process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environment(), **options)
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    @property
    def pid(self) -> int:
        return self.process.pid

    def _read(self) -> None:
        assert self.process.stderr is not None
        for line in self.process.stderr:
            with self._news:
                self.lines.append(line)
                self._news.notify_all()
        with self._news:
            self._over = True
            self._news.notify_all()

    def wait_line(self, text: str, patience_s: float = PATIENCE_S) -> str:
        """The first line of standard error that holds `text`; it fails when the process ends before."""

        def found() -> str | None:
            return next((line for line in self.lines if text in line), None)

        with self._news:
            self._news.wait_for(lambda: found() is not None or self._over, patience_s)
            line = found()
        assert line is not None, f"no line with {text!r}: {''.join(self.lines)}"
        return line

    def wait(self, patience_s: float = PATIENCE_S) -> int:
        """Its exit code, with everything it said read."""
        code = self.process.wait(patience_s)
        self._reader.join(patience_s)
        if self.process.stderr is not None:
            self.process.stderr.close()
        return code

    def send(self, signum: int) -> None:
        if self.process.poll() is None:
            self.process.send_signal(signum)

    def kill(self) -> None:
        """SIGKILL, and wait until it is gone."""
        self.send(signal.SIGKILL)
        self.wait()

    def terminate(self) -> int:
        """SIGTERM; the exit code."""
        self.send(signal.SIGTERM)
        return self.wait()


class Server(Child):
    """A pipe that has said `ready`."""

    def __init__(self, config: Path, args: Iterable[str] = ()) -> None:
        self.config = config
        super().__init__(
            [sys.executable, "-m", "truba", "serve", "--config", str(config), *args],
            stdin=subprocess.DEVNULL,
            cwd=config.parent,
        )
        try:
            self.ready: dict[str, Any] = json.loads(self.wait_line('"event": "ready"'))
        except BaseException:
            self.kill()
            raise
        self.host, _, port = str(self.ready["listen"]).rpartition(":")
        self.port = int(port)
        self.unix = self.ready["unix"]

    @property
    def address(self) -> tuple[str, int]:
        return self.host, self.port

    @property
    def url(self) -> str:
        return f"truba://{self.host}:{self.port}"

    @property
    def logged(self) -> list[dict[str, Any]]:
        """Its log so far, as values. A traceback or a warning of Python's is no log line and fails here."""
        return [json.loads(line) for line in self.lines]

    def rss_bytes(self) -> int:
        for line in Path(f"/proc/{self.pid}/status").read_text().splitlines():
            if line.startswith("VmRSS:"):
                return int(line.split()[1]) * 1024
        raise AssertionError("no VmRSS")


class Servers:
    """Starts pipes under one directory, and leaves none behind."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self._running: list[Child] = []

    def configure(self, text: str | None = None, *, node: str = "", name: str = "truba.toml") -> Path:
        """Write a configuration with these kinds (default: kind 7, whose handler is not there) and lines of [node]."""
        path = self.directory / name
        listen = "" if "listen" in node else 'listen = "127.0.0.1:0"\n'
        path.write_text(f"[node]\n{listen}{node}\n{kind() if text is None else text}")
        return path

    def start(self, text: str | None = None, *, node: str = "", name: str = "truba.toml") -> Server:
        return self.start_again(self.configure(text, node=node, name=name))

    def start_again(self, config: Path, *args: str) -> Server:
        server = Server(config, args)
        self._running.append(server)
        return server

    def child(self, module: str, *args: object, **options: Any) -> Child:
        """A helper of these tests as a process: `python -m tests.service.<module>`."""
        command = [sys.executable, "-m", f"tests.service.{module}", *map(str, args)]
        child = Child(command, cwd=self.directory, **options)
        self._running.append(child)
        return child

    def refused(self, config: Path, *args: str) -> tuple[int, str]:
        """Start a pipe that must not start: exit code and what it said, without its log lines."""
        ended = subprocess.run(
            [sys.executable, "-m", "truba", "serve", "--config", str(config), *args],
            cwd=self.directory, env=environment(), capture_output=True, text=True, timeout=PATIENCE_S, check=False,
        )  # fmt: skip
        assert ended.returncode != 0
        assert ended.stdout == ""
        assert "Traceback" not in ended.stderr, ended.stderr
        return ended.returncode, "".join(
            line for line in ended.stderr.splitlines(keepends=True) if not line.startswith("{")
        )

    def stop(self) -> None:
        for child in self._running:
            child.kill()


def servers(directory: Path) -> Iterator[Servers]:
    """The body of a fixture."""
    made = Servers(directory)
    try:
        yield made
    finally:
        made.stop()


def kind(number: int = 7, name: str = "transfer", handler: str = NOBODY, **settings: object) -> str:
    """A table of one kind. Its sessions come back at once after a loss unless `settings` say otherwise."""
    table = {"recovery_delay": "0s", "jitter": "0s"} | settings
    lines = [f"[kinds.{name}]", f"number = {number}", f'handler = "{handler}"']
    lines += [f"{key} = {_toml(value)}" for key, value in table.items()]
    return "\n".join(lines) + "\n"


def _toml(value: object) -> str:
    if isinstance(value, dict):
        return "{ " + ", ".join(f"{key} = {_toml(item)}" for key, item in value.items()) + " }"
    return json.dumps(value)
