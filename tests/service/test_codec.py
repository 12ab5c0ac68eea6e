"""A kind's codec in the configuration of a real pipe: what operators see of records, and how that changes."""

from __future__ import annotations

import json
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.service.process import Server, Servers, kind, servers
from tests.service.test_reload import reload
from tests.service.wire import Wire

ADMIN = '[admin]\nlisten = "127.0.0.1:0"\nshow_records = true\n'
STEPS = "tests.admin.handlers:STEPS"


@pytest.fixture
def pipes(tmp_path: Path) -> Iterator[Servers]:
    yield from servers(tmp_path)


def written(server: Server) -> str:
    with Wire.dial(server.address) as client:
        number = client.ask(b"NEW", b"7", b'{"step":"debit","amount":5,"from":"hidden"}', b"hidden")
        client.ask(b"STORE", number, b"3600")
        assert b"hidden" in str(client.ask(b"SHOW", number)).encode()  # whoever may read, reads
        return number.decode()


def shown(server: Server, number: str) -> list[Any]:
    with httpx.Client(base_url=f"http://{server.ready['admin']}", timeout=20) as client:
        answer = client.get(f"/v1/sessions/{number}", params={"contents": True})
        assert answer.status_code == 200
        records = answer.json()["record_list"]
    return [record["shown"] if record["base64"] is None else record["base64"] for record in records]


def test_operators_see_what_it_allows_until_a_reload_says_otherwise(pipes: Servers) -> None:
    server = pipes.start(ADMIN + kind(codec=STEPS))
    text = server.config.read_text()
    number = written(server)
    assert shown(server, number) == ["dict(step='debit', …)", "6 bytes, not readable by the codec"]
    told = reload(server, text.replace("STEPS", "AMOUNTS"))
    assert told["changes"] == [f"kinds.transfer.codec: {STEPS} -> tests.admin.handlers:AMOUNTS"]
    assert shown(server, number)[0] == "dict(amount=5, …)"
    for codec, why in (
        ("nope:STEPS", "kind 'transfer': codec 'nope:STEPS' cannot be loaded: ModuleNotFoundError"),
        ("truba.records:Json", "kind 'transfer': codec 'truba.records:Json' is a class: name an object of it"),
    ):
        told = reload(server, text.replace(STEPS, codec) + kind(8, "mail"))
        assert told["event"] == "configuration not reloaded"
        assert why in str(told["error"])
        assert shown(server, number)[0] == "dict(amount=5, …)"
        with httpx.Client(base_url=f"http://{server.ready['admin']}", timeout=20) as client:
            assert client.get("/v1/kinds/mail").status_code == 404
    told = reload(server, text.replace(f'codec = "{STEPS}"\n', ""))
    assert told["changes"] == ["kinds.transfer.codec: tests.admin.handlers:AMOUNTS -> None"]
    assert shown(server, number)[1] == "aGlkZGVu"
    assert server.terminate() == 0


@pytest.mark.parametrize(
    ("codec", "why"),
    [
        ("nope:STEPS", "codec 'nope:STEPS' cannot be loaded"),
        ("json:dumps", "codec 'json:dumps' is no codec"),
        ("STEPS", "kinds.transfer.codec"),
    ],
)
def test_what_is_no_codec_is_refused_at_the_start(pipes: Servers, codec: str, why: str) -> None:
    code, said = pipes.refused(pipes.configure(kind(codec=codec)))
    assert code == 2
    assert why in said
    assert not (pipes.directory / "data").exists()


@pytest.mark.parametrize(("codec", "trouble"), [("BROKEN", "ValueError"), ("HANGS", "no answer within 2 s")])
def test_its_trouble_is_nobody_elses(pipes: Servers, codec: str, trouble: str) -> None:
    server = pipes.start(ADMIN + kind(codec=f"tests.admin.handlers:{codec}"))
    number = written(server)
    for _ in range(2):
        assert "bytes, the codec " in shown(server, number)[0]
        written(server)
    server.send(signal.SIGTERM)
    assert server.wait() == 0  # a thread that never comes back does not keep the process
    warnings = [line for line in server.logged if line["event"] == "a codec failed to show records"]
    assert [(line["kind"], line["error"]) for line in warnings] == [("transfer", trouble)]
    assert "hidden" not in json.dumps(server.logged)
