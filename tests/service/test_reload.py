"""SIGHUP and the operators' reload: another configuration for a pipe that goes on, all of it or nothing."""

from __future__ import annotations

import json
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.service.process import PATIENCE_S, Server, Servers, kind, servers
from tests.service.wire import Refused, Wire
from truba.passwords import make


@pytest.fixture
def pipes(tmp_path: Path) -> Iterator[Servers]:
    yield from servers(tmp_path)


def reload(server: Server, text: str) -> dict[str, object]:
    """What the log says of it."""
    before = len(server.lines)
    server.config.write_text(text)
    server.send(signal.SIGHUP)
    until_s = time.monotonic() + PATIENCE_S
    while time.monotonic() < until_s:
        for line in server.lines[before:]:
            told = json.loads(line)
            if "reloaded" in str(told["event"]):
                return dict(told)
        time.sleep(0.01)
    raise AssertionError("".join(server.lines[before:]))


def test_kinds_come_change_and_go_while_clients_work(pipes: Servers) -> None:
    server = pipes.start(kind() + kind(8, "mail"))
    text = server.config.read_text()
    with Wire.dial(server.address) as client:
        held = client.ask(b"NEW", b"7", b"a")
        told = reload(server, text.replace("[kinds.mail]", "[kinds.post]\nmax_attempts = 3") + kind(9, "late"))
        assert told["event"] == "configuration reloaded"
        assert {change.split(":")[0] for change in told["changes"]} == {"kinds.mail", "kinds.post", "kinds.late"}  # type: ignore[attr-defined]
        assert client.ask(b"APPEND", held, b"b") == b"OK"
        client.ask(b"NEW", b"late", b"c")
        client.ask(b"NEW", b"post", b"d")
        with pytest.raises(Refused, match="UNKNOWNKIND"):
            client.ask(b"NEW", b"mail", b"e")
        told = reload(server, text)
        assert told["event"] == "configuration not reloaded"
        assert "kind late has 1 sessions" in str(told["error"])
        client.ask(b"NEW", b"9", b"f")
    assert server.terminate() == 0


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ("[kinds.transfer]\nnumber = ", "toml"),
        ('[node]\nunix = "other.sock"\n', "only a restart takes another node.unix; nothing was changed"),
        ('[users.ann]\npassword_hash = "HASH"\n', "only a restart takes another users (the first, or the last)"),
        (kind(7, "twin"), "7 is taken"),
    ],
)
def test_what_cannot_be_taken_changes_nothing(pipes: Servers, change: str, why: str) -> None:
    server = pipes.start(kind())
    text = server.config.read_text()
    change = change.replace("HASH", str(make(b"hush", b"salt", slow=False)))
    whole = text.replace("[node]\n", change) if change.startswith("[node]") else text + kind(8, "mail") + change
    told = reload(server, whole)
    assert told["event"] == "configuration not reloaded"
    assert why in str(told["error"])
    with Wire.dial(server.address) as client, pytest.raises(Refused, match="UNKNOWNKIND"):
        client.ask(b"NEW", b"8")
    assert reload(server, text + kind(8, "mail"))["event"] == "configuration reloaded"
    assert server.terminate() == 0


def test_another_log_level_leaves_the_form_that_the_command_line_asked_for(pipes: Servers) -> None:
    config = pipes.configure(kind(), node='log_format = "console"\n')
    server = pipes.start_again(config, "--json")
    told = reload(
        server, config.read_text().replace('log_format = "console"', 'log_format = "console"\nlog_level = "debug"')
    )
    assert told["changes"] == ["node.log_level: info -> debug"]
    assert server.terminate() == 0
    assert server.logged[-1]["event"] == "stopped"


def test_rights_change_for_who_is_in_already(pipes: Servers) -> None:
    def users(*rights: str) -> str:
        hashed = make(b"hush", b"salt", slow=False)
        listed = "".join(f'{{ kinds = ["transfer"], verbs = ["{verb}"] }},' for verb in rights)
        return f'[users.ann]\npassword_hash = "{hashed}"\nrights = [{listed}]\n'

    server = pipes.start(kind() + users("write"))
    text = server.config.read_text()
    with Wire.dial(server.address) as client:
        client.ask(b"AUTH", b"ann", b"hush")
        session = client.ask(b"NEW", b"7", b"a")
        assert reload(server, text.replace(users("write"), users("read")))["event"] == "configuration reloaded"
        with pytest.raises(Refused, match="NOPERM"):
            client.ask(b"APPEND", session, b"b")
        assert client.ask(b"SHOW", session)
    assert "hush" not in "".join(server.lines)


def test_a_handler_that_moves_is_dialled_at_its_new_place(pipes: Servers) -> None:
    notes = [pipes.directory / f"notes{number}" for number in range(2)]
    services = [pipes.child("handlers", "127.0.0.1:0", path) for path in notes]
    places = [service.wait_line("listening on ").split()[-1] for service in services]
    server = pipes.start(kind(handler=f"truba://{places[0]}"))
    with Wire.dial(server.address) as client:
        server.wait_line("handler connected")
        told = reload(server, server.config.read_text().replace(places[0], places[1]))
        assert told["sessions"] == {"transfer": {}}
        client.ask(b"STORE", client.ask(b"NEW", b"7", b"one"), b"0")
        until_s = time.monotonic() + PATIENCE_S
        while not (notes[1].exists() and notes[1].read_text()) and time.monotonic() < until_s:
            time.sleep(0.01)
        assert notes[1].read_text().endswith(" 1 stored one\n")
    assert not notes[0].exists()
    assert server.terminate() == 0


def test_operators_see_what_it_would_change_before_they_ask_for_it(pipes: Servers) -> None:
    server = pipes.start('[admin]\nlisten = "127.0.0.1:0"\n' + kind())
    text = server.config.read_text()
    with Wire.dial(server.address) as client:
        client.ask(b"NEW", b"7", b"a")
        server.config.write_text(text.replace("number = 7", "number = 7\nmax_attempts = 3") + kind(8, "mail"))
        with httpx.Client(base_url=f"http://{server.ready['admin']}", timeout=20) as admin:
            told = admin.post("/v1/configuration/reload", params={"apply": False}).json()
            assert (told["applied"], told["sessions"]) == (False, {"transfer": {"active": 1}, "mail": {}})
            assert {"key": "kinds.transfer.max_attempts", "before": 25, "after": 3} in told["changes"]
            with pytest.raises(Refused, match="UNKNOWNKIND"):
                client.ask(b"NEW", b"8")
            assert admin.post("/v1/configuration/reload").json()["applied"] is True
            assert admin.get("/v1/configuration").json()["kinds"]["mail"]["number"] == 8
            client.ask(b"NEW", b"8")
            server.config.write_text(text)
            refused = admin.post("/v1/configuration/reload")
            assert refused.status_code == 409
            assert "kind mail has 1 sessions" in refused.json()["detail"]
            server.config.write_text("[")
            assert admin.post("/v1/configuration/reload").status_code == 400
    audit = [json.loads(line) for line in (pipes.directory / "data" / "audit.jsonl").read_text().splitlines()]
    assert [line["result"].partition(":")[0] for line in audit] == [
        "asked",
        "done",
        "asked",
        "refused",
        "asked",
        "refused",
    ]
