"""A password is told over TLS or not at all, where TLS is asked for."""

from __future__ import annotations

import asyncio
import json
import ssl
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from truba.errors import ConfigError
from truba.streams.jetstream import JetStream
from truba.streams.settings import JetStreamSettings

SECRET = "what-only-the-server-may-hear"


@asynccontextmanager
async def played(
    heard: bytearray, info: dict[str, object], tls: ssl.SSLContext | None, *, refuses: bool = False
) -> AsyncIterator[int]:
    """Somebody who says INFO as a nats-server does, and answers PING; `heard` is what is said to him. `refuses`: he
    lets nobody in."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"INFO " + json.dumps({"max_payload": 1 << 25, "headers": True, **info}).encode() + b"\r\n")
        await writer.drain()
        if tls is not None:
            await writer.start_tls(tls)
        while data := await reader.read(4096):
            heard.extend(data)
            if b"PING\r\n" in data:
                writer.write(b"-ERR 'Authorization Violation'\r\n" if refuses else b"PONG\r\n")
                if refuses:
                    break
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()


def plain(*ports: int, **more: object) -> JetStreamSettings:
    """With more patience than any test has."""
    servers = tuple(f"nats://127.0.0.1:{port}" for port in ports)
    return JetStreamSettings(servers, connect_timeout_s=600.0, **more)  # type: ignore[arg-type]


NAMED = {"user": "truba", "password": SECRET}


@pytest.mark.timeout(20)
async def test_who_is_refused_by_all_that_answer_hears_of_it_at_once() -> None:
    """One of the three is down."""
    async with played(bytearray(), {}, None, refuses=True) as one, played(bytearray(), {}, None, refuses=True) as other:
        with pytest.raises(ConfigError, match=r"does not let us in: .*Authorization Violation.*check user, password"):
            await JetStream.connect(plain(one, 1, other, **NAMED))


@pytest.mark.timeout(20)
async def test_one_server_that_refuses_is_no_refusal() -> None:
    """While a password is being changed, for example. Servers are tried in any order."""
    asked = bytearray()
    async with played(asked, {}, None, refuses=True) as old, played(bytearray(), {}, None) as new:
        while asked.count(b"CONNECT") < 3:
            stream = await JetStream.connect(plain(old, new, **NAMED))
            assert stream.servers == (f"127.0.0.1:{new}",)
            await stream.close()


def settings(port: int, **more: object) -> JetStreamSettings:
    values: dict[str, object] = {"user": "truba", "password": SECRET, "connect_timeout_s": 1.5, **more}
    return JetStreamSettings(servers=(f"tls://127.0.0.1:{port}",), **values)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    directory = tmp_path_factory.mktemp("tls")
    cert, key = directory / "cert.pem", directory / "key.pem"
    command = "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 -subj /CN=test"
    names = ["-addext", "subjectAltName=IP:127.0.0.1", "-keyout", str(key), "-out", str(cert)]
    subprocess.run([*command.split(), *names], check=True, capture_output=True)
    return cert, key


async def test_no_password_in_plain_text_though_the_server_asks_for_it() -> None:
    heard = bytearray()
    async with played(heard, {"auth_required": True}, None) as port:
        with pytest.raises(ConfigError, match="does not ask for TLS, and the configuration does"):
            await JetStream.connect(settings(port))
    assert SECRET.encode() not in heard


async def test_no_plain_text_where_no_password_is_asked_for_either() -> None:
    heard = bytearray()
    async with played(heard, {}, None) as port:
        with pytest.raises(ConfigError, match="does not ask for TLS"):
            await JetStream.connect(settings(port, user=None, password=None))
    assert b"SUB" not in heard


async def test_over_tls_it_is_told(certificate: tuple[Path, Path]) -> None:
    heard = bytearray()
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(*certificate)
    async with played(heard, {"auth_required": True, "tls_required": True}, context) as port:
        stream = await JetStream.connect(settings(port, tls_ca_file=certificate[0]))
        await stream.close()
    assert SECRET.encode() in heard


async def test_nor_the_system_users_password() -> None:
    from truba.ports.stream import StreamDown
    from truba.streams.requirements import _ask_servers  # the only place that tells it

    heard = bytearray()
    async with played(heard, {"auth_required": True}, None) as port:
        with pytest.raises(StreamDown, match="does not ask for TLS"):
            await _ask_servers(settings(port, system_user="sys", system_password=SECRET))
    assert SECRET.encode() not in heard
