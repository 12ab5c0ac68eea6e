"""`truba bench` as a user runs it: each mode for a moment, what it prints, and how it ends when it cannot go on."""

from __future__ import annotations

import json
import os
import resource
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest
import redis

from tests.cli.conftest import TRUBA, Serve, environment, serve
from tests.tls.certificates import Authority
from truba.bench.disk import DiskFigure
from truba.bench.run import _row
from truba.bench.worker import Measure

__all__ = ["serve"]  # a fixture

KIND = '[kinds.transfer]\nnumber = 7\nhandler = "truba://127.0.0.1:1"\n'
SHORT = ["--seconds", "0.3", "--rounds", "1"]


def bench(*args: str, **options: Any) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*TRUBA, "bench", *SHORT, *args],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        env=environment(),
        **options,
    )


def report(*args: str) -> dict[str, Any]:
    ended = bench("--json", *args)
    assert (ended.returncode, ended.stderr) == (0, "")
    assert ended.stdout.count("\n") == 1
    found: dict[str, Any] = json.loads(ended.stdout)
    return found


def test_both_modes_at_several_concurrencies(tmp_path: Path) -> None:
    found = report("--clients", "1,8", "--data", str(tmp_path))
    assert [(row["mode"], row["clients"]) for row in found["rows"]] == [
        ("embedded", 1), ("tcp", 1), ("embedded", 8), ("tcp", 8),
    ]  # fmt: skip
    for row in found["rows"]:
        assert row["operations"] > 10
        assert row["rates_per_s"] == [row["rate_per_s"]]
        assert 0 < row["p50_us"] <= row["p99_us"] <= row["max_us"]
        assert (row["half_p99_us"] is None) == (row["mode"] == "embedded")
        # One operation at a time cannot be faster than its own latency.
        assert row["rate_per_s"] * row["p50_us"] < 2.5e6 * row["clients"]
        assert row["load_cpu"] > 0
        assert row["pipe_user_us"] is not None
        assert row["disk_us"] > 0
    assert found["record_bytes"] == 256
    assert found["machine"]["cores"] >= 1
    assert list(tmp_path.iterdir()) == []


def test_one_node_beside_a_cluster(tmp_path: Path) -> None:
    rows = report("--tcp", "--cluster", "--clients", "4", "--data", str(tmp_path))["rows"]
    assert [row["mode"] for row in rows] == ["tcp", "cluster"]
    for row in rows:
        assert row["operations"] > 10
        assert row["pipe_user_us"] is not None
    assert list(tmp_path.iterdir()) == []


def test_large_records_over_tcp() -> None:
    (row,) = report("--tcp", "--clients", "2", "--record-bytes", "12000000")["rows"]
    assert row["operations"] > 0


def test_a_pipe_that_runs_is_left_without_a_session(serve: Serve) -> None:
    served = serve(KIND)
    found = report("--url", served.url, "--clients", "16")
    assert [row["mode"] for row in found["rows"]] == ["url"]
    assert found["rows"][0]["pipe_user_us"] is None
    host, port = served.address.split(":")
    with redis.Redis(host, int(port)) as client:
        assert client.execute_command("LS")[1] == []
        assert client.info()["owner_losses"] == 0
        assert client.info()["events"] > found["rows"][0]["operations"]


def test_with_a_password(serve: Serve, tmp_path: Path) -> None:
    (tmp_path / "password").write_text("open sesame")
    (tmp_path / "password").chmod(0o600)
    served = serve('[node]\npassword_file = "password"\n' + KIND)
    assert report("--url", f"truba://:open%20sesame@{served.address}", "--clients", "2")["rows"][0]["operations"] > 0
    refused = bench("--url", served.url)
    assert refused.returncode == 5
    refused = bench("--url", f"truba://:wrong@{served.address}")
    assert refused.returncode == 5
    assert "wrong user or password" in refused.stderr


def test_in_tls(serve: Serve, tmp_path: Path) -> None:
    """With the options that other commands have, and with their words where that cannot be."""
    authority, stranger = Authority(tmp_path), Authority(tmp_path, "other")
    tls, ann = authority.issue("127.0.0.1"), authority.issue("ann")
    table = f'certificate = "{tls.certificate}"\nkey = "{tls.key}"\nclient_ca = "{authority.pem}"\n'
    served = serve(f"[node]\n[node.tls]\n{table}{KIND}record_max = '32MiB'\n")
    url = served.url.replace("truba:", "trubas:")
    ca, shown = ["--ca", str(authority.pem)], ["--certificate", str(ann.certificate), "--key", str(ann.key)]
    (row,) = report("--url", url, "--clients", "16", *ca, *shown)["rows"]
    assert (row["mode"], row["clients"]) == ("url", 16)
    assert row["operations"] > 10
    (row,) = report("--url", url, "--clients", "2", "--record-bytes", "12000000", *ca, *shown)["rows"]
    assert row["operations"] > 0
    refused("--url", url, *ca, code=3, says="does not accept our certificate: certificate required; show one")
    refused("--url", url, *shown, code=3, says="name the file of its authority: --ca of a command")
    refused("--url", url, "--ca", str(stranger.pem), *shown, code=3, says="no TLS connection to 127.0.0.1")
    other = ["--clients", "1", *ca, *shown]
    refused("--url", url.replace("127.0.0.1", "localhost"), *other, code=3, says="Hostname mismatch")
    refused("--url", served.url, code=1, says="this port speaks TLS and nothing else: connect to trubas://")
    plain = serve("[node]\ndata = 'other'\n" + KIND)
    refused("--url", plain.url.replace("truba:", "trubas:"), *other, code=3, says="does not speak TLS")


def test_the_table_and_the_page(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("above\n<!-- truba bench: begin -->\nold\n<!-- truba bench: end -->\nbelow\n")
    ended = bench("--embedded", "--clients", "2", "--update", str(page))
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout.split()[:2] == ["mode", "clients"]
    assert "256-byte records" in ended.stdout
    text = page.read_text()
    assert text.startswith("above\n<!-- truba bench: begin -->\nMeasured ")
    assert text.endswith("<!-- truba bench: end -->\nbelow\n")
    assert "\n| embedded | 2 | " in text
    assert "old" not in text


def test_a_cluster_needs_a_nats_server() -> None:
    refused("--cluster", "--nats-server", "/nowhere/nats-server", code=1, says="/nowhere/nats-server is no program")


def refused(*args: str, code: int, says: str, **options: Any) -> None:
    ended = bench(*args, **options)
    assert ended.returncode == code, ended.stderr
    assert ended.stdout == ""
    assert "Traceback" not in ended.stderr
    assert says in ended.stderr


def test_no_pipe_there() -> None:
    refused("--url", "truba://127.0.0.1:1", code=3, says="no pipe at 127.0.0.1:1")


def test_another_kind_of_server_data_or_page(serve: Serve, tmp_path: Path) -> None:
    served = serve(KIND)
    refused("--url", served.url, "--kind", "8", code=1, says="name a kind of that pipe with --kind N")
    refused("--url", "http://127.0.0.1", code=2, says="is no address of a pipe")
    refused("--url", served.url, "--tcp", code=2, says="give one of them")
    refused("--data", str(tmp_path / "none"), code=2, says="there is no such directory")
    refused("--cluster", "--record-bytes", "16777216", code=2, says="--record-bytes 16776192 is the most")
    refused("--nats-server", "nats-server", code=2, says="write --cluster too")
    refused("--clients", "1,x", code=2, says="write numbers with commas")
    refused("--clients", "0", code=2, says="from 1 to")
    (tmp_path / "page.md").write_text("nothing marked")
    refused("--update", str(tmp_path / "page.md"), code=2, says="there is no place for the result")


def test_a_full_disk(tmp_path: Path) -> None:
    """The nearest that a plain user can make: files may not grow over a megabyte."""
    small = (1 << 20, 1 << 20)
    refused(
        "--data",
        str(tmp_path),
        code=1,
        says="disk-probe: File too large\n  next: name a directory with room for it with --data",
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, small),
    )
    assert list(tmp_path.iterdir()) == []


def children(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


@pytest.mark.parametrize(("signum", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_ends_the_children_and_leaves_nothing(tmp_path: Path, signum: int, code: int) -> None:
    process = subprocess.Popen(
        [*TRUBA, "bench", "--seconds", "60", "--data", str(tmp_path)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=environment(),
        process_group=0,
    )
    started: list[int] = []
    try:
        deadline = time.monotonic() + 20
        while len(started) < 3 and time.monotonic() < deadline:  # embedded, served, load
            started = children(process.pid)
            time.sleep(0.01)
        assert len(started) == 3
        if signum == signal.SIGINT:
            os.killpg(process.pid, signum)  # as a terminal sends it
        else:
            process.send_signal(signum)
        out, err = process.communicate(timeout=30)
    finally:
        if process.poll() is None:
            process.kill()
            process.communicate()
    assert (process.returncode, out, err) == (code, b"", b"")
    for child in started:
        with pytest.raises(ProcessLookupError):
            os.kill(child, 0)
    assert list(tmp_path.iterdir()) == []


def test_half_of_the_rate_at_which_nothing_ended_in_time_was_not_measured() -> None:
    """Records of twelve megabytes on a machine that does something else."""
    full, nothing = (Measure(1.0, counts, 0.5, None, None, None) for counts in ({900: 2}, {}))
    assert _row("tcp", 1, [full], [nothing], [DiskFigure(90.0, 11_000.0)]).half_p99_us is None
    assert _row("tcp", 1, [full], [full], [DiskFigure(90.0, 11_000.0)]).half_p99_us == 900
