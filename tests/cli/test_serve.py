"""`truba serve` as a process: a clean stop, and refusals that say what to do."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from pathlib import Path

import pytest
import redis

from tests.cli.conftest import TRUBA, Serve, environment
from truba.address import address
from truba.log import inspect
from truba.log.segment import segment_name

KIND = '[kinds.transfer]\nnumber = 7\nhandler = "truba://127.0.0.1:1"\n'


def refused(directory: Path, *args: str) -> tuple[int, str]:
    command = [*TRUBA, "serve", *args]
    ended = subprocess.run(
        command, cwd=directory, capture_output=True, text=True, timeout=30, check=False, env=environment()
    )
    assert ended.stdout == ""
    assert "Traceback" not in ended.stderr
    return ended.returncode, "\n".join(line for line in ended.stderr.splitlines() if not line.startswith("{"))


@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_stops_it_cleanly_and_what_was_acknowledged_is_stored(serve: Serve, signum: int) -> None:
    served = serve(KIND)
    host, port = served.address.split(":")
    with redis.Redis(host, int(port)) as client:
        number = client.execute_command("NEW", "7", b"hidden contents")
    assert served.stop(signum) == 0
    assert served.logged[-1]["event"] == "stopped"
    assert "hidden contents" not in json.dumps(served.logged)
    again = serve(KIND)
    host, port = again.address.split(":")
    with redis.Redis(host, int(port), protocol=3) as client:
        assert client.execute_command("SHOW", number)[b"records"] == [b"hidden contents"]


CLUSTER = """
[node]
name = "a"
listen = "127.0.0.1:7433"
[cluster]
servers = ["nats://127.0.0.1:1"]
replicas = 1
secret_file = "secret"
[cluster.nodes]
a = { clients = "127.0.0.1:7433", peers = "127.0.0.1:7434" }
"""


@pytest.mark.timeout(60)
@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("text", [KIND, CLUSTER + KIND], ids=["alone", "member"])
def test_a_signal_while_it_starts_is_a_clean_stop_too(tmp_path: Path, text: str, signum: int) -> None:
    """It comes while the command reads its configuration, from a pipe that we fill afterwards."""
    (tmp_path / "secret").write_text("x" * 32)
    os.mkfifo(tmp_path / "truba.toml")
    process = subprocess.Popen(
        [*TRUBA, "serve", "--json"], cwd=tmp_path, stderr=subprocess.PIPE, text=True, env=environment()
    )
    with (tmp_path / "truba.toml").open("w") as file:  # opens when the other side does
        process.send_signal(signum)
        file.write(text)
    _, err = process.communicate(timeout=30)
    assert process.returncode == 0, err
    assert json.loads(err.splitlines()[-1])["event"] == "stopped"
    assert not (tmp_path / "data").exists()


@pytest.mark.timeout(60)
def test_an_ipv6_address_is_told_as_it_is_written(tmp_path: Path) -> None:
    (tmp_path / "truba.toml").write_text(KIND)
    command = [*TRUBA, "serve", "--listen", "[::1]:0"]
    process = subprocess.Popen(command, cwd=tmp_path, stderr=subprocess.PIPE, text=True, env=environment())
    assert process.stderr is not None
    told = json.loads(process.stderr.readline())["listen"]
    process.terminate()
    assert process.wait(30) == 0
    process.stderr.close()
    assert address(told).host == "::1"


def lines_until(process: subprocess.Popen[str], event: str) -> list[str]:
    """What it logs, up to the line of that name."""
    assert process.stderr is not None
    heard: list[str] = []
    while not heard or heard[-1] != event:
        line = process.stderr.readline()
        assert line, heard
        heard.append(json.loads(line)["event"])
    return heard


@pytest.mark.timeout(60)
def test_a_reload_that_is_asked_for_while_it_starts_is_done_when_it_has(tmp_path: Path) -> None:
    file = tmp_path / "truba.toml"
    os.mkfifo(file)
    process = subprocess.Popen(
        [*TRUBA, "serve", "--json", "--listen", "127.0.0.1:0"],
        cwd=tmp_path,
        stderr=subprocess.PIPE,
        text=True,
        env=environment(),
    )
    with file.open("w") as first:  # opens when the other side does
        process.send_signal(signal.SIGHUP)
        file.unlink()
        file.write_text(KIND + '[kinds.mail]\nnumber = 8\nhandler = "truba://127.0.0.1:1"\n')
        first.write(KIND)
    lines_until(process, "configuration reloaded")
    process.terminate()
    assert process.wait(30) == 0
    assert process.stderr is not None
    process.stderr.close()


@pytest.mark.timeout(60)
def test_a_reload_that_is_asked_for_while_it_stops_ends_nothing(tmp_path: Path) -> None:
    (tmp_path / "slow.py").write_text("import asyncio\nasync def handler(repeat): await asyncio.sleep(3600)\n")
    text = (
        '[node]\nlisten = "127.0.0.1:0"\nstop_timeout = "1s"\n[kinds.a]\nnumber = 7\nhandler = "local:slow:handler"\n'
    )
    (tmp_path / "truba.toml").write_text(text)
    process = subprocess.Popen([*TRUBA, "serve"], cwd=tmp_path, stderr=subprocess.PIPE, text=True, env=environment())
    assert process.stderr is not None
    host, port = json.loads(process.stderr.readline())["listen"].split(":")
    with redis.Redis(host, int(port), protocol=3) as client:
        number = client.execute_command("NEW", "7", b"x")
        client.execute_command("STORE", number, 0)
        while client.execute_command("SHOW", number)[b"phase"] != b"repeating":
            pass
    process.terminate()
    lines_until(process, "stopping")
    process.send_signal(signal.SIGHUP)
    lines_until(process, "stopped")
    assert process.wait(30) == 0
    process.stderr.close()


def test_a_port_in_use(serve: Serve, tmp_path: Path) -> None:
    served = serve(KIND)
    code, said = refused(served.directory, "--listen", served.address, "--data", "elsewhere")
    assert code == 1
    assert served.address in said
    assert "next: stop the process that listens there, or give --listen HOST:PORT" in said


def test_a_data_directory_in_use(serve: Serve) -> None:
    served = serve(KIND)
    code, said = refused(served.directory, "--listen", "127.0.0.1:0")
    assert code == 7
    assert f"process {served.process.pid}" in said


def test_no_configuration(tmp_path: Path) -> None:
    code, said = refused(tmp_path)
    assert code == 2
    assert said == "truba: truba.toml: there is no such file; name one with --config"


def test_a_configuration_with_problems_tells_all_of_them(tmp_path: Path) -> None:
    (tmp_path / "truba.toml").write_text("[kinds.a]\nnumber = 7\n[kinds.b]\nhandler = 3\nnumber = 7")
    code, said = refused(tmp_path)
    assert code == 2
    assert [line.partition(": ")[0].removeprefix("truba: ") for line in said.splitlines()] == [
        "truba", "truba.toml:4", "truba.toml:5",
    ]  # fmt: skip


def test_a_file_in_place_of_the_data_directory(tmp_path: Path) -> None:
    (tmp_path / "truba.toml").write_text(KIND)
    code, said = refused(tmp_path, "--listen", "127.0.0.1:0", "--data", "truba.toml")
    assert code == 7
    assert "truba.toml" in said


def test_a_log_that_lost_its_end_is_not_told_to_be_unchanged(serve: Serve) -> None:
    """A frame that the store holds was damaged so that it looks torn: the start has cut it, and says where it is."""
    served = serve(KIND)
    host, port = served.address.split(":")
    with redis.Redis(host, int(port)) as client:
        client.execute_command("NEW", "7", b"x")
    assert served.stop() == 0
    log = served.directory / "data" / "log"
    frame = list(inspect.frames(log))[-1]
    with (log / segment_name(frame.segment)).open("r+b") as file:
        file.seek(frame.offset + frame.size - 100)
        file.write(bytes(100))
    for _ in range(2):
        code, said = refused(served.directory, "--listen", "127.0.0.1:0")
        assert code == 7
        assert "not of one piece" in said
        assert "changed" not in said
        assert "lost-*" in said
    assert len(list(log.glob("lost-*"))) == 1
