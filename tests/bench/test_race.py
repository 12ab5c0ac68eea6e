"""The race: turns and figures with values, the load against tiny servers, how servers end, and one short real run."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from bench.race import processes
from bench.race.load import Measure, Programs, compiled, compiler, measured
from bench.race.processes import Usage, send_to_trees, server, usage_of_trees
from bench.race.report import BEGIN, END, Absent, Result, check_page, markdown, notes, rewrite, rows, table
from bench.race.run import Plan, run
from bench.race.script import DIGITS, DUE, ID, ID_LENGTH, NAME, REST, WHO, AnyBytes, Script, Token, resp, step
from bench.race.sides import SIDES, nats, postgresql, rabbitmq, redis, restate, truba
from bench.race.sides.side import RECORD, Scripted, Unit
from bench.race.turns import Turn, ratio, turns
from bench.race.workers.team import merged, shares
from truba.bench.machine import Cpu
from truba.errors import ConfigError, TrubaError
from truba.protocols.resp import StrictParser
from truba.testing.ports import free_ports

ROOT = Path(__file__).parents[2]
OWN_ID = b"0000000000000001"
WAIT_S = 60.0


def until(condition: Any) -> None:
    deadline = time.monotonic() + WAIT_S
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


# -- turns and figures -----------------------------------------------------------------------------------------------


def test_each_round_begins_with_another_side() -> None:
    assert list(turns(["a", "b", "c"], [1, 64], 2)) == [
        Turn(1, 1, "a"), Turn(1, 1, "b"), Turn(1, 1, "c"), Turn(1, 64, "a"), Turn(1, 64, "b"), Turn(1, 64, "c"),
        Turn(2, 1, "b"), Turn(2, 1, "c"), Turn(2, 1, "a"), Turn(2, 64, "b"), Turn(2, 64, "c"), Turn(2, 64, "a"),
    ]  # fmt: skip


def test_a_ratio_is_of_turns_of_one_round() -> None:
    # In each round twice as fast, though the machine was ten times slower in the second: medians alone would say 1.1.
    assert ratio({1: 200.0, 2: 20.0, 3: 220.0}, {1: 100.0, 2: 10.0, 3: 110.0}) == 2.0
    assert ratio({1: 300.0, 3: 100.0}, {1: 100.0, 2: 1.0}) == 3.0
    assert ratio({2: 1.0}, {1: 1.0}) is None
    assert ratio({1: 1.0}, {}) is None


def measure(rate: int, server_s: float = 0.0, seconds: float = 2.0, counts: dict[int, int] | None = None) -> Measure:
    return Measure(
        seconds=seconds,
        counts=counts or {100: int(rate * seconds)},
        load=Cpu(0.1, 0.3),
        servers=Cpu(server_s, server_s / 2),
        workers=Cpu(0.0, 0.0),
        others_s=0.02,
    )


def test_rows_are_medians_of_the_rounds() -> None:
    found = {
        ("truba", 4): {1: measure(100, 0.2), 2: measure(400, 0.4), 3: measure(200, 0.2)},
        ("redis", 4): {1: measure(50), 2: measure(100), 3: measure(300)},
    }
    mark, other = rows(found, {("redis", 4): [900.0, 100.0, 500.0]}, {"truba": "operations", "redis": "operations"})
    assert (mark.rate_per_s, mark.ratio, mark.count) == (200, 1, 1400)
    # 0.2 s for 200 operations, 0.4 s for 800, 0.2 s for 400.
    assert (mark.server_user_us, mark.server_system_us) == (500, 250)
    assert (mark.load_cpu, mark.others_cpu, mark.alone_per_s) == (0.2, 0.01, None)
    # Ratios are 0.5, 0.25 and 1.5: not 100 to 200.
    assert (other.rate_per_s, other.ratio, other.alone_per_s) == (100, 0.5, 500)


def test_whole_sessions_are_compared_with_whole_sessions() -> None:
    found = {("truba", 4): {1: measure(400, 0.4)}, ("dbos", 4): {1: measure(10)}}
    operations, engine, sessions = rows(found, {}, {"truba": "operations", "dbos": "sessions"})
    assert (operations.unit, operations.rate_per_s, operations.server_user_us) == ("operations", 400, 500)
    assert (engine.unit, engine.rate_per_s, engine.ratio) == ("sessions", 10, 0.1)
    assert (sessions.unit, sessions.rate_per_s, sessions.ratio, sessions.server_user_us) == ("sessions", 100, 1, 2000)
    assert sessions.p50_us is None  # four operations' times do not say how long four in a row took


def result(found: dict[tuple[str, int], dict[int, Measure]], *absent: Absent) -> Result:
    units: dict[str, Unit] = {name: side.unit for name, side in SIDES.items()}
    return Result(
        taken="2026-01-02T03:04:05+00:00",
        machine={"cores": 2, "processor": "P", "kernel": "K", "python": "Y"},
        filesystem="ext4",
        seconds=2,
        rounds=1,
        record_bytes=100,
        disk_us=80.0,
        disk_rate_per_s=12000.0,
        versions={"truba": "truba 1"},
        rows=rows(found, {}, units),
        absent=list(absent),
        notes=[],
    )


def test_a_missing_side_stands_in_its_table_with_what_installs_it() -> None:
    missing = Absent("redis", "operations", "redis-server", "apt-get install redis-server")
    failed = Absent("dbos", "sessions", "it said\nno", None)
    told = result({("truba", 1): {1: measure(100)}}, missing, failed)
    assert [cells[:3] for cells in table(told, "operations")] == [["truba", "1", "100"], ["redis", "", "missing"]]
    assert [cells[:3] for cells in table(told, "sessions")] == [["dbos", "", "failed"]]
    text = markdown(told)
    assert "* redis is missing (redis-server): apt-get install redis-server\n" in text
    assert "* dbos failed: it said no\n" in text
    widths = {line.count("|") for line in text.splitlines() if line.startswith("|")}
    assert len(widths) == 1


def test_truba_stands_first_for_each_number_of_clients() -> None:
    found = {(side, count): {1: measure(9)} for side in ("truba", "truba-python", "restate") for count in (1, 64)}
    assert [(cells[0], cells[1]) for cells in table(result(found), "sessions")] == [
        ("truba", "1"), ("truba-python", "1"), ("restate", "1"),
        ("truba", "64"), ("truba-python", "64"), ("restate", "64"),
    ]  # fmt: skip


def test_a_load_that_may_be_the_limit_is_told() -> None:
    found = {("truba", 1): {1: measure(100)}}
    assert list(notes(rows(found, {("truba", 1): [200.0]}, {"truba": "operations"}))) == []
    (note,) = notes(rows(found, {("truba", 1): [190.0]}, {"truba": "operations"}))
    assert "truba, 1 clients: the load alone reaches only 1.9 times this rate" in note


def test_engines_are_compared_with_the_client_that_a_user_has_too() -> None:
    units: dict[str, Unit] = {"truba": "operations", "truba-python": "sessions", "restate": "sessions"}
    found = {
        ("truba", 4): {1: measure(400)},
        ("truba-python", 4): {1: measure(300), 2: measure(400), 3: measure(10)},
        ("restate", 4): {1: measure(10), 2: measure(20), 4: measure(1)},
        ("restate", 8): {1: measure(10)},
    }
    (note,) = notes(rows(found, {}, units))
    assert note == "restate, 4 clients: truba-python does 25 times as many sessions"


def test_a_page_is_rewritten_between_its_marks(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(f"before\n{BEGIN}\nold\n{END}\nafter\n")
    check_page(page)
    told = result({("truba", 1): {1: measure(100)}})
    rewrite(page, told)
    assert page.read_text() == f"before\n{BEGIN}\n{markdown(told)}{END}\nafter\n"
    page.write_text("nothing")
    with pytest.raises(ConfigError, match="no place for the result"):
        check_page(page)


def test_a_team_shares_and_sums() -> None:
    assert [shares(clients, 2) for clients in (1, 2, 7)] == [[1], [1, 1], [4, 3]]
    one = {"seconds": 2.0, "user_s": 1.0, "system_s": 0.5, "counts": [[10, 1], [20, 2]]}
    two = {"seconds": 4.0, "user_s": 0.5, "system_s": 0.5, "counts": [[20, 3]]}
    assert merged([one, two]) == {"seconds": 3.0, "user_s": 1.5, "system_s": 1.0, "counts": [(10, 1), (20, 5)]}


# -- scripts ---------------------------------------------------------------------------------------------------------


def spoken(script: Script) -> list[bytes]:
    """The requests of a cycle, with an id and a due time of the lengths that the load says them in."""
    said: dict[Token, bytes] = {ID: OWN_ID, ID_LENGTH: b"16", DUE: b"1234567890", WHO: b"000000"}
    return [b"".join(token if isinstance(token, bytes) else said[token] for token in one.say) for one in script.cycle]


def test_what_truba_is_told() -> None:
    append = [b"APPEND", OWN_ID, RECORD]
    told = [StrictParser().feed(message) for message in spoken(truba.SCRIPT)]
    assert told == [[[b"NEW", b"7", RECORD]], [append], [append], [[b"DELETE", OWN_ID]]]


def test_what_redis_is_told() -> None:
    write = [
        [b"MULTI"], [b"RPUSH", b"s:" + OWN_ID, RECORD], [b"ZADD", b"due", b"1234567890", OWN_ID], [b"EXEC"],
    ]  # fmt: skip
    last = [[b"MULTI"], [b"DEL", b"s:" + OWN_ID], [b"ZREM", b"due", OWN_ID], [b"EXEC"]]
    assert [StrictParser().feed(message) for message in spoken(redis.SCRIPT)] == [write, write, write, last]


def test_what_postgresql_is_told_is_whole_messages_and_one_sync() -> None:
    kinds = []
    for said in spoken(postgresql.SCRIPT):
        kinds.append("")
        while said:
            length = int.from_bytes(said[1:5], "big")
            assert 4 <= length < len(said)
            kinds[-1] += chr(said[0])
            said = said[1 + length :]
    assert kinds == ["BEBES"] * 4


def test_what_rabbitmq_is_told_is_whole_frames() -> None:
    (said,) = spoken(rabbitmq.SCRIPT)
    kinds = []
    while said:
        end = 7 + int.from_bytes(said[3:7], "big")
        assert said[end] == 0xCE
        kinds.append(said[0])
        said = said[end + 1 :]
    assert kinds == [1, 2, 3]


@pytest.mark.parametrize("module", [truba, redis, postgresql, nats, rabbitmq, restate])
def test_the_load_can_say_each_script_to_nobody(module: Any, programs: Programs) -> None:
    with programs.null(module.SCRIPT) as port:
        found = measured(programs.command(module.SCRIPT.against_null(), port, 3, 0.01, 0.05), 1)
    assert found.operations > 3


def test_words_that_make_no_sense_are_refused() -> None:
    for say, hear in (((NAME,), b""), ((AnyBytes(2),), b""), (b"", (ID,)), (b"", (REST, DIGITS)), (b"", (b"x", REST))):
        with pytest.raises(ValueError, match=r"cannot be|REST"):
            step(say, hear)
    with pytest.raises(ValueError, match="says nothing"):
        Script(())


# -- the load --------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def programs(tmp_path_factory: pytest.TempPathFactory) -> Programs:
    if compiler() is None:
        pytest.skip("there is no C compiler: install gcc and libc6-dev")
    return compiled(tmp_path_factory.mktemp("programs"))


@contextmanager
def tiny(*answers: Sequence[bytes], greeting: bytes = b"") -> Iterator[tuple[int, list[bytes]]]:
    """A server for one connection: after each request the next answer, in the pieces given, over and over.

    Its port, and what it was told. An empty piece closes the connection.
    """
    heard: list[bytes] = []

    def serve() -> None:
        connection, _ = listener.accept()
        with connection:
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            connection.sendall(greeting)
            while request := connection.recv(4096):
                heard.append(request)
                for piece in answers[(len(heard) - 1) % len(answers)]:
                    if not piece:
                        return
                    connection.sendall(piece)
                    time.sleep(0.001)  # so that pieces arrive as such, most of the time; it is right either way

    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(WAIT_S)
        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield listener.getsockname()[1], heard
        finally:
            thread.join(WAIT_S)
            assert not thread.is_alive()


def play(programs: Programs, script: Script, port: int) -> Measure:
    return measured(programs.command(script, port, 1, 0.02, 0.1), 1)


def test_a_session_named_by_the_server_in_pieces(programs: Programs) -> None:
    with tiny([b"$", b"5\r", b"\n3-1", b"17\r\n"], [b"+O", b"K\r\n"], [b"+OK\r\n"], [b"+OK\r\n"]) as (port, heard):
        found = play(programs, truba.SCRIPT, port)
    append = resp(b"APPEND", b"3-117", RECORD)[0]
    cycle = [resp(b"NEW", b"7", RECORD)[0], append, append, resp(b"DELETE", b"3-117")[0]]
    assert heard == cycle * (len(heard) // 4)  # whole sessions: none is left unfinished
    assert 0 < found.operations < len(heard)  # the warm-up and the last session do not count


def test_ids_of_our_own_differ_from_session_to_session(programs: Programs) -> None:
    with tiny([b"ok"]) as (port, heard):
        play(programs, Script((step((WHO, b" ", ID), b"ok"),)), port)
    assert heard == [b"000000 000000%010d" % number for number in range(1, len(heard) + 1)]


def test_a_greeting_of_many_kinds_and_what_is_said_aside(programs: Programs) -> None:
    many = step(b"hello", (b"n", DIGITS, b";", AnyBytes(3)))
    script = Script(
        hello=(step((), (b"INFO ", REST, b"}\r\n")), many),
        cycle=(*(step(b"work", b"done"),) * 3, many),
        aside=b"PING",
    )
    answers = ([b"n123;abc"], [b"PINGPINGdone"], [b"donePING"], [b"PING", b"do", b"ne"])
    with tiny(*answers, greeting=b"INFO {a}\r\n{}\r\n") as (port, heard):
        found = play(programs, script, port)
    assert heard == [b"hello", b"work", b"work", b"work"] * (len(heard) // 4) + [b"hello"]
    assert found.operations > 0


@pytest.mark.parametrize(
    ("answers", "words"),
    [
        (([b"+OK\r\n"], [b"-ERR \x01no\r\n"]), r"a wrong answer: -ERR \\x01no\\x0d\\x0a"),
        (([b"+OK\r\n"], [b"+OK\r\nmore"]), r"a wrong answer: \+OK\\x0d\\x0amore"),
        (([b"+OK\r\n"], [b""]), "the server closed the connection"),
        (([b"+OK\r\n"], [b"+O", b""]), r"what came before the end: \+O"),
    ],
)
def test_anything_but_the_right_answer_ends_it(programs: Programs, answers: Any, words: str) -> None:
    script = Script((step(b"a", b"+OK\r\n"), step(b"b", b"+OK\r\n")))
    with tiny(*answers) as (port, _), pytest.raises(TrubaError, match=words):
        play(programs, script, port)


def test_a_server_that_is_not_there(programs: Programs) -> None:
    (port,) = free_ports(1)
    with pytest.raises(TrubaError, match="exit code 1: no server: Connection refused"):
        play(programs, truba.SCRIPT, port)


def test_latency_is_that_of_the_server(programs: Programs) -> None:
    with tiny([b"o", b"k"]) as (port, _):
        found = play(programs, Script((step(b"a", b"ok"),)), port)
    # The tiny server sleeps a millisecond between the two pieces of each answer.
    assert min(found.counts) >= 900
    # One operation at a time: together no longer than it took, but for the first, which had begun before.
    spent_us = sum(time_us * count for time_us, count in found.counts.items())
    assert (spent_us - max(found.counts)) / 1e6 <= found.seconds


# -- processes -------------------------------------------------------------------------------------------------------


def test_the_exact_clock_says_how_much_and_the_coarse_one_of_which_kind() -> None:
    assert Usage(0.04, 0.01, 9.5).since(Usage(0.01, 0.0, 9.0)) == pytest.approx((0.375, 0.125))
    assert Usage(0.0, 0.0, 0.5).since(Usage(0.0, 0.0, 0.1)) == pytest.approx((0.2, 0.2))
    # Threads have ended, and took what the exact clock knew of them along; or it tells nothing at all.
    assert Usage(0.4, 0.6, 0.1).since(Usage(0.0, 0.0, 0.7)) == pytest.approx((0.4, 0.6))


def test_processes_that_use_less_than_a_tick_are_counted(tmp_path: Path) -> None:
    many = """\
import os, time
for _ in range(50):
    if not os.fork():
        until = time.process_time() + 0.004
        while time.process_time() < until: pass
        time.sleep(999)
print("ready", flush=True)
time.sleep(999)
"""
    with server([sys.executable, "-c", many], tmp_path) as process:
        until(lambda: usage_of_trees([process.pid]).exact_s >= 50 * 0.004)


BUSY = "import time\nwhile time.process_time() < 0.3: pass\n"
PARENT = f"""\
import signal, subprocess, sys, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
subprocess.run([sys.executable, "-c", {BUSY!r}])
deaf = "import signal, time; signal.signal(15, signal.SIG_IGN); time.sleep(999)"
child = subprocess.Popen([sys.executable, "-c", deaf])
print(child.pid, flush=True)
time.sleep(999)
"""


def state(pid: int) -> str:
    """As /proc says it, or nothing when there is no such process."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return ""


def test_a_servers_children_are_counted_frozen_and_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(processes, "STOP_S", 0.2)  # the server ignores SIGTERM, and must be killed
    said = tmp_path / f"{Path(sys.executable).name}.log"
    with server([sys.executable, "-c", PARENT], tmp_path) as process:
        until(lambda: said.exists() and said.read_text().endswith("\n"))
        child = int(said.read_text())
        used = usage_of_trees([process.pid])
        assert used.user_s + used.system_s >= 0.3  # of a child that has ended
        assert used.exact_s >= 0.3
        send_to_trees([process.pid], signal.SIGSTOP)
        until(lambda: state(process.pid) == state(child) == "T")
        send_to_trees([process.pid], signal.SIGCONT)
        until(lambda: state(process.pid) == state(child) == "S")
        send_to_trees([process.pid], signal.SIGSTOP)
    assert state(process.pid) == ""
    until(lambda: state(child) in ("", "Z"))  # a zombie until whoever inherited it looks


# -- whole races -----------------------------------------------------------------------------------------------------


class Fake:
    """A side whose server does nothing, or not even that."""

    unit: Unit = "operations"
    install = "apt-get install it"

    def __init__(self, name: str, programs: Programs, trouble: str = "") -> None:
        self.name = name
        self._programs = programs
        self._trouble = trouble

    def missing(self) -> str | None:
        return "its-server" if self._trouble == "missing" else None

    def version(self) -> str:
        return f"{self.name} 1"

    @contextmanager
    def running(self, directory: Path, clients_max: int) -> Iterator[Scripted]:
        if self._trouble == "start":
            raise TrubaError("it does not start")
        script = Script((step(b"a", b"ok"),))
        with self._programs.null(script) as port:
            wrong = Script((step(b"a", b"no"),))
            yield Scripted((), port, wrong if self._trouble == "turn" else script)


def test_sides_that_are_missing_or_fail_are_told_and_the_others_race_on(programs: Programs, tmp_path: Path) -> None:
    sides = (
        Fake("truba", programs),
        Fake("absent", programs, "missing"),
        Fake("stillborn", programs, "start"),
        Fake("wrong", programs, "turn"),
        Fake("other", programs),
    )
    steps: list[str] = []
    told = run(Plan(sides, (1, 2), 0.1, 2, tmp_path), steps.append, lambda: steps.append("done"))
    assert {(row.side, row.clients): list(row.rates_per_s) for row in told.rows} == {
        ("truba", 1): [1, 2], ("truba", 2): [1, 2], ("other", 1): [1, 2], ("other", 2): [1, 2],
    }  # fmt: skip
    assert [(one.side, one.install) for one in told.absent] == [
        ("absent", "apt-get install it"), ("stillborn", None), ("wrong", None),
    ]  # fmt: skip
    assert told.absent[1].why == "it does not start"
    assert "1 clients, round 1" in told.absent[2].why
    assert "a wrong answer: ok" in told.absent[2].why
    assert steps.count("done") == 2 * 2 * 5
    assert list(tmp_path.iterdir()) == []
    assert told.disk_us > 0


def command(*args: str) -> list[str]:
    return [sys.executable, "-m", "bench.race", *args]


def environment() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": f"{ROOT / 'src'}:{ROOT}"}


def those_of(directory: Path) -> list[int]:
    """Processes with that directory in their command line or as their own."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                if bytes(directory) in (entry / "cmdline").read_bytes() or (entry / "cwd").resolve().is_relative_to(
                    directory
                ):
                    found.append(int(entry.name))
            except OSError:  # it has ended
                continue
    return found


def test_a_short_race_of_real_servers(tmp_path: Path, programs: Programs) -> None:
    if shutil.which("redis-server") is None:
        pytest.skip("redis-server is not installed: apt-get install redis-server")
    page = tmp_path / "page.md"
    page.write_text(f"{BEGIN}\n{END}\n")
    (data := tmp_path / "data").mkdir()
    short = ("--sides", "truba,redis,truba-python", "--clients", "1,4", "--seconds", "0.3", "--rounds", "2")
    ended = subprocess.run(
        command(*short, "--data", str(data), "--update", str(page), "--json"),
        capture_output=True,
        text=True,
        timeout=110,
        check=False,
        env=environment(),
        cwd=ROOT,
    )
    assert (ended.returncode, ended.stderr) == (0, "")
    found = json.loads(ended.stdout)
    assert found["absent"] == []
    seen = {(row["side"], row["unit"], row["clients"]) for row in found["rows"]}
    assert seen == {
        (side, unit, clients)
        for side, unit in (
            ("truba", "operations"), ("redis", "operations"), ("truba", "sessions"), ("truba-python", "sessions"),
        )
        for clients in (1, 4)
    }  # fmt: skip
    for row in found["rows"]:
        assert row["count"] > 0
        assert len(row["rates_per_s"]) == 2
        assert row["ratio"] > 0
        assert (row["alone_per_s"] is not None) == (row["unit"] == "operations")
    assert "| redis | 4 |" in page.read_text()
    assert list(data.iterdir()) == []
    assert those_of(tmp_path) == []


@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM])
def test_a_race_that_is_told_to_stop_leaves_nothing_behind(tmp_path: Path, programs: Programs, signum: int) -> None:
    if shutil.which("redis-server") is None:
        pytest.skip("redis-server is not installed: apt-get install redis-server")
    process = subprocess.Popen(
        command("--sides", "truba,redis", "--clients", "2", "--seconds", "300", "--data", str(tmp_path)),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=environment(),
        cwd=ROOT,
        process_group=0,
    )
    with process:
        try:
            until(lambda: any(b"/load\0" in cmdline(pid) for pid in those_of(tmp_path)))
            until(lambda: any(state(pid) == "T" for pid in those_of(tmp_path)))
            process.send_signal(signum)
            process.communicate(timeout=WAIT_S)
        finally:
            process.kill()
    assert process.returncode in (1, 128 + signal.SIGTERM)
    until(lambda: those_of(tmp_path) == [])
    assert list(tmp_path.iterdir()) == []


def cmdline(pid: int) -> bytes:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return b""


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (("--sides", "truba,nobody"), "no side is named nobody"),
        (("--clients", "0"), "from 1 to"),
        (("--clients", "many"), "write numbers with commas"),
        (("--data", "/nowhere"), "there is no such directory"),
        (("--update", __file__), "there is no place for the result"),
    ],
)
def test_what_cannot_be_raced_is_refused_at_once(args: tuple[str, ...], words: str) -> None:
    ended = subprocess.run(
        command(*args), capture_output=True, text=True, timeout=60, check=False, env=environment(), cwd=ROOT
    )
    assert ended.returncode != 0
    assert words in ended.stderr


def test_each_side_says_what_installs_it() -> None:
    for name, side in SIDES.items():
        assert side.name == name
        assert side.install.startswith(("apt-get install", "make "))
        if side.missing() is None:
            assert side.version()
