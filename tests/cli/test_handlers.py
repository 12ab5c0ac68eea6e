"""`truba handlers` as a process that a real pipe dials: it finishes, it fails, it stops when told."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import redis

from tests.cli.conftest import TRUBA, Serve, environment


def command(*args: str) -> tuple[list[str], dict[str, str]]:
    return [*TRUBA, "handlers", *args], environment()


class Service:
    def __init__(self, directory: Path, *args: str) -> None:
        line, env = command(*args)
        self.process = subprocess.Popen(line, cwd=directory, stderr=subprocess.PIPE, text=True, env=env)
        assert self.process.stderr is not None
        self.ready: dict[str, Any] = json.loads(self.process.stderr.readline())
        assert self.ready["event"] == "ready"

    def stop(self, signum: int) -> tuple[int, list[dict[str, Any]]]:
        self.process.send_signal(signum)
        _, err = self.process.communicate(timeout=30)
        return self.process.returncode, [json.loads(line) for line in err.splitlines()]


@pytest.fixture
def secret(tmp_path: Path) -> Path:
    (tmp_path / "secret").write_text("hush\n")
    return tmp_path / "secret"


@pytest.fixture
def service(tmp_path: Path, secret: Path) -> Iterator[Service]:
    args = ("--listen", "127.0.0.1:0", "--secret-file", str(secret))
    started = Service(tmp_path, "tests.cli.doomed:HANDLERS", *args)
    yield started
    if started.process.poll() is None:
        started.process.kill()
        started.process.communicate(timeout=30)


@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGINT])
def test_it_finishes_what_was_left_behind(serve: Serve, service: Service, tmp_path: Path, signum: int) -> None:
    served = serve(
        f"""
        [kinds.transfer]
        number = 7
        handler = "truba://{service.ready["listen"]}"
        handler_secret_file = "secret"
        [kinds.doomed]
        number = 9
        handler = "truba://{service.ready["listen"]}"
        handler_secret_file = "secret"
        max_attempts = 1
        """
    )
    host, port = served.address.split(":")
    client = redis.Redis(host, int(port), protocol=3)
    number = client.execute_command("NEW", 7, b"one", b"two").decode()
    client.execute_command("STORE", number, 0)
    client.execute_command("STORE", client.execute_command("NEW", 9, b"hidden contents"), 0)
    finished = tmp_path / f"finished-{number}"
    until_s = time.monotonic() + 30
    while time.monotonic() < until_s:
        phases = [session[b"phase"] for session in client.execute_command("LS")[1]]
        if finished.exists() and phases == [b"parked"]:
            break
        time.sleep(0.01)
    assert finished.read_bytes() == b"one\ntwo"
    assert phases == [b"parked"]
    code, logged = service.stop(signum)
    assert code == 0
    assert logged[-1]["event"] == "stopped"
    assert (logged[-1]["finished"], logged[-1]["failed"]) == (1, 1)
    assert "it cannot be done" in json.dumps(logged)
    assert "hidden contents" not in json.dumps(logged)


@pytest.mark.timeout(60)
@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_while_it_starts_is_a_clean_stop_too(tmp_path: Path, signum: int) -> None:
    """It comes while the module of the handlers is imported, which waits for us."""
    (tmp_path / "slow.py").write_text("open('fifo').read()\nHANDLERS = {7: print}\n")
    os.mkfifo(tmp_path / "fifo")
    line, env = command("slow:HANDLERS", "--listen", "127.0.0.1:0")
    process = subprocess.Popen(line, cwd=tmp_path, stderr=subprocess.PIPE, text=True, env=env)
    with (tmp_path / "fifo").open("w"):  # opens when the other side does
        process.send_signal(signum)
    _, err = process.communicate(timeout=30)
    assert process.returncode == 0, err
    assert [json.loads(line)["event"] for line in err.splitlines()] == ["stopped"]


@pytest.mark.parametrize(
    ("args", "code", "said"),
    [
        (("nowhere:H",), 2, "cannot be loaded"),
        (("tests.cli.doomed:nothing",), 2, "cannot be loaded"),
        (("tests.cli.doomed:handler",), 2, "is no dictionary of handlers"),
        (("tests.cli.doomed:EMPTY",), 2, "is no dictionary of handlers"),
        (("tests.cli.doomed:NAMED",), 2, "'transfer' is no number of a kind"),
        (("tests.cli.doomed:NUMBERS",), 2, "is no function"),
        (("tests.cli.doomed:HANDLERS", "--listen", "nowhere"), 2, "'nowhere' is not an address"),
        (("tests.cli.doomed:HANDLERS", "--secret-file", "missing"), 2, "missing cannot be read"),
        (("tests.cli.doomed:HANDLERS", "--patience", "soon"), 2, "'soon' is not a time"),
        (("tests.cli.doomed:HANDLERS", "--credit", "0"), 2, "--credit"),
        (("tests.cli.doomed:HANDLERS", "--user", "x"), 2, "--user needs --password-file"),
    ],
)
def test_refusals(tmp_path: Path, args: tuple[str, ...], code: int, said: str) -> None:
    line, env = command(*args)
    ended = subprocess.run(line, cwd=tmp_path, capture_output=True, text=True, timeout=30, check=False, env=env)
    assert (ended.returncode, ended.stdout) == (code, "")
    assert said in ended.stderr
    assert "Traceback" not in ended.stderr


def test_a_port_in_use(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        listen = f"127.0.0.1:{server.getsockname()[1]}"
        line, env = command("tests.cli.doomed:HANDLERS", "--listen", listen)
        ended = subprocess.run(line, cwd=tmp_path, capture_output=True, text=True, timeout=30, check=False, env=env)
    assert ended.returncode == 1
    assert f"cannot listen on {listen}" in ended.stderr
    assert "next: " in ended.stderr
    assert "Traceback" not in ended.stderr


def test_modules_of_the_working_directory_are_found(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text("async def f(repeat): ...\nHANDLERS = {1: f}\n")
    service = Service(tmp_path, "mine:HANDLERS", "--listen", "127.0.0.1:0")
    assert service.ready["kinds"] == [1]
    assert service.stop(signal.SIGTERM)[0] == 0
