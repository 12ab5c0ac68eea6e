"""Handlers over `truba://`: killed, silent, babbling, absent, late, failing; order, limits, and kinds kept apart."""

from __future__ import annotations

import json
import stat
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest
import redis

from tests.service.process import NOBODY, Child, Server, Servers, cli, environment, kind
from tests.service.wire import Listener, Refused, Wire, fields, request, until
from truba.testing.ports import free_ports

SECRET = "the route's secret"


@pytest.fixture
def notes(tmp_path: Path) -> Path:
    path = tmp_path / "notes"
    path.touch()
    return path


def handlers(pipes: Servers, notes: Path, listen: str = "127.0.0.1:0", *secret: str) -> tuple[Child, str]:
    """The handler service as a process, and its address."""
    child = pipes.child("handlers", listen, notes, *secret)
    return child, child.wait_line("listening on ").split()[-1]


def lines(notes: Path) -> list[list[str]]:
    return [line.split() for line in notes.read_text().splitlines()]


def leave(server: Server, *records: str, kind: int = 7) -> str:
    """A session whose client dies."""
    with Wire.dial(server.address) as client:
        return str(client.ask("NEW", kind, *records).decode())


def shown(server: Server, id_text: str) -> dict[str, Any] | None:
    """The session, None when it is gone."""
    with Wire.dial(server.address) as client:
        (found,) = client.asked([request("SHOW", id_text)])
        return None if isinstance(found, Refused) else fields(found)


def gone(server: Server, id_text: str) -> None:
    until(lambda: shown(server, id_text), lambda found: found is None)


def test_g4_a_handler_that_is_killed_is_followed_by_the_next(pipes: Servers, notes: Path) -> None:
    """The session comes back with what the first one wrote, attempt 2 and cause lost."""
    child, address = handlers(pipes, notes)
    server = pipes.start(kind(handler=f"truba://{address}", backoff={"base": "0s"}))
    left = leave(server, "a", "twice")
    until(lambda: shown(server, left), lambda found: found["records"][-1] == b"twice" and len(found["records"]) == 4)
    child.kill()
    until(lambda: shown(server, left), lambda found: found["phase"] == b"stored")
    handlers(pipes, notes, address)
    gone(server, left)
    assert lines(notes) == [
        [left, "1", "lost", "a", "twice"],
        [left, "2", "lost", "a", "twice", "half", "done", "twice"],
    ]


def test_g4_a_handler_on_a_unix_socket_is_killed_and_followed_by_the_next(pipes: Servers, notes: Path) -> None:
    """The file that the killed one left is no obstacle, and one in use is: there is never a second one beside it."""
    path = pipes.directory / "handler.sock"
    (pipes.directory / "secret").write_text(SECRET)
    child, address = handlers(pipes, notes, f"unix:{path}", SECRET)
    assert address == str(path)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    server = pipes.start(kind(handler=f"unix://{path}", handler_secret_file="secret", backoff={"base": "0s"}))
    checked = cli("check", "--config", str(server.config))
    assert f"unix:{path} (transfer)" in checked.stdout
    assert "problem  handler" not in checked.stdout
    left = leave(server, "a", "twice")
    until(lambda: shown(server, left), lambda found: found["records"][-1] == b"twice" and len(found["records"]) == 4)
    taken = cli("handlers", "tests.cli.doomed:HANDLERS", "--listen", f"unix:{path}")
    assert f"cannot listen on {path}: another process listens there" in taken.stderr
    child.kill()
    until(lambda: shown(server, left), lambda found: found["phase"] == b"stored")
    assert "nothing listens there" in cli("check", "--config", str(server.config)).stdout
    handlers(pipes, notes, f"unix:{path}", SECRET)
    gone(server, left)
    assert [line[:3] for line in lines(notes)] == [[left, "1", "lost"], [left, "2", "lost"]]


def test_an_outage_uses_no_attempts_up(pipes: Servers, notes: Path) -> None:
    address = f"127.0.0.1:{free_ports(1)[0]}"
    server = pipes.start(kind(handler=f"truba://{address}", max_attempts=1))
    left = leave(server, "a")
    until(lambda: shown(server, left), lambda found: found["phase"] == b"stored")
    time.sleep(0.3)  # several dials
    found = shown(server, left)
    assert found is not None
    assert (found["phase"], found["attempts"]) == (b"stored", 0)
    handlers(pipes, notes, address)
    gone(server, left)
    assert lines(notes) == [[left, "1", "lost", "a"]]


@pytest.mark.parametrize("says", [b"", b"\xff\xfe\x00 garbage \r\n" * 100, b"*1\r\n$4000000000\r\n", b"+OK\r\n", None])
def test_a_service_that_is_no_handler_is_left_and_dialled_again(
    pipes: Servers, listener: Listener, says: bytes | None
) -> None:
    """One that closes at once, babbles, or (None) accepts and is silent; meanwhile the pipe serves its clients."""
    server = pipes.start(kind(handler=listener.url))
    first = listener.accept()
    if says is not None:
        if says:
            first.send(says)
        else:
            first.close()
    left = leave(server, "a")
    if says is None:
        first.sock.settimeout(15)  # the pipe gives a silent one ten seconds
        assert first.ended()
    elif says:
        assert first.ended()
    handler = listener.serve(7)
    assert handler.push()[1:5] == [left.encode(), 1, 7, 1]
    assert handler.ask("DELETE", left + "@1") == b"OK"
    assert "unreachable" in "".join(server.lines)


def test_a_pipe_with_the_wrong_secret_is_sent_away(pipes: Servers, notes: Path) -> None:
    _, address = handlers(pipes, notes, "127.0.0.1:0", SECRET)
    (pipes.directory / "wrong").write_text("something else")
    (pipes.directory / "right").write_text(SECRET)
    server = pipes.start(kind(handler=f"truba://{address}", handler_secret_file="wrong"))
    left = leave(server, "a")
    server.wait_line("is the secret right?")
    assert shown(server, left) is not None
    server.terminate()
    assert not lines(notes)
    server = pipes.start(kind(handler=f"truba://{address}", handler_secret_file="right"))
    gone(server, left)
    assert len(lines(notes)) == 1


def test_a_handler_must_give_the_password_of_the_pipe(pipes: Servers, listener: Listener) -> None:
    (pipes.directory / "password").write_text("secret")
    pipes.start(kind(handler=listener.url), node='password_file = "password"')
    handler = listener.accept()
    handler.push()
    refused, admitted, serves = handler.asked([request("KINDS", 7), request("AUTH", "secret"), request("KINDS", 7)])
    assert refused.code == "NOAUTH"
    assert (admitted, serves) == (b"OK", b"OK")


def test_g8_a_dead_kind_delays_no_other(pipes: Servers, notes: Path) -> None:
    """A thousand unfinished sessions whose handler is dead, and as many whose handler hangs."""
    _, address = handlers(pipes, notes)
    with Listener() as hanging:
        server = pipes.start(
            kind(7, "alive", f"truba://{address}") + kind(8, "dead", NOBODY) + kind(9, "hangs", hanging.url)
        )
        hung = hanging.serve(9, credit=10)
        with Wire.dial(server.address) as client:
            client.asked([request("NEW", number, "x") for number in (8, 9) for _ in range(1_000)])
        for _ in range(10):
            assert hung.push()[3] == 9
        started_s = time.monotonic()
        for _ in range(20):
            gone(server, leave(server, "work"))
        assert time.monotonic() - started_s < 10
        with Wire.dial(server.address) as client:
            info = client.ask("INFO").decode()
        assert "kind_8:name=dead,active=0,stored=1000,repeating=0,parked=0" in info
        assert "kind_9:name=hangs,active=0,stored=990,repeating=10,parked=0" in info


def test_g4_none_is_early_and_each_comes_in_its_turn(pipes: Servers, listener: Listener) -> None:
    """By due time, then by the order in which they were stored."""
    server = pipes.start(kind(handler=listener.url))
    handler = listener.serve(7)
    due_s: dict[bytes, float] = {}
    with Wire.dial(server.address) as client:
        made = [client.ask("NEW", "7", "x") for _ in range(12)]
        delays_s = [0.9 - 0.05 * at for at in range(12)]
        due_s |= {each: time.time() + delay_s for each, delay_s in zip(made, delays_s, strict=True)}
        # In one go: on a busy machine twelve questions in a row would take longer than their times are apart.
        stores = [request("STORE", each, f"{delay_s:.3f}") for each, delay_s in zip(made, delays_s, strict=True)]
        assert client.asked(stores) == [b"OK"] * 12
        same = [client.ask("NEW", "7", "x") for _ in range(5)]
        client.asked([request("STORE", each, "1.2") for each in same])  # in one batch
    came = []
    for _ in made:
        push = handler.push()
        assert time.time() >= due_s[push[1]]
        came.append(push[1])
    assert came == made[::-1]  # the later they were created, the earlier they were due
    assert [handler.push()[1] for _ in same] == same


def test_a_command_is_told_of_a_parked_session_and_the_pipe_says_so(pipes: Servers, tmp_path: Path) -> None:
    told, program = tmp_path / "told", tmp_path / "program"
    once = f"[ -e {told}.tried ] || {{ touch {told}.tried; echo busy >&2; exit 7; }}"
    program.write_text(f"#!/bin/sh\n{once}\ncat > {told}\n")
    program.chmod(0o700)
    with Listener() as listener:
        settings: dict[str, object] = {"max_attempts": 1, "on_parked": [str(program)]}
        server = pipes.start(kind(handler=listener.url, **settings))
        handler = listener.serve(7)
        id_text = leave(server, "a secret")
        assert handler.ask("FAIL", handler.push()[1], "no such account") == b"OK"
        assert json.loads(server.wait_line('"parked hook failed"'))["error"].endswith("exit status 7: busy")
        assert json.loads(server.wait_line('"parked session told of"'))["session"] == id_text
        assert json.loads(told.read_text()) == {
            "session": id_text,
            "kind": 7,
            "name": "transfer",
            "cause": "failed",
            "detail": "1 attempts, max_attempts is 1: no such account",
            "attempts": 1,
        }
        assert server.terminate() == 0


def test_a_kind_stays_paused_through_a_kill_and_a_backup_until_it_is_continued(pipes: Servers, notes: Path) -> None:
    """Over the clients' address alone: from the command line, and by a client library of Redis."""
    _, address = handlers(pipes, notes)
    tables = kind(handler=f"truba://{address}", recovery_delay="0s") + kind(8, "mail")
    server = pipes.start(tables)
    with redis.Redis(*server.address) as client:
        assert client.execute_command("PAUSE", "transfer") == b"OK"
        left = client.execute_command("NEW", 7, "a").decode()
        client.execute_command("STORE", left, 0)
    server.kill()
    server = pipes.start_again(server.config)
    assert server.ready["paused"] == ["transfer"]
    assert server.terminate() == 0

    backup, data = pipes.directory / "backup", pipes.directory / "restored"
    assert cli("backup", "--data", str(pipes.directory / "data"), str(backup)).returncode == 0
    assert cli("restore", str(backup), str(data)).returncode == 0  # it was paused then: --paused is for the others
    server = pipes.start_again(server.config, "--data", str(data))
    assert server.ready["paused"] == ["transfer"]
    until(lambda: info(server), lambda text: "paused=1,state=connected" in text)
    listed = cli("ls", "--kind", "transfer", TRUBA_URL=server.url)
    assert (left in listed.stdout, listed.stderr) == (True, "kind transfer is paused: truba continue transfer\n")
    assert "deliveries:0" in info(server)
    assert not lines(notes)
    continued = cli("continue", "transfer", "mail", TRUBA_URL=server.url)
    assert (continued.stdout, continued.returncode) == ("continued: 2\n", 0)
    until(lambda: shown(server, left), lambda found: found is None)
    assert [line[0] for line in lines(notes)] == [left]
    paused = [(line["kind"], line["event"]) for line in server.logged if line["event"].startswith("hand-over")]
    assert paused == [(7, "hand-over continues")]


def info(server: Server) -> str:
    with Wire.dial(server.address) as client:
        return str(client.ask("INFO").decode())


def test_failing_sessions_are_parked_and_an_operator_resumes_them(pipes: Servers, notes: Path) -> None:
    child, address = handlers(pipes, notes)
    settings: dict[str, object] = {"max_attempts": 3, "backoff": {"base": "10ms", "cap": "10ms"}}
    server = pipes.start(kind(handler=f"truba://{address}", **settings))
    left = leave(server, "a", "raise")
    found = until(lambda: shown(server, left), lambda found: found["phase"] == b"parked")
    assert (found["attempts"], found["deliveries"], found["epoch"]) == (3, 3, 3)
    assert b"3 attempts, max_attempts is 3" in found["detail"]
    assert b"it was told to" in found["detail"]
    assert [line[1:3] for line in lines(notes)] == [["1", "lost"], ["2", "failed"], ["3", "failed"]]
    resumed = truba_resume(server, left)
    assert resumed.returncode == 0, resumed.stderr
    until(lambda: lines(notes), lambda found: len(found) == 6)
    assert lines(notes)[3][1:3] == ["1", "resumed"]
    found = until(lambda: shown(server, left), lambda found: found["phase"] == b"parked")
    assert (found["attempts"], found["deliveries"]) == (3, 6)
    child.kill()


def truba_resume(server: Server, id_text: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "truba", "resume", "--url", server.url, id_text],
        env=environment(), capture_output=True, text=True, timeout=30, check=False,
    )  # fmt: skip


def test_g3_a_late_handler_is_fenced(pipes: Servers, listener: Listener) -> None:
    """It writes nothing more, whether another handler holds the session, or it does so itself once more."""
    server = pipes.start(kind(handler=listener.url, handler_timeout="400ms", backoff={"base": "0s"}))
    handler = listener.serve(7)
    left = leave(server, "a")
    assert handler.push()[1:6] == [left.encode(), 1, 7, 1, 400]
    assert handler.ask("APPEND", left + "@1", "in time") == b"OK"
    assert handler.push() == [b"lost", left.encode(), 1, b"late"]
    second = handler.push()
    assert second[1:7] == [left.encode(), 2, 7, 2, 400, b"late"]
    assert second[7:] == [b"a", b"in time"]
    for words in (("APPEND", left + "@1", "stale"), ("DELETE", left + "@1"), ("APPEND", left, "stale")):
        (refusal,) = handler.asked([request(*words)])
        assert refusal.code == "FENCED"
    assert handler.ask("APPEND", left + "@2", "mine") == b"OK"
    found = shown(server, left)
    assert found is not None
    assert found["records"] == [b"a", b"in time", b"mine"]
    assert handler.ask("DELETE", left + "@2") == b"OK"


def test_signs_of_life_keep_a_slow_handler(pipes: Servers, listener: Listener) -> None:
    server = pipes.start(kind(handler=listener.url, handler_timeout="500ms"))
    handler = listener.serve(7)
    left = leave(server, "a")
    handler.push()
    end_s = time.monotonic() + 1.2
    while time.monotonic() < end_s:
        assert handler.ask("TOUCH", left + "@1") == b"OK"
        time.sleep(0.05)
    assert handler.ask("DELETE", left + "@1") == b"OK"
    assert shown(server, left) is None


def test_credit_and_concurrency_bound_what_is_out(pipes: Servers, listener: Listener) -> None:
    server = pipes.start(kind(handler=listener.url, concurrency=3, backoff={"base": "0s"}))
    handler = listener.serve(7, credit=64)
    with Wire.dial(server.address) as client:
        client.asked([request("NEW", 7, at) for at in range(9)])
    held = [handler.push()[1] for _ in range(3)]
    for _ in range(6):
        assert not handler.pushed
        assert handler.ask("DELETE", held.pop(0) + b"@1") == b"OK"
        held.append(handler.push()[1])
    assert handler.quiet(0.1)
    handler.close()
    again = listener.serve(7, credit=2)
    first, second = again.push(), again.push()  # of three that are due
    assert again.quiet(0.2)
    assert again.ask("DELETE", b"%b@%d" % (first[1], first[2])) == b"OK"
    assert again.push()[1] not in (first[1], second[1])


def test_a_handler_is_given_only_what_it_serves(pipes: Servers, listener: Listener) -> None:
    """Two kinds have one address, and the service that listens there says which of them it knows."""
    server = pipes.start(kind(handler=listener.url) + kind(8, "refund", handler=listener.url))
    handler = listener.serve(7)
    with Wire.dial(server.address) as client:
        client.asked([request("NEW", 8, "a"), request("NEW", 7, "b")])
    assert handler.push()[3] == 7
    assert handler.quiet(0.2)
    handler.close()
    again = listener.serve(7, 8)
    assert {again.push()[3], again.push()[3]} == {7, 8}


def test_g5_what_was_deleted_never_comes_again(pipes: Servers, listener: Listener) -> None:
    """Not after the handler's death, nor after the pipe's."""
    server = pipes.start(kind(handler=listener.url, backoff={"base": "0s"}))
    handler = listener.serve(7)
    done, undone = leave(server, "done"), leave(server, "undone")
    assert {handler.push()[1], handler.push()[1]} == {done.encode(), undone.encode()}
    assert handler.ask("DELETE", done + "@1") == b"OK"
    server.kill()
    server = pipes.start_again(server.config)
    again = listener.serve(7)
    assert again.push()[1:5] == [undone.encode(), 2, 7, 2]
    again.close()
    third = listener.serve(7)
    assert third.push()[1:4] == [undone.encode(), 3, 7]
    assert third.ask("DELETE", undone + "@3") == b"OK"
    assert third.quiet(0.2)


def test_a_handler_that_does_not_read_is_pushed_no_more_than_fits(pipes: Servers, listener: Listener) -> None:
    server = pipes.start(kind(handler=listener.url, concurrency=1_000, handler_timeout="1h"))
    handler = listener.serve(7, credit=1_000)
    before = server.rss_bytes()
    with Wire.dial(server.address) as client:
        for _ in range(100):
            client.ask("STORE", client.ask("NEW", "7", bytes(1 << 20)), 0)
        assert client.ask("PING") == b"PONG"
        until(lambda: client.ask("INFO"), lambda info: b",repeating=0," not in info)
    assert server.rss_bytes() - before < 400 << 20  # the sessions themselves are young, and in memory
    came: list[bytes] = []
    reader = threading.Thread(target=lambda: came.extend(handler.push()[1] for _ in range(100)))
    reader.start()
    reader.join(30)
    assert len(set(came)) == 100
