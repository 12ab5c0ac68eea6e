"""What a run says, to whomever and at whatever level, holds no secret and no record."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
from pathlib import Path

import pytest

import truba
from tests.service.process import Servers, environment, kind
from tests.service.wire import Refused, Wire, request, until
from tests.tls.certificates import Authority
from truba.passwords import make

PASSWORD, TOKEN, ROUTE, OWNER = "pass-S3CRET", "token-S3CRET", "route-S3CRET", b"owner-S3CRET-0123"
RECORD = "S3CRET-record-S3CRET"
MARK = "S3CRET"
HANDLERS = """
async def finish(repeat):
    if repeat.attempt == 1:
        raise RuntimeError("not today")
HANDLERS = {7: finish}
"""


@pytest.fixture
def said(tmp_path: Path) -> list[str]:
    return []


def cli(said: list[str], *words: str, **variables: str) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        [sys.executable, "-m", "truba", *words],
        env=environment() | variables, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    said += [done.stdout, done.stderr]
    return done


async def test_nothing_secret_is_said(pipes: Servers, tmp_path: Path, said: list[str]) -> None:
    """A pipe at debug level with users, TLS and a handler; right and wrong logins; operators; nonsense; a stop."""
    authority = Authority(tmp_path)
    tls = authority.issue("127.0.0.1")
    (tmp_path / "finishing.py").write_text(HANDLERS)
    (tmp_path / "route").write_text(ROUTE)
    (tmp_path / "ann").write_text(PASSWORD)
    slow, quick = make(PASSWORD.encode(), b"salt"), make(TOKEN.encode(), b"salt", slow=False)
    variables = environment() | {"TRUBA_PASSWORD": TOKEN}
    with subprocess.Popen(  # noqa: ASYNC220 - of a test
        [sys.executable, "-m", "truba", "handlers", "finishing:HANDLERS", "--listen", "127.0.0.1:0", "--json",
         "--user", "handler", "--secret-file", "route", "--certificate", str(tls.certificate), "--key", str(tls.key)],
        cwd=tmp_path, env=variables, stderr=subprocess.PIPE, text=True,
    ) as handler:  # fmt: skip
        assert handler.stderr is not None
        address = next(json.loads(line)["listen"] for line in handler.stderr if '"ready"' in line)
        all_but_handle = 'rights = [{ kinds = ["*"], verbs = ["write", "read", "operate"] }]'
        users = (
            f'[users.ann]\npassword_hash = "{slow}"\n{all_but_handle}\n'
            f'[users.handler]\npassword_hash = "{quick}"\nrights = [{{ kinds = ["transfer"], verbs = ["handle"] }}]\n'
        )
        node = f'log_level = "debug"\n[node.tls]\ncertificate = "{tls.certificate}"\nkey = "{tls.key}"\n'
        tables = kind(handler=f"trubas://{address}", handler_secret_file="route", backoff={"base": "0s"})
        tables += f'tls = {{ ca = "{authority.pem}" }}\n'
        server = pipes.start(tables + users, node=node)
        url = f"trubas://127.0.0.1:{server.port}"
        options = {"user": "ann", "tls": authority.believed, "token": OWNER, "connect_timeout_s": 5.0}
        async with truba.connect(url, password=PASSWORD, **options) as pipe:  # type: ignore[arg-type]
            said += [repr(pipe), repr(vars(pipe)["_targets"])]
            session = await pipe.new(7, RECORD.encode())
            await session.append(RECORD.encode())
            said.append(repr(session))
            await session.fail("given back")
            stays = await pipe.new(7, RECORD.encode())
            listing = ["--url", url, "--user", "ann", "--ca", str(authority.pem)]
            listing += ["--password-file", str(tmp_path / "ann")]
            assert cli(said, "ls", "--all", *listing).returncode == 0
            assert cli(said, "show", str(stays.id), *listing).returncode == 0
            assert cli(said, "delete", str(stays.id), "--yes", *listing).returncode != 0
            await stays.delete()
        for wrong in (f"{PASSWORD}x", TOKEN):
            with pytest.raises(truba.NoAuth) as caught:
                await truba.connect(url.replace("//", f"//ann:{wrong}@"), tls=authority.believed)
            said.append(str(caught.value))
        for bad in (f"truba://ann:{PASSWORD}@10.0.0.1:1", f"trubas://ann:{PASSWORD}@h:99999", f"no://a:{PASSWORD}@h"):
            said.append(cli(said, "ls", "--url", bad).stderr)
        assert cli(said, "check", "--config", str(server.config)).returncode in (0, 1)
        assert cli(said, "check", "--config", str(server.config), "--json").returncode in (0, 1)
        server.terminate()
        handler.terminate()
        said += [handler.communicate(timeout=30)[1], *server.lines]
    assert "not today" in "".join(said)  # the handler was there, and what it said is among this
    for line in "".join(said).splitlines():
        assert MARK not in line, line
        assert "PRIVATE KEY" not in line
    secrets = [str(slow).rpartition("$")[2], str(quick).rpartition("$")[2]]
    assert not any(secret in text for secret in secrets for text in said)


def test_no_piece_of_a_record_is_logged(pipes: Servers) -> None:
    """Whatever the framing does to it, at debug level."""
    server = pipes.start(node='log_level = "debug"')
    pieces = [
        request("NEW", "7", RECORD) + RECORD.encode(),
        b"*1\r\n$" + RECORD.encode() + b"\r\n",
        b"*" + RECORD.encode() + b"\r\n",
        b"*2\r\n$4\r\nPING\r\n$2\r\n" + RECORD.encode() + b"\r\n",
        b"\x01" + RECORD.encode(),
        b'NEW 7 "' + RECORD.encode() + b"\r\n",
        request("APPEND", "1-1", RECORD),
        request(RECORD, RECORD),
        request("FAIL", "1-1", RECORD),
        request("STORE", "1-1", RECORD),
        request("OWNER", RECORD),
        request("HELLO", RECORD),
        request("CLIENT", "SETNAME", RECORD),
    ]
    for piece in pieces:
        with Wire.dial(server.address) as client, contextlib.suppress(ConnectionError, Refused):
            client.send(piece)
            client.sock.shutdown(1)
            client.ended()
    with Wire.dial(server.address) as client:
        until(lambda: client.ask("PING"), lambda answer: answer == b"PONG")
    assert server.terminate() == 0
    assert any("connection given up" in line for line in server.lines)
    text = "".join(server.lines)
    assert MARK[:3] not in text
