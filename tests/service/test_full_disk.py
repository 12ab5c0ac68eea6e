"""A disk that fills up under the pipe: growth is refused with a reason, sessions still end, nothing is lost."""

from __future__ import annotations

import os
import random
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.service.process import Server, Servers, kind
from tests.service.wire import Refused, Wire, fields, request, until

DISK = "48m"
NODE = 'data = "disk/data"\nsegment = "1MiB"\ncheckpoint = "1MiB"\nreserve = "16MiB"\n'


def record(at: int) -> bytes:
    """Of that session: large, and with nothing in it to compress."""
    return random.Random(at).randbytes(100_000)


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A small file system of its own."""
    path = tmp_path / "disk"
    path.mkdir()
    if os.geteuid():
        pytest.skip("only root can mount a small file system to fill up")
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={DISK}", "none", path], capture_output=True, text=True, check=False
    )
    if mounted.returncode:
        pytest.skip(f"no small file system can be mounted here: {mounted.stderr.strip()}")
    yield path
    subprocess.run(["umount", "--lazy", path], check=True)


@pytest.fixture
def server(disk: Path, pipes: Servers) -> Iterator[Server]:
    """A pipe on it, gone before it is unmounted."""
    running = pipes.start(kind(recovery_delay="1h"), node=NODE)
    yield running
    pipes.stop()


def ballast(disk: Path, leave_bytes: int) -> Path:
    """Fill the disk with something else."""
    path = disk / "ballast"
    free = os.statvfs(disk)
    size = free.f_bavail * free.f_frsize - leave_bytes
    with path.open("wb") as file:
        os.posix_fallocate(file.fileno(), 0, size)
    return path


def refused(outcome: object) -> bool:
    return isinstance(outcome, Refused)


def test_a_full_disk_refuses_growth_and_lets_sessions_end(server: Server, disk: Path) -> None:
    with Wire.dial(server.address) as client:
        made = [client.ask("NEW", "7", "a") for _ in range(50)]
        other = ballast(disk, 8 << 20)  # half of the reserve is gone
        until(lambda: client.asked([request("NEW", "7", "b")])[0], refused)
        for words in (("NEW", "7"), ("NEW", "7", record(0)), ("APPEND", made[0], "b"), ("REPLACE", made[0], "b")):
            (refusal,) = client.asked([request(*words)])
            assert refusal.code == "UNAVAILABLE"
            assert "the disk is nearly full" in str(refusal)
            assert "nothing was stored" in str(refusal)
        assert b"log_space:low" in client.ask("INFO")
        assert client.asked([request("DELETE", each) for each in made[:20]]) == [b"OK"] * 20
        assert client.asked([request("STORE", each, 3600) for each in made[20:40]]) == [b"OK"] * 20
        assert fields(client.ask("SHOW", made[40]))["records"] == [b"a"]
        other.unlink()
        until(lambda: client.asked([request("APPEND", made[40], "b")])[0], lambda found: found == b"OK")
        assert fields(client.ask("SHOW", made[40]))["records"] == [b"a", b"b"]
        assert client.ask("NEW", "7", "c")
    assert server.terminate() == 0


@pytest.mark.parametrize("how", ["kill", "terminate"])
def test_g1_nothing_acknowledged_is_lost_on_a_full_disk(server: Server, disk: Path, pipes: Servers, how: str) -> None:
    """Written to the brim by the pipe's own clients; then a restart on the full disk, and one with space again."""
    kept: list[bytes] = []
    outcome: object = b""
    with Wire.dial(server.address) as client:
        for at in range(2_000):
            outcome = client.asked([request("NEW", "7", b"%d" % at, record(at))])[0]
            if isinstance(outcome, Refused):
                break
            kept.append(outcome)
        assert isinstance(outcome, Refused)
        assert outcome.code == "UNAVAILABLE"
        assert len(kept) > 50
        gone = kept.pop()
        assert client.ask("DELETE", gone) == b"OK"
        assert client.ask("STORE", kept[0], 7200) == b"OK"
        getattr(server, how)()
    server = pipes.start_again(server.config)
    with Wire.dial(server.address) as client:
        for at, each in enumerate(kept):
            assert fields(client.ask("SHOW", each))["records"] == [b"%d" % at, record(at)]
        assert client.asked([request("SHOW", gone)])[0].code == "NOSESSION"
        for each in kept:
            assert client.ask("REMOVE", each) == b"OK"
        assert server.terminate() == 0  # and its checkpoint gives the space back
    server = pipes.start_again(server.config)
    with Wire.dial(server.address) as client:
        assert client.ask("LS") == [b"", []]
        until(lambda: client.asked([request("NEW", "7", "a")])[0], lambda found: not refused(found))
