"""The admin address of a real pipe: a process with its sockets, its data directory and its end."""

from __future__ import annotations

import ast
import json
import signal
import socket
import ssl
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from hashlib import sha256
from pathlib import Path

import httpx
import pytest
import trustme

from tests.service.process import Server, Servers, environment, kind, servers
from tests.service.wire import Refused, Wire
from truba.rejections import LINES_MAX

ADMIN = '[admin]\nlisten = "127.0.0.1:0"\n'


@pytest.fixture
def pipes(tmp_path: Path) -> Iterator[Servers]:
    yield from servers(tmp_path)


def asking(server: Server, token: str | None = None) -> httpx.Client:
    headers = {} if token is None else {"Authorization": f"Bearer {token}"}
    return httpx.Client(base_url=f"http://{server.ready['admin']}", headers=headers, timeout=20)


def test_a_pause_and_its_audit_outlive_kill_9(pipes: Servers) -> None:
    server = pipes.start(ADMIN + kind())
    with asking(server) as client:
        assert client.post("/v1/kinds/transfer/pause").status_code == 200
    server.kill()
    again = pipes.start_again(server.config)
    with asking(again) as client:
        assert client.get("/v1/kinds/transfer").json()["paused"] is True
        assert client.post("/v1/kinds/transfer/continue").status_code == 200
    again.kill()
    with asking(pipes.start_again(server.config)) as client:
        assert client.get("/v1/kinds/transfer").json()["paused"] is False
    lines = [json.loads(line) for line in (pipes.directory / "data" / "audit.jsonl").read_text().splitlines()]
    assert [(line["act"], line["result"]) for line in lines] == [
        ("pause", "asked"), ("pause", "done"), ("continue", "asked"), ("continue", "done"),
    ]  # fmt: skip


def test_in_tls_with_the_newest_certificate_and_for_those_who_show_one(pipes: Servers) -> None:
    authority, other = trustme.CA(), trustme.CA()
    directory = pipes.directory
    for number, ca in enumerate((authority, other)):
        ca.cert_pem.write_to_path(directory / f"ca{number}.pem")
        ca.issue_cert("127.0.0.1", f"pipe{number}.example").private_key_and_cert_chain_pem.write_to_path(
            directory / f"pipe{number}.pem"
        )
    (directory / "now.pem").write_bytes((directory / "pipe0.pem").read_bytes())
    tls = f'tls = {{ certificate = "{directory}/now.pem", client_ca = "{directory}/ca0.pem" }}\n'
    server = pipes.start(ADMIN + tls + kind())

    def ask(believe: int, show: int | None) -> int:
        context = ssl.create_default_context(cafile=directory / f"ca{believe}.pem")
        if show is not None:
            context.load_cert_chain(directory / f"pipe{show}.pem")
        with httpx.Client(base_url=f"https://{server.ready['admin']}", verify=context, timeout=20) as client:
            return client.get("/v1/health").status_code

    assert ask(0, 0) == 200
    for believe, show in ((1, 0), (0, None), (0, 1)):
        with pytest.raises(httpx.TransportError):
            ask(believe, show)
    with asking(server) as plain, pytest.raises(httpx.TransportError):
        plain.get("/v1/health")
    (directory / "now.pem").write_bytes((directory / "pipe1.pem").read_bytes())
    assert ask(1, 0) == 200


def test_what_clients_do_is_seen_and_steered(pipes: Servers) -> None:
    server = pipes.start(ADMIN + kind())
    with Wire.dial(server.address) as client, asking(server) as admin:
        number = client.ask(b"NEW", b"7", b"hidden").decode()
        with pytest.raises(Refused, match="UNKNOWNKIND"):
            client.ask(b"NEW", b"8")
        client.ask(b"STORE", number.encode(), b"3600")
        session = admin.get(f"/v1/sessions/{number}").json()
        assert (session["phase"], session["record_list"][0]["bytes"]) == ("stored", 6)
        assert "in 60 min" in " ".join(session["why"])
        overview = admin.get("/v1/overview").json()
        assert overview["node"]["connections"] == 1
        assert overview["kinds"][0]["phases"]["stored"] == 1
        metrics = admin.get("/v1/metrics").text
        assert 'truba_refusals_total{code="UNKNOWNKIND"} 1.0' in metrics
        assert admin.delete(f"/v1/sessions/{number}").json()["done"] == "delete"
        with pytest.raises(Refused, match="NOSESSION"):
            client.ask(b"SHOW", number.encode())
    assert server.terminate() == 0
    assert "hidden" not in "".join(server.lines)


@pytest.mark.parametrize("admin", [ADMIN, ""], ids=["with an address of operators", "without"])
def test_what_operators_do_over_the_clients_address_is_in_the_audit_log(pipes: Servers, admin: str) -> None:
    server = pipes.start(admin + kind(), node='backups = "backups"')
    with Wire.dial(server.address) as client:
        numbers = [client.ask(b"NEW", b"7").decode() for _ in range(2)]
        for number in numbers:
            client.ask(b"STORE", number, b"3600")
        assert client.ask(b"RESUME", numbers[0]) == b"OK"
        assert client.ask(b"REMOVE", numbers[1]) == b"OK"
        assert client.ask(b"BACKUP", b"one").endswith(b"/backups/one")
        with pytest.raises(Refused, match="NOSESSION"):
            client.ask(b"REMOVE", numbers[1])
    server.kill()
    lines = [json.loads(line) for line in (pipes.directory / "data" / "audit.jsonl").read_text().splitlines()]
    assert [(line["who"], line["act"], line["on"], line["result"]) for line in lines] == [
        ("anybody", act, on, result)
        for act, on in (
            ("resume", f"session {numbers[0]}"),
            ("delete", f"session {numbers[1]}"),
            ("begin a backup", "backup 'one'"),
        )
        for result in ("asked", "done")
    ]  # fmt: skip
    assert {line["peer"].partition(":")[0] for line in lines} == {"127.0.0.1"}


def test_a_clean_stop_does_not_wait_for_operators(pipes: Servers) -> None:
    server = pipes.start(ADMIN + kind())
    host, port = server.ready["admin"].split(":")
    with socket.create_connection((host, int(port))) as silent, asking(server) as client:
        client.get("/v1/health")  # kept alive
        silent.sendall(b"GET /v1/health HT")
        server.send(signal.SIGTERM)
        assert server.wait() == 0
    assert server.logged[-1]["event"] == "stopped"


def test_tokens_of_both_sorts(pipes: Servers) -> None:
    (pipes.directory / "admin.token").write_text("0123456789abcdef-operator\n")
    digest = sha256(b"0123456789abcdef-reader").hexdigest()
    server = pipes.start(
        f'{ADMIN}token_file = "admin.token"\n[admin.tokens.grafana]\nsha256 = "{digest}"\n{kind()}',
    )
    for token, looks, changes in (
        (None, 401, 401), ("0123456789abcdef", 401, 401),
        ("0123456789abcdef-reader", 200, 403), ("0123456789abcdef-operator", 200, 200),
    ):  # fmt: skip
        with asking(server, token) as client:
            assert client.get("/v1/metrics").status_code == looks
            assert client.post("/v1/kinds/7/pause").status_code == changes
    (warning,) = {line["path"] for line in server.logged if line["event"] == "wrong token"} - {"/v1/kinds/7/pause"}
    assert warning == "/v1/metrics"
    configuration = ""
    with asking(server, "0123456789abcdef-operator") as client:
        configuration = client.get("/v1/configuration").text
    audit = (pipes.directory / "data" / "audit.jsonl").read_text()
    assert '"who":"operator"' in audit
    for text in ("".join(server.lines), configuration, audit):
        assert "0123456789abcdef" not in text
        assert digest not in text


def test_a_data_directory_that_is_wrong_is_judged_before_anything_is_written(pipes: Servers) -> None:
    (pipes.directory / "data").write_text("this is a file")
    code, said = pipes.refused(pipes.configure(ADMIN + kind()))
    assert code == 7
    assert "data" in said
    running = pipes.start(ADMIN + kind(), node='data = "other"', name="other.toml")
    code, said = pipes.refused(running.config)
    assert code == 7
    assert f"process {running.pid}" in said


def test_those_who_ask_for_nothing_keep_nobody_out(pipes: Servers) -> None:
    server = pipes.start(ADMIN + kind())
    host, port = server.ready["admin"].rsplit(":", 1)
    silent = [socket.create_connection((host, int(port))) for _ in range(300)]
    try:
        for each in silent:
            with suppress(OSError):  # it had to make room already
                each.sendall(b"GET /v1/health HTTP/1.1\r\nHost: x\r\n")
        with asking(server) as client:
            assert client.get("/v1/readiness").status_code == 200
            assert client.get("/v1/overview").status_code == 200
        first, last = silent[0], silent[-1]
        first.settimeout(5)
        with suppress(ConnectionResetError):
            assert first.recv(1) == b""  # over those that may wait
        last.settimeout(20)
        with suppress(ConnectionResetError):
            assert last.recv(1) == b""  # no headers within ten seconds
    finally:
        for each in silent:
            each.close()


def test_those_who_never_shake_hands_take_no_file_descriptors(pipes: Servers) -> None:
    authority = trustme.CA()
    authority.cert_pem.write_to_path(pipes.directory / "ca.pem")
    authority.issue_cert("127.0.0.1").private_key_and_cert_chain_pem.write_to_path(pipes.directory / "pipe.pem")
    server = pipes.start('[admin]\nlisten = "127.0.0.1:0"\ntls = { certificate = "pipe.pem" }\n' + kind())
    host, port = server.ready["admin"].rsplit(":", 1)
    silent = [socket.create_connection((host, int(port))) for _ in range(300)]
    try:
        context = ssl.create_default_context(cafile=str(pipes.directory / "ca.pem"))
        with httpx.Client(base_url=f"https://{server.ready['admin']}", verify=context, timeout=20) as client:
            assert client.get("/v1/readiness").status_code == 200
        assert len(list(Path(f"/proc/{server.pid}/fd").iterdir())) < 200
    finally:
        for each in silent:
            each.close()


@pytest.mark.parametrize("tls", [False, True])
def test_who_speaks_another_protocol_fills_no_disk_with_log(pipes: Servers, tls: bool) -> None:
    authority = trustme.CA()
    authority.issue_cert("127.0.0.1").private_key_and_cert_chain_pem.write_to_path(pipes.directory / "pipe.pem")
    server = pipes.start(ADMIN + ('tls = { certificate = "pipe.pem" }\n' if tls else "") + kind())
    host, port = server.ready["admin"].rsplit(":", 1)
    for _ in range(30):
        with socket.create_connection((host, int(port)), timeout=20) as stranger, suppress(ConnectionResetError):
            stranger.sendall(b"\x00 nonsense\r\n\r\n")
            while stranger.recv(1 << 10):
                pass
    assert server.terminate() == 0
    cause = "no TLS connection" if tls else "Invalid HTTP request received."
    lines = [line for line in server.logged if line["event"] == cause]
    assert len(lines) == LINES_MAX + 1
    assert lines[-1]["left_out"] == 30 - LINES_MAX
    assert len(server.logged) < LINES_MAX + 8


def test_an_address_in_use(pipes: Servers) -> None:
    server = pipes.start(ADMIN + kind())
    config = pipes.configure(
        f'[admin]\nlisten = "{server.ready["admin"]}"\n{kind()}', node='data = "other"', name="other.toml"
    )
    code, said = pipes.refused(config)
    assert code == 1
    assert f"cannot listen on {server.ready['admin']} for operators" in said or "Address already in use" in said


def test_without_the_table_there_is_none_and_import_truba_needs_no_http(pipes: Servers) -> None:
    assert pipes.start().ready["admin"] is None
    assert not (pipes.directory / "data" / "audit.jsonl").exists()
    code = "import sys, truba, truba.service; print({name.partition('.')[0] for name in sys.modules})"
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=True, env=environment())
    assert not {"fastapi", "uvicorn", "starlette", "prometheus_client", "opentelemetry"} & set(
        ast.literal_eval(done.stdout)
    )
