"""`ls`, `show`, `resume`, `delete` against a real pipe that holds real sessions."""

from __future__ import annotations

import base64
import contextlib
import json
import os
import pty
import signal
import socketserver
import subprocess
import threading
from pathlib import Path
from typing import Any

import hiredis
import pytest
import redis
from click.testing import CliRunner, Result

from tests.cli.conftest import TRUBA, Serve, Served, environment
from truba.cli.main import main

CONFIG = """
[kinds.transfer]
number = 7
handler = "truba://127.0.0.1:1"
[kinds.mail]
number = 8
handler = "truba://127.0.0.1:1"
[kinds.doomed]
number = 9
handler = "local:tests.cli.doomed:handler"
max_attempts = 1
"""


OK = b"+OK\r\n"


class Pipe:
    """A running pipe and both ways to talk to it."""

    def __init__(self, served: Served) -> None:
        host, port = served.address.split(":")
        self.url = served.url
        self.client = redis.Redis(host, int(port))

    def stored(self, kind: int, *records: bytes, seconds: int = 3600) -> str:
        number: bytes = self.client.execute_command("NEW", kind, *records)
        self.client.execute_command("STORE", number, seconds)
        return number.decode()

    def run(self, *args: str) -> Result:
        return CliRunner().invoke(main, [args[0], "--url", self.url, *args[1:]])

    def lines(self, *args: str) -> list[dict[str, Any]]:
        result = self.run(*args, "--json")
        assert result.exit_code == 0, result.output
        return [json.loads(line) for line in result.stdout.splitlines()]

    def parked(self, number: int) -> list[str]:
        """So many sessions of a kind whose handler always fails, once they are parked."""
        for _ in range(number):
            self.stored(9, b"x", seconds=0)
        while True:
            ids = [session["id"] for session in self.lines("ls", "--phase", "parked")]
            if len(ids) == number:
                return ids


@pytest.fixture
def pipe(serve: Serve) -> Pipe:
    return Pipe(serve(CONFIG))


def test_counts(pipe: Pipe) -> None:
    pipe.stored(7, b"a")
    pipe.client.execute_command("NEW", 8)
    (document,) = pipe.lines("ls")
    nothing = {"active": 0, "stored": 0, "repeating": 0, "parked": 0, "paused": False}
    assert document["kinds"] == [
        {"number": 7, "name": "transfer"} | nothing | {"stored": 1},
        {"number": 8, "name": "mail"} | nothing | {"active": 1},
        {"number": 9, "name": "doomed"} | nothing,
    ]
    assert [line.split()[:2] for line in pipe.run("ls").stdout.splitlines()[2:]] == [
        ["7", "transfer"], ["8", "mail"], ["9", "doomed"],
    ]  # fmt: skip


def test_lists(pipe: Pipe) -> None:
    ids = [pipe.stored(7, b"hidden") for _ in range(3)] + [pipe.stored(8, b"hidden")]
    assert [session["id"] for session in pipe.lines("ls", "--all")] == ids
    assert [session["id"] for session in pipe.lines("ls", "--kind", "mail")] == ids[3:]
    assert [session["id"] for session in pipe.lines("ls", "--kind", "7", "--phase", "stored")] == ids[:3]
    assert pipe.lines("ls", "--phase", "parked") == []
    some = pipe.run("ls", "--limit", "2")
    assert [line.split()[0] for line in some.stdout.splitlines()] == ["ID", *ids[:2]]
    assert "in 60m" in some.stdout
    assert "... and more" in some.stderr
    assert "hidden" not in some.output


def test_a_list_that_nobody_reads_to_its_end(pipe: Pipe) -> None:
    for _ in range(20):
        pipe.stored(7)
    command = [*TRUBA, "ls", "--all", "--json", "--url", pipe.url]
    shell = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment())
    assert shell.stdout is not None
    assert shell.stderr is not None
    shell.stdout.close()
    said = shell.stderr.read()
    shell.stderr.close()
    assert shell.wait(30) == 1
    assert said == b""


def test_show_hides_records_until_asked(pipe: Pipe) -> None:
    number = pipe.stored(7, b"hidden text", b"\x00\x1b")
    plain = pipe.run("show", number)
    assert plain.exit_code == 0
    assert "hidden" not in plain.stdout
    assert "stored" in plain.stdout
    asked = pipe.run("show", number, "--records")
    assert "record 0, 11 bytes\n  hidden text" in asked.stdout
    assert "record 1, 2 bytes\n  00 1b" in asked.stdout
    (document,) = pipe.lines("show", number)
    assert (document["records"], document["bytes"], "contents" in document) == (2, 13, False)
    (document,) = pipe.lines("show", number, "--records")
    assert [base64.b64decode(record["base64"]) for record in document["contents"]] == [b"hidden text", b"\x00\x1b"]


def test_show_as_a_codec_allows(pipe: Pipe) -> None:
    number = pipe.stored(7, b'{"step":"debit\\n","from":"hidden"}', b"hidden text")
    asked = pipe.run("show", number, "--codec", "tests.admin.handlers:STEPS")
    assert asked.exit_code == 0, asked.output
    assert "record 0, 34 bytes\n  dict(step='debit\\n', …)\n" in asked.stdout
    assert "record 1, 11 bytes\n  11 bytes, not readable by the codec\n" in asked.stdout
    (document,) = pipe.lines("show", number, "--codec", "tests.admin.handlers:STEPS", "--record", "0")
    assert document["contents"] == [{"number": 0, "bytes": 34, "shown": "dict(step='debit\\n', …)"}]
    control = pipe.run("show", number, "--codec", "tests.admin.handlers:BELL", "--record", "0")
    assert "\n  \\x07\\x1b[31mü\n" in control.stdout
    for codec, why in (("nope:no", "cannot be loaded"), ("truba.records:Json", "is a class")):
        refused = pipe.run("show", number, "--codec", codec)
        assert refused.exit_code == 2
        assert why in refused.stderr
    assert "exclude each other" in pipe.run("show", number, "--codec", "a:b", "--raw").stderr
    assert "hidden" not in "".join([asked.output, control.output, json.dumps(document)])


def test_show_raw_is_nothing_but_the_bytes(pipe: Pipe) -> None:
    number = pipe.stored(7, b"one\r\n", b"\xff")
    assert pipe.run("show", number, "--raw").stdout_bytes == b"one\r\n\xff"
    assert pipe.run("show", number, "--raw", "--record", "1").stdout_bytes == b"\xff"
    beyond = pipe.run("show", number, "--record", "2")
    assert beyond.exit_code == 2
    assert "has 2 records" in beyond.stderr


def test_resume_by_id_and_all_parked(pipe: Pipe) -> None:
    parked = pipe.parked(3)
    # Resumed sessions fail and park again: what tells is that the pipe handed each one over once more.
    assert pipe.lines("resume", parked[0]) == [{"id": parked[0], "ok": True}]
    while len(left := pipe.lines("ls", "--phase", "parked")) < 3:
        pass
    assert [session["epoch"] for session in left] == [2, 1, 1]
    assert pipe.run("resume", "--kind", "doomed", "--all-parked").stdout == "resumed: 3\n"
    assert pipe.run("resume", "--kind", "transfer", "--all-parked").stdout == "resumed: 0\n"


def test_why(pipe: Pipe) -> None:
    number = pipe.stored(7, b"x")
    said = pipe.run("why", number)
    assert said.exit_code == 0
    assert "Its owner stored it itself" in said.stdout
    assert "It is to be handed to truba://127.0.0.1:1 in 60 min" in said.stdout
    (document,) = pipe.lines("why", number)
    assert len(document["why"]) == len(said.stdout.splitlines())
    assert pipe.run("why", "1-999").exit_code == 4


def test_a_client_s_reason_sends_the_terminal_no_control_codes(pipe: Pipe) -> None:
    number: bytes = pipe.client.execute_command("NEW", 7, b"x")
    pipe.client.execute_command("FAIL", number, "\x1b]0;owned\x07 bad\x9b2J\nid 1-1")
    for command in ("show", "why"):
        said = pipe.run(command, number.decode()).stdout
        assert "owned\\x07 bad\\x9b2J\\nid 1-1" in said
        assert all(line.isprintable() for line in said.split("\n"))


def test_delete(pipe: Pipe) -> None:
    first, second = pipe.stored(7, b"x"), pipe.stored(7, b"y")
    unasked = pipe.run("delete", first)
    assert unasked.exit_code == 2
    assert "give --yes" in unasked.stderr
    assert pipe.run("delete", first, "--yes").stdout == "deleted: 1\n"
    gone = pipe.run("delete", first, "--yes")
    assert gone.exit_code == 4
    assert gone.stderr == f"{first}: no session {first}: it is finished, or never was; nothing was changed\n"
    assert gone.stdout == "deleted: 0; refused: 1\n"
    assert [session["id"] for session in pipe.lines("ls", "--all")] == [second]


def test_pause_and_continue(pipe: Pipe) -> None:
    first = pipe.stored(7, b"x")
    assert pipe.lines("pause", "transfer", "8") == [{"kind": "transfer", "ok": True}, {"kind": "8", "ok": True}]
    assert pipe.run("pause", "7").stdout == "paused: 1\n"  # it was already
    notes = ["kind transfer is paused: truba continue transfer", "kind mail is paused: truba continue mail"]

    counted = pipe.run("ls")
    assert counted.stderr.splitlines() == notes
    (document,) = pipe.lines("ls")
    assert {kind["name"]: kind["paused"] for kind in document["kinds"]} == {
        "transfer": True, "mail": True, "doomed": False,
    }  # fmt: skip
    listed = pipe.run("ls", "--all")
    assert listed.stderr.splitlines() == notes
    assert listed.stdout.splitlines()[1].split()[6] == "paused"  # when it is due is no matter now
    empty = pipe.run("ls", "--kind", "8", "--phase", "parked", "--json")
    assert (empty.stdout, empty.stderr.splitlines()) == ("", notes[1:])
    assert pipe.lines("ls", "--all")[0]["paused"] is pipe.lines("show", first)[0]["paused"] is True
    assert "(truba continue transfer)" in pipe.run("why", first).stdout
    shown = pipe.run("show", first)
    assert (shown.stderr.splitlines(), "paused" in shown.stdout) == (notes[:1], False)

    continued = pipe.run("continue", "transfer", "mail", "nope", "99")
    assert continued.exit_code == 1
    assert continued.stdout == "continued: 2; refused: 2\n"
    assert sorted(continued.stderr.splitlines()) == [
        "99: no kind 99 is configured; nothing was changed",
        "nope: no kind 'nope' is configured; nothing was changed",
    ]
    assert pipe.run("ls").stderr == pipe.run("ls", "--all").stderr == ""
    assert pipe.lines("ls", "--all")[0]["paused"] is False


def test_what_was_only_looked_at_was_not_stored(pipe: Pipe) -> None:
    for args in (["show", "1-999"], ["why", "1-999"], ["ls", "--kind", "nope"], ["ls", "--kind", "99"]):
        refused = pipe.run(*args)
        assert refused.exit_code in (1, 4)
        assert "nothing was" not in refused.stderr
    backup = pipe.run("backup")
    assert backup.exit_code == 1
    assert backup.stderr.count("nothing was") == 1


def test_a_session_that_an_owner_holds_is_refused(pipe: Pipe) -> None:
    held = pipe.client.execute_command("NEW", 7, b"x").decode()
    stored = pipe.stored(8)
    result = pipe.run("delete", held, stored, "--yes", "--json")
    assert result.exit_code == 1
    by_id = {line["id"]: line for line in map(json.loads, result.stdout.splitlines())}
    assert by_id[stored] == {"id": stored, "ok": True}
    assert (by_id[held]["ok"], by_id[held]["code"]) == (False, "BUSY")


def test_no_such_session(pipe: Pipe) -> None:
    result = pipe.run("show", "1-999")
    assert result.exit_code == 4
    assert result.stdout == ""
    assert "1-999" in result.stderr


def test_an_unknown_kind(pipe: Pipe) -> None:
    result = pipe.run("ls", "--kind", "nope")
    assert result.exit_code == 1
    assert "nope" in result.stderr
    assert "Traceback" not in result.stderr


@pytest.mark.parametrize(
    "args",
    [
        ["resume"],
        ["resume", "1-2", "--all-parked"],
        ["resume", "1-2", "--kind", "7"],
        ["delete"],
        ["pause"],
        ["continue"],
    ],
)
def test_what_is_ambiguous_is_refused(args: list[str]) -> None:
    assert CliRunner().invoke(main, args).exit_code == 2


@pytest.mark.parametrize(
    ("refusals", "code"),
    [
        (["NOPERM no"], 5),
        (["UNAVAILABLE later"], 3),
        (["NOSESSION none", "NOSESSION none"], 4),
        (["NOSESSION none", "BUSY held"], 1),
        (["BUSY held", "UNKNOWN nobody knows"], 6),
        (["", "NOPERM no"], 5),
    ],
)
def test_what_went_wrong_with_each_is_the_exit_code(refusals: list[str], code: int) -> None:
    """A script that sees 1 would delete again what it must first look at."""

    class Refusing(socketserver.StreamRequestHandler):
        def handle(self) -> None:
            reader, left = hiredis.Reader(), iter(refusals)
            while data := self.request.recv(4096):
                reader.feed(data)
                while (request := reader.gets()) is not False:
                    refusal = next(left) if request[0] == b"REMOVE" else ""
                    answers = {b"LEADER": b"$-1\r\n", b"OWNER": b"*0\r\n"}
                    self.request.sendall(b"-%b\r\n" % refusal.encode() if refusal else answers.get(request[0], OK))

    with socketserver.TCPServer(("127.0.0.1", 0), Refusing) as server:
        threading.Thread(target=server.handle_request).start()
        url = f"truba://127.0.0.1:{server.server_address[1]}"
        ids = [f"1-{number}" for number, _ in enumerate(refusals, 1)]
        result = CliRunner().invoke(main, ["delete", "--yes", "--url", url, *ids])
    assert result.exit_code == code, result.output


@pytest.mark.parametrize(("answer", "code"), [(None, 130), ("n\n", 1)])
def test_an_interrupt_at_a_question_is_one(answer: str | None, code: int) -> None:
    ours, theirs = pty.openpty()
    command = [*TRUBA, "delete", "1-1", "--url", "truba://127.0.0.1:1"]
    asked = subprocess.Popen(command, stdin=theirs, stderr=subprocess.PIPE, env=environment())
    try:
        assert asked.stderr is not None
        assert b"Delete" in asked.stderr.read(6)
        if answer is not None:
            os.write(ours, answer.encode())
        for _ in range(20):  # one that comes just before Python waits for the line is heard with the next
            if answer is None:
                asked.send_signal(signal.SIGINT)
            with contextlib.suppress(subprocess.TimeoutExpired):
                asked.wait(1)
                break
        assert asked.returncode == code
    finally:
        asked.kill()
        asked.communicate()
        os.close(ours)
        os.close(theirs)


def test_passwords(serve: Serve, tmp_path: Path) -> None:
    for name in ("right", "wrong"):
        (tmp_path / name).write_text(f"{name}\n")
    served = serve('[node]\npassword_file = "right"\n' + CONFIG)
    for args, code in (
        ([], 5),
        (["--password-file", str(tmp_path / "wrong")], 5),
        (["--password-file", str(tmp_path / "right")], 0),
        (["--password-file", str(tmp_path / "right"), "--user", "eve"], 0),
        (["--password-file", str(tmp_path / "missing")], 2),
        (["--user", "eve"], 2),
    ):
        result = CliRunner().invoke(main, ["ls", "--url", served.url, *args])
        assert result.exit_code == code, (args, result.output)
        assert "Traceback" not in result.output


def test_a_unix_socket(serve: Serve, tmp_path: Path) -> None:
    serve('[node]\nunix = "truba.sock"\n' + CONFIG)
    result = CliRunner().invoke(main, ["ls", "--json"], env={"TRUBA_URL": f"unix://{tmp_path}/truba.sock"})
    assert result.exit_code == 0, result.output
    assert len(json.loads(result.stdout)["kinds"]) == 3
