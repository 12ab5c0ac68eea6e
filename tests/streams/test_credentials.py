"""Users who are JWTs: a real server with an operator lets them in, and what is wrong with a file is told at once."""

from __future__ import annotations

import asyncio
import signal
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import pytest

from tests.streams.operators import ACCOUNT, USER, Key, OperatorServer, credentials, file_of, operated
from tests.streams.test_login import played
from truba.errors import ConfigError
from truba.ports.stream import StreamDown, StreamGone
from truba.streams.credentials import read
from truba.streams.jetstream import JetStream
from truba.streams.requirements import StreamUnfit, check
from truba.streams.settings import JetStreamSettings
from truba.testing.nats.config import needed_permissions

CLUSTER = bytes(range(16))

pytestmark = pytest.mark.timeout(60)


@asynccontextmanager
async def connected(settings: JetStreamSettings) -> AsyncIterator[JetStream]:
    stream = await JetStream.connect(settings)
    try:
        yield stream
    finally:
        await stream.close()


async def who(stream: JetStream) -> str:
    """The key of the user that the server takes us for."""
    told = await stream.link.request("$SYS.REQ.USER.INFO")
    return str(told["data"]["user"])


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[OperatorServer]:
    async with operated(tmp_path / "nats") as running:
        yield running


async def test_it_is_let_in_and_writes_and_the_servers_are_judged(server: OperatorServer) -> None:
    settings = server.settings(server.truba(), system_credentials_file=server.sys())
    async with connected(settings) as stream:
        await stream.create(CLUSTER)
        assert await check(stream) == []


async def test_who_is_not_let_in_hears_of_it_at_once(server: OperatorServer) -> None:
    """Another account has signed that, another key signs now, or it has expired."""
    strange = credentials(Key(ACCOUNT), "truba")
    jwt = read(server.truba()).jwt
    for content in (strange, file_of(jwt, Key(USER).seed), credentials(server.account, "truba", expires=1)):
        with pytest.raises(ConfigError, match=r"does not let us in: .*Authorization Violation.*or credentials"):
            await JetStream.connect(server.settings(server.write("wrong.creds", content)))
    wrong = server.write("wrong.creds", strange)
    async with connected(server.settings(server.truba(), system_credentials_file=wrong)) as stream:
        await stream.create(CLUSTER)
        with pytest.raises(StreamUnfit, match=r"does not let system_credentials_file .*wrong.creds in: .*uthorization"):
            await check(stream)


async def test_who_has_lost_the_server_reads_the_file_again(
    server: OperatorServer, caplog: pytest.LogCaptureFixture
) -> None:
    """Half a file harms nobody."""

    async def restarted() -> str:
        generation = stream.link.generation
        server.process.signal(signal.SIGKILL)
        await server.process.wait()
        server.start()
        async with asyncio.timeout(30):
            while stream.link.generation == generation:  # noqa: ASYNC110 another process starts
                await asyncio.sleep(0.05)
        return await who(stream)

    file = server.truba()
    async with connected(server.settings(file)) as stream:
        first = await restarted()
        file.write_text(credentials(server.account, "another", needed_permissions("truba")))
        second = await restarted()
        assert second != first
        assert not caplog.records
        file.write_text("half of")
        assert await restarted() == second
        (said,) = caplog.messages
        assert "there is no NATS USER JWT in it" in said
        assert said.endswith("; what it said before is used")


async def test_a_jwt_that_expires_is_replaced_while_the_node_runs(server: OperatorServer) -> None:
    permissions = needed_permissions("truba")
    file = server.write("truba.creds", credentials(server.account, "old", permissions, int(time.time()) + 4))
    async with connected(server.settings(file)) as stream:
        old, generation = await who(stream), stream.link.generation
        file.write_text(credentials(server.account, "new", permissions))
        async with asyncio.timeout(30):
            while stream.link.generation == generation:  # the server ends the connection
                with suppress(StreamDown, StreamGone):
                    await stream.bounds()  # as a node does
                await asyncio.sleep(0.05)
        assert await who(stream) != old


GOOD = Key(USER)
WRONG = [
    ("", "there is no NATS USER JWT in it"),
    (file_of("a.b.c", GOOD.seed).partition("********")[0], "there is no USER NKEY SEED in it"),
    (file_of("a.b.c", GOOD.seed[:-1]), "is not the seed of a user's key"),
    (file_of("a.b.c", GOOD.seed[:20] + ("A" if GOOD.seed[20] != "A" else "B") + GOOD.seed[21:]), "is not the seed"),
    (file_of("a.b.c", Key(ACCOUNT).seed), "is not the seed of a user's key"),
    (file_of("a.b.c", GOOD.public), "is not the seed of a user's key"),
    (file_of("a.b.c", "not_base32"), "is not the seed of a user's key"),
]


@pytest.mark.parametrize(("content", "said"), WRONG)
async def test_a_file_that_cannot_be_used_is_named(tmp_path: Path, content: str, said: str) -> None:
    file = tmp_path / "truba.creds"
    file.write_text(content)
    settings = JetStreamSettings(("nats://127.0.0.1:1",), credentials_file=file, connect_timeout_s=600.0)
    with pytest.raises(ConfigError, match=rf"NATS credentials {file}: .*{said}.*nsc generate creds") as told:
        await JetStream.connect(settings)
    assert GOOD.seed[:20] not in str(told.value)


async def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    settings = JetStreamSettings(("nats://127.0.0.1:1",), system_credentials_file=tmp_path, trust_servers=True)
    with pytest.raises(ConfigError, match=rf"NATS credentials {tmp_path}: Is a directory"):
        read(tmp_path)
    assert settings.system == f"system_credentials_file {tmp_path}"


def test_lines_may_end_as_on_windows_and_nothing_secret_is_printed(tmp_path: Path) -> None:
    file = tmp_path / "truba.creds"
    file.write_bytes(file_of("a.b.c", GOOD.seed).replace("\n", "\r\n").encode())
    found = read(file)
    assert found.jwt == "a.b.c"
    GOOD.private.public_key().verify(found.sign("nonce"), b"nonce")
    assert repr(found) == "Credentials()"


async def test_neither_jwt_nor_signature_in_plain_text(tmp_path: Path) -> None:
    file = tmp_path / "truba.creds"
    file.write_text(file_of("told.to.nobody", GOOD.seed))
    heard = bytearray()
    async with played(heard, {"auth_required": True, "nonce": "abc"}, None) as port:
        settings = JetStreamSettings((f"tls://127.0.0.1:{port}",), credentials_file=file, connect_timeout_s=1.5)
        with pytest.raises(ConfigError, match="does not ask for TLS, and the configuration does"):
            await JetStream.connect(settings)
    assert b"told.to.nobody" not in heard
    assert b'"sig"' not in heard


async def test_a_password_needs_none_of_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "truba.streams.credentials", None)
    async with played(bytearray(), {}, None) as port:
        settings = JetStreamSettings((f"nats://127.0.0.1:{port}",), user="truba", password="password")
        await (await JetStream.connect(settings)).close()
