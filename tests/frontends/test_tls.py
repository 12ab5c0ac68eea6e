"""Clients, relay and leader in TLS: what is relayed is encrypted on both ways, and nothing else changes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import structlog

import truba
from tests.frontends.cluster import Place
from tests.tls.certificates import Authority, client, server
from truba.auth import SharedPassword
from truba.frontends.listening import Listen, bind
from truba.ports.auth import Authenticator
from truba.rejections import LINES_MAX
from truba.tls import Contexts, Tls, open_streams
from truba.users import User, Users
from truba.wire.connection import WireSettings

EVERYWHERE = dict.fromkeys(["NEW", "APPEND", "DELETE", "OWNER", "FAIL"])


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path)


@asynccontextmanager
async def secured(
    tls: Contexts,
    relays: Contexts | None = None,
    authenticator: Authenticator | None = None,
    connections_max: int = 100,
) -> AsyncIterator[Place]:
    listening = await bind(Listen("127.0.0.1:0", None, connections_max, tls))
    made = Place(listening, WireSettings(authenticator=authenticator), relays)
    made.url = made.url.replace("truba:", "trubas:")
    try:
        yield made
    finally:
        listening.close()
        await made.rest()


async def test_a_client_reaches_the_leader_through_any_node(authority: Authority) -> None:
    node = authority.issue("127.0.0.1")
    async with (
        secured(server(node), client(node)) as follower,
        secured(server(node)) as leader,
    ):
        await leader.lead()
        await follower.follow(leader.address)
        ann = authority.issue("ann")
        for url in (leader.url, follower.url):
            async with truba.connect(url, tls=ann) as pipe, pipe.session(7, b"r" * 300_000) as session:
                await session.append(b"s" * 300_000)
        reader, writer = await _plain_streams(follower, ann)
        writer.write(b"PING\r\n" * 20_000)
        writer.write_eof()
        async with asyncio.timeout(20):
            assert await reader.read(-1) == b"+PONG\r\n" * 20_000
        writer.close()


async def _plain_streams(where: Place, tls: Tls) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    return await open_streams(*where.address, client(tls))


async def test_a_certificate_says_who_it_is_to_the_leader_itself(authority: Authority) -> None:
    """Relayed, it is the node's certificate that the leader sees, and the client must say who it is by itself."""
    users = Users([User("ann", EVERYWHERE, certificate="ann.example"), User("bob", {}, certificate="bob")])
    node = authority.issue("127.0.0.1")
    async with (
        secured(server(node), client(node), users) as follower,
        secured(server(node), None, users) as leader,
    ):
        await leader.lead()
        await follower.follow(leader.address)
        ann, bob = authority.issue("x", "ann.example"), authority.issue("bob")
        both = authority.issue("bob", "ann.example", file="both")
        async with truba.connect(leader.url, tls=ann) as pipe, pipe.session(7) as session:
            await session.append(b"a")
        with pytest.raises(truba.NoPerm, match=r"user 'bob' may not OWNER: the right OWNER \(or write or handle\)"):
            await truba.connect(leader.url, tls=bob)
        for tls in (both, authority.issue("eve")):
            with pytest.raises(truba.NoAuth):
                await truba.connect(leader.url, tls=tls)
        reader, writer = await _plain_streams(follower, ann)
        writer.write(b"PING\r\n")
        assert (await asyncio.wait_for(reader.readline(), 20)).startswith(b"-NOAUTH")
        writer.close()


async def test_who_speaks_no_tls_fills_no_disk_with_log(authority: Authority) -> None:
    with structlog.testing.capture_logs() as logged:
        async with secured(server(authority.issue("127.0.0.1"))) as here:
            await here.lead()
            for _ in range(30):
                reader, writer = await asyncio.open_connection(*here.address)
                writer.write(b"PING\r\n")
                assert (await asyncio.wait_for(reader.readline(), 20)).startswith(b"-ERR this port speaks TLS")
                writer.close()
            assert here.listening.rejections.counts == {"no TLS connection": 30}
    assert len(logged) == LINES_MAX + 1
    assert logged[-1]["left_out"] == 30 - LINES_MAX


async def test_handshakes_count_as_connections_and_as_strangers(
    authority: Authority, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("truba.strangers.STRANGERS_MAX", 2)
    node = authority.issue("127.0.0.1")
    async with secured(server(node), authenticator=SharedPassword("hush"), connections_max=4) as here:
        await here.lead()
        known = await truba.connect(here.url, password="hush", tls=authority.issue("ann"))
        silent = [await asyncio.open_connection(*here.address) for _ in range(3)]
        async with asyncio.timeout(20):
            assert await silent[0][0].read() == b""  # it made room for the third
        async with known.session(7) as session:
            await session.append(b"a")
        await known.close()
        for _, writer in silent:
            writer.close()
