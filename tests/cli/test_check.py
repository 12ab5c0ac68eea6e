"""`truba check`: problems of the file, of the data directory, of objects and of handlers, with real ones to try."""

from __future__ import annotations

import errno
import json
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from truba.cli.main import main
from truba.log.file import FileLog
from truba.log.inspect import Report
from truba.ports.log import LogBatch
from truba.store.mark import write_mark
from truba.testing.ports import free_ports
from truba.types import Position
from truba.webhook import Ping, verify

HELLO = b">4\r\n$5\r\nhello\r\n$5\r\ntruba\r\n$1\r\n1\r\n$4\r\nhush\r\n"


def check(directory: Path, text: str, *args: str) -> Result:
    path = directory / "truba.toml"
    path.write_text(text)
    return CliRunner().invoke(main, ["check", "--config", str(path), *args])


def findings(result: Result) -> dict[str, str]:
    document: dict[str, Any] = json.loads(result.stdout)
    assert document["ok"] == (result.exit_code == 0)
    return {finding["what"]: finding["problem"] for finding in document["findings"]}


@contextmanager
def answering(*answers: bytes, hello: bytes = b"") -> Iterator[int]:
    """A port whose one visitor is read until `hello` is complete, then sent each answer in turn."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(5)
        heard = bytearray()

        def serve() -> None:
            visitor, _ = server.accept()
            with visitor:
                visitor.settimeout(5)
                while len(heard) < len(hello):
                    heard.extend(visitor.recv(4096))
                with suppress(ConnectionError):  # who has heard enough hangs up
                    for answer in answers:
                        visitor.sendall(answer)
                        visitor.recv(4096)
                    while answers and visitor.recv(4096):
                        pass  # closed with something unread, it would be reset, and what was said perhaps not heard

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield server.getsockname()[1]
        finally:
            thread.join()
            assert bytes(heard) == hello


def kind(port: int, extra: str = "") -> str:
    return f'[kinds.transfer]\nnumber = 7\nhandler = "truba://127.0.0.1:{port}"\n{extra}'


def test_all_is_well_and_nothing_was_changed(tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("hush\n")
    answers = (
        b"*3\r\n$5\r\nOWNER\r\n$16\r\n0123456789abcdef\r\n$1\r\nx\r\n",
        b"*4\r\n$5\r\nKINDS\r\n$1\r\n7\r\n$6\r\nCREDIT\r\n$2\r\n99\r\n",
    )
    with answering(*answers, hello=HELLO) as port:
        result = check(tmp_path, kind(port, 'handler_secret_file = "secret"'), "--json")
    assert findings(result) == {"configuration": "", "data": "", "handler": ""}
    assert sorted(path.name for path in tmp_path.iterdir()) == ["secret", "truba.toml"]


@pytest.mark.parametrize("no_color", ["", "1"])
def test_colors_are_for_who_wants_them(tmp_path: Path, no_color: str) -> None:
    path = tmp_path / "truba.toml"
    path.write_text('[kinds.a]\nnumber = 7\nhandler = "local:tests.cli.doomed:handler"\n')
    runner = CliRunner(env={"NO_COLOR": no_color})
    result = runner.invoke(main, ["check", "--config", str(path)], color=True)  # as on a terminal
    assert result.exit_code == 0, result.output
    assert ("\x1b[" in result.stdout) is not bool(no_color)


def test_problems_of_the_file(tmp_path: Path) -> None:
    result = check(tmp_path, "[kinds.a]\nnumber = 7", "--json")
    assert result.exit_code == 1
    (problem,) = json.loads(result.stdout)["problems"]
    assert (problem["line"], problem["key"]) == (1, "kinds.a")
    readable = check(tmp_path, "[kinds.a]\nnumber = 7")
    assert readable.exit_code == 1
    assert f"{tmp_path}/truba.toml:1: kinds.a: this kind has no handler" in readable.stdout


def test_a_missing_file() -> None:
    result = CliRunner().invoke(main, ["check", "--config", "/nowhere/truba.toml"])
    assert result.exit_code == 1
    assert "/nowhere/truba.toml: there is no such file" in result.output


@pytest.mark.parametrize(
    ("answers", "problem"),
    [
        ((b"*2\r\n$5\r\nKINDS\r\n$1\r\n8\r\n",), "it answers, but does not serve 7 transfer; it serves {8}"),
        ((b"HTTP/1.1 400 Bad Request\r\nHost: x\r\n\r\n",), "what answers there is no handler of truba"),
        ((b"*2\r\n$5\r\nKINDS\r\n$1\r\nx\r\n",), "what answers there is no handler of truba"),
        ((b"-NOAUTH wrong secret\r\n",), "it refuses the pipe: 'NOAUTH wrong secret'"),
        ((), "it closed the connection"),
        ((b"*1\r\n$4\r\nPING\r\n" * 6000,), "it talks without end"),
        ((b"*4000000000\r\n",), "what answers there is no handler of truba"),
    ],
)
def test_handlers_that_will_not_do(tmp_path: Path, answers: tuple[bytes, ...], problem: str) -> None:
    with answering(*answers, hello=HELLO.replace(b"$4\r\nhush", b"$0\r\n")) as port:
        result = check(tmp_path, kind(port), "--json")
    assert problem in findings(result)["handler"]


def test_nobody_listens(tmp_path: Path) -> None:
    result = check(tmp_path, kind(*free_ports(1)))
    assert result.exit_code == 1
    assert "nothing listens there" in result.stdout


@pytest.mark.parametrize(
    ("route", "problem"),
    [
        ("local:nowhere.at.all:f", "cannot be loaded"),
        ("local:json:nothing", "cannot be loaded"),
        ("local:json:__name__", "this is no function"),
        ("local:json:dumps", ""),
        ("local:asyncio:sleep", ""),
    ],
)
def test_local_functions(tmp_path: Path, route: str, problem: str) -> None:
    found = findings(check(tmp_path, f'[kinds.a]\nnumber = 1\nhandler = "{route}"', "--json"))
    assert problem in found["handler"]
    assert bool(problem) == bool(found["handler"])


def test_objects_that_the_file_names(tmp_path: Path) -> None:
    text = '[node]\nauthenticator = "json:no"\n[[node.frontends]]\nfactory = "nope:no"\n[transports]\nx = "no:no"\n'
    found = findings(check(tmp_path, text + '[kinds.a]\nnumber = 1\nhandler = "x:y"', "--json"))
    assert [what for what, problem in found.items() if "cannot be loaded" in problem] == [
        "transport", "frontend", "authenticator",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("codec", "problem"),
    [
        ("tests.admin.handlers:STEPS", ""),
        ("nope:no", "'nope:no' cannot be loaded: ModuleNotFoundError"),
        ("truba.records:Json", "'truba.records:Json' is a class: name an object of it"),
        ("json:dumps", "'json:dumps' is no codec: it lacks encode, decode or shown"),
    ],
)
def test_codecs(tmp_path: Path, codec: str, problem: str) -> None:
    text = f'[kinds.a]\nnumber = 1\nhandler = "local:asyncio:sleep"\ncodec = "{codec}"'
    found = findings(check(tmp_path, text, "--json"))["codec"]
    assert found.startswith(problem)
    assert bool(found) == bool(problem)


def test_the_command_that_is_told_of_parked_sessions(tmp_path: Path) -> None:
    there = tmp_path / "there"
    for text, mode, problem in ((None, 0, True), ("", 0o600, True), ("", 0o700, False)):
        if text is not None:
            there.write_text(text)
            there.chmod(mode)
        text = f'[kinds.a]\nnumber = 1\nhandler = "local:asyncio:sleep"\non_parked = ["{there}"]'
        assert bool(findings(check(tmp_path, text, "--json"))["parked hook"]) == problem


@pytest.mark.parametrize("data", ["truba.toml", "truba.toml/deeper"])
def test_a_file_in_place_of_the_data_directory(tmp_path: Path, data: str) -> None:
    text = f'[node]\ndata = "{data}"\n[kinds.a]\nnumber = 1\nhandler = "local:asyncio:sleep"'
    assert findings(check(tmp_path, text, "--json"))["data"]


LOCAL = '[node]\ndata = "data"\n[kinds.a]\nnumber = 1\nhandler = "local:asyncio:sleep"'


def test_a_data_directory_on_which_no_pipe_would_start(tmp_path: Path) -> None:
    data = tmp_path / "data"
    (data / "store").mkdir(parents=True)
    (data / "store" / "CURRENT").touch()
    assert "holds a store, but no log" in findings(check(tmp_path, LOCAL, "--json"))["data"]
    log = FileLog.open(data / "log", segment_bytes=65_536)
    log.append(LogBatch(1, 1, 1, b"\x90"), lambda error: None)
    log.close()
    write_mark(data / "store", log.tail)
    assert findings(check(tmp_path, LOCAL, "--json"))["data"] == ""
    write_mark(data / "store", Position(1, 2, bytes(16)))
    assert "of event 1-2, the log ends with 1-1" in findings(check(tmp_path, LOCAL, "--json"))["data"]


def test_a_data_directory_that_cannot_be_read_is_a_finding_like_any_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    FileLog.open(tmp_path / "data" / "log", segment_bytes=65_536).close()

    def not_allowed(*_args: object) -> Report:
        raise PermissionError(errno.EACCES, "Permission denied", "segment-0000000001.log")  # another user's

    monkeypatch.setattr("truba.log.inspect.verify", not_allowed)
    found = findings(check(tmp_path, LOCAL, "--json"))
    assert "Permission denied: 'segment-0000000001.log'" in found["data"]
    assert found["handler"] == ""


CLUSTER = """[node]
name = "a"
insecure = true
[cluster]
servers = ["tls://127.0.0.1:1"]
secret_file = "secret"
tls_cert_file = "cert.pem"
tls_key_file = "key.pem"
[cluster.nodes]
a = { clients = "h:1", peers = "h:2" }
b = { clients = "h:3", peers = "h:4" }
[kinds.transfer]
number = 7
handler = "local:builtins:print"
"""


def test_a_cluster_and_its_certificates(tmp_path: Path) -> None:
    for name in ("secret", "cert.pem", "key.pem"):
        (tmp_path / name).write_text("no certificate\n")
    result = check(tmp_path, CLUSTER, "--json")
    found = findings(result)
    assert (result.exit_code, found["cluster"]) == (1, "")
    assert "PEM" in found["cluster tls"]
    result = check(tmp_path, CLUSTER.replace("tls_cert_file", "#").replace("tls_key_file", "#"))
    assert result.exit_code == 1
    assert "nodes: a (this one), b; peers are served on h:2" in result.stdout
    assert "problem  stream  tls://127.0.0.1:1: NATS at tls://127.0.0.1:1: " in result.stdout
    (tmp_path / "secret").unlink()
    assert "cluster.secret_file" in check(tmp_path, CLUSTER).stdout


@contextmanager
def receiver(status: int) -> Iterator[tuple[int, list[tuple[dict[str, str], bytes]]]]:
    """An HTTP server that answers everything with this status; its port, and what was posted."""
    posts: list[tuple[dict[str, str], bytes]] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            posts.append((dict(self.headers), self.rfile.read(int(self.headers["Content-Length"]))))
            self.send_response(status)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *args: object) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield server.server_port, posts
        finally:
            server.shutdown()
            thread.join()


def posted_kind(port: int) -> str:
    return (
        f'[kinds.transfer]\nnumber = 7\nhandler = "http://127.0.0.1:{port}/"\nwebhook = {{ secret_file = "whsec" }}\n'
    )


def test_a_webhook_is_sent_a_signed_ping(tmp_path: Path) -> None:
    secret = "whsec_" + "A" * 43 + "="
    (tmp_path / "whsec").write_text(secret)
    with receiver(204) as (port, posts):
        text = posted_kind(port) + f'on_parked = "http://127.0.0.1:{port}/parked"\n'
        result = check(tmp_path, text, "--json")
    assert findings(result) == {"configuration": "", "data": "", "handler": "", "parked hook": ""}
    assert [verify(headers, body, secret) for headers, body in posts] == [Ping([7])] * 2
    with receiver(401) as (port, posts):
        result = check(tmp_path, posted_kind(port), "--json")
    assert findings(result)["handler"] == "answered 401; is the secret right?"
    result = check(tmp_path, posted_kind(port), "--json")
    assert findings(result)["handler"] == "cannot be reached: Connection refused"
    assert secret not in result.output
