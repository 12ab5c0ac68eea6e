"""TLS on real sockets, both loops: bytes go through, and whoever is refused hears why, on both sides."""

from __future__ import annotations

import asyncio
import os
import socket
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import cast

import pytest

from tests.tls.certificates import Authority, client, server, without_ca
from truba.tls import Contexts, HandshakeFailed, Secured, Tls, connect, layer, peer_names

PATIENCE_S = 20.0


class End(asyncio.Protocol):
    """One end: what it heard."""

    def __init__(self) -> None:
        self.heard = bytearray()
        self.news = asyncio.Event()
        self.at_end = False
        self.lost = asyncio.Event()
        self.error: Exception | None = None
        self.transport: asyncio.Transport
        self.stays = False
        self.writable = True

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        self.heard += data
        self.news.set()

    def eof_received(self) -> bool:
        self.at_end = True
        self.news.set()
        return self.stays

    def connection_lost(self, error: Exception | None) -> None:
        self.error = error
        self.news.set()
        self.lost.set()

    def pause_writing(self) -> None:
        self.writable = False

    def resume_writing(self) -> None:
        self.writable = True

    async def until(self, length: int) -> bytes:
        async with asyncio.timeout(PATIENCE_S):
            while len(self.heard) < length and not self.lost.is_set():
                self.news.clear()
                await self.news.wait()
        return bytes(self.heard)


class Port:
    """A listening port, whoever came in, and why others did not."""

    def __init__(self) -> None:
        self.inside: asyncio.Queue[End] = asyncio.Queue()
        self.refused: asyncio.Queue[str] = asyncio.Queue()
        self.where = ("", 0)

    def taken(self) -> End:
        end = End()
        self.inside.put_nowait(end)
        return end

    async def refusal(self) -> str:
        return await asyncio.wait_for(self.refused.get(), PATIENCE_S)

    async def guest(self) -> End:
        return await asyncio.wait_for(self.inside.get(), PATIENCE_S)


@asynccontextmanager
async def port(contexts: Contexts) -> AsyncIterator[Port]:
    made = Port()

    def secured() -> Secured:
        return Secured(
            made.taken,
            contexts.current(),
            server_side=True,
            failed=lambda error: made.refused.put_nowait(str(error)),
            plain_answer=b"-ERR TLS here\r\n",
        )

    listening = await asyncio.get_running_loop().create_server(secured, "127.0.0.1", 0)
    made.where = listening.sockets[0].getsockname()[:2]
    try:
        yield made
    finally:
        listening.close()


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path)


async def test_bytes_go_both_ways_whatever_their_number(authority: Authority) -> None:
    much = os.urandom(3 << 20)
    async with port(server(without_ca(authority.issue("127.0.0.1")))) as here:
        transport, end = await connect(End, *here.where, client(authority.believed))
        there = await here.guest()
        transport.write(b"a")
        transport.writelines([b"b", b"", much])
        assert await there.until(2 + len(much)) == b"ab" + much
        there.transport.write(much)
        assert await end.until(len(much)) == much
        assert transport.get_extra_info("ssl_object").version() == "TLSv1.3"
        transport.close()
        await asyncio.wait_for(there.lost.wait(), PATIENCE_S)
        assert (there.at_end, there.error) == (True, None)
        await asyncio.wait_for(end.lost.wait(), PATIENCE_S)


async def test_who_has_said_all_still_hears_the_answer(authority: Authority) -> None:
    async with port(server(without_ca(authority.issue("127.0.0.1")))) as here:
        transport, end = await connect(End, *here.where, client(authority.believed))
        there = await here.guest()
        there.stays = True
        transport.write(b"question")
        transport.write_eof()
        assert await there.until(8) == b"question"
        async with asyncio.timeout(PATIENCE_S):
            while not there.at_end:
                there.news.clear()
                await there.news.wait()
        there.transport.write(b"answer")
        there.transport.close()
        assert await end.until(6) == b"answer"


async def test_a_reader_that_pauses_holds_the_writer_up(authority: Authority) -> None:
    async with port(server(without_ca(authority.issue("127.0.0.1")))) as here:
        transport, end = await connect(End, *here.where, client(authority.believed))
        there = await here.guest()
        there.transport.pause_reading()
        transport.set_write_buffer_limits(high=64 << 10)
        sent = 0
        while end.writable and sent < 1 << 27:
            transport.write(bytes(1 << 20))
            sent += 1 << 20
            await asyncio.sleep(0)
        assert not end.writable
        assert not there.heard
        there.transport.resume_reading()
        assert len(await there.until(sent)) == sent
        transport.abort()


async def test_names_are_those_of_the_certificate(authority: Authority) -> None:
    both = authority.issue("127.0.0.1")
    async with port(server(both)) as here:
        transport, _ = await connect(
            End, *here.where, client(authority.issue("ann", "ann.example", "mailto@x.example"))
        )
        there = await here.guest()
        assert peer_names(there.transport) == {"ann", "ann.example", "mailto@x.example"}
        assert peer_names(transport) == {"127.0.0.1"}
        transport.abort()
    assert peer_names(there.transport.get_extra_info("socket") and asyncio.Transport()) == frozenset()


async def refused(here: Port, contexts: Contexts | None) -> str:
    """What the client hears: at the handshake, or (TLS 1.3, where the server judges last) right after it."""
    try:
        _, end = await connect(End, *here.where, contexts)
    except HandshakeFailed as error:
        return str(error)
    await asyncio.wait_for(end.lost.wait(), PATIENCE_S)
    return str(end.error)


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
async def test_both_sides_hear_why_a_client_is_refused(
    tmp_path: Path, authority: Authority, version: ssl.TLSVersion
) -> None:
    other = Authority(tmp_path, "other")
    stranger = other.issue("ann")
    late = authority.issue("late", expired=True)
    cases = [
        (authority.believed, "does not accept our certificate|handshake failure", "shows no certificate"),
        (Tls(authority.pem, stranger.certificate, stranger.key), "does not accept our.*: unknown ca", "not accepted: "),
        (late, "does not accept our certificate: certificate expired", "not accepted: certificate has expired"),
    ]
    async with port(server(authority.issue("127.0.0.1"))) as here:
        for tls, to_client, to_server in cases:
            contexts = client(tls)
            contexts.current().maximum_version = version
            with pytest.raises(AssertionError, match=to_client):
                raise AssertionError(await refused(here, contexts))
            with pytest.raises(AssertionError, match=to_server):
                raise AssertionError(await here.refusal())
        assert here.inside.empty()


async def test_both_sides_hear_why_a_server_is_refused(tmp_path: Path, authority: Authority) -> None:
    other = Authority(tmp_path, "other")
    cases = [
        (other.issue("127.0.0.1"), "not accepted: unable to get local issuer", "unknown ca"),
        (authority.issue("127.0.0.1", expired=True), "not accepted: certificate has expired", "certificate expired"),
        (authority.issue("elsewhere.example"), "not accepted: IP address mismatch", "certificate"),
    ]
    for tls, to_client, to_server in cases:
        async with port(server(without_ca(tls))) as here:
            with pytest.raises(HandshakeFailed, match=to_client):
                await connect(End, *here.where, client(authority.believed))
            assert to_server in await here.refusal()
            assert here.inside.empty()


async def test_old_versions_are_refused(authority: Authority) -> None:
    old = client(authority.believed)
    with pytest.warns(DeprecationWarning, match="TLSv1 "):
        old.current().minimum_version = ssl.TLSVersion.TLSv1
    with pytest.warns(DeprecationWarning, match="TLSv1_1"):
        old.current().maximum_version = ssl.TLSVersion.TLSv1_1
    async with port(server(without_ca(authority.issue("127.0.0.1")))) as here:
        with pytest.raises(HandshakeFailed):
            await connect(End, *here.where, old)


async def test_plain_text_to_a_port_that_speaks_tls(authority: Authority) -> None:
    async with port(server(authority.issue("127.0.0.1"))) as here:
        reader, writer = await asyncio.open_connection(*here.where)
        writer.write(b"*1\r\n$4\r\nPING\r\n")
        assert await asyncio.wait_for(reader.read(), PATIENCE_S) == b"-ERR TLS here\r\n"
        assert "does not speak TLS" in await here.refusal()
        writer.close()


async def test_tls_to_a_port_that_speaks_plain_text(authority: Authority) -> None:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"-ERR what is this?\r\n")
        writer.close()

    async with await asyncio.start_server(answer, "127.0.0.1", 0) as plain:
        with pytest.raises(HandshakeFailed, match="does not speak TLS"):
            await connect(End, *plain.sockets[0].getsockname(), client(authority.believed))


async def test_who_hangs_up_in_the_handshake_is_told_of(authority: Authority) -> None:
    async def leave(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.close()

    async with await asyncio.start_server(leave, "127.0.0.1", 0) as plain:
        with pytest.raises(HandshakeFailed, match="closed the connection during the handshake"):
            await connect(End, *plain.sockets[0].getsockname(), client(authority.believed))
    async with port(server(authority.issue("127.0.0.1"))) as here:
        _, writer = await asyncio.open_connection(*here.where)
        writer.close()
        assert "closed the connection during the handshake" in await here.refusal()


async def test_who_says_nothing_is_hung_up(authority: Authority, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(layer, "HANDSHAKE_S_MAX", 0.01)
    async with port(server(authority.issue("127.0.0.1"))) as here:
        reader, writer = await asyncio.open_connection(*here.where)
        assert await asyncio.wait_for(reader.read(), PATIENCE_S) == b""
        assert "no handshake within" in await here.refusal()
        writer.close()


async def test_bytes_that_were_changed_on_the_way_end_the_connection(authority: Authority) -> None:
    async with port(server(without_ca(authority.issue("127.0.0.1")))) as here:
        transport, _end = await connect(End, *here.where, client(authority.believed))
        there = await here.guest()
        raw = transport.get_extra_info("socket").fileno()
        os.write(raw, b"\x17\x03\x03\x00\x20" + bytes(32))
        await asyncio.wait_for(there.lost.wait(), PATIENCE_S)
        assert isinstance(there.error, HandshakeFailed)
        assert there.heard == b""
        transport.abort()


async def test_an_end_without_farewell_is_a_broken_connection(authority: Authority) -> None:
    """Anybody on the way can send that; what was said before it may be half of a whole."""
    async with port(server(without_ca(authority.issue("127.0.0.1")))) as here:
        transport, _ = await connect(End, *here.where, client(authority.believed))
        there = await here.guest()
        there.stays = True
        transport.write(b"half")
        await there.until(4)
        with socket.socket(fileno=os.dup(transport.get_extra_info("socket").fileno())) as raw:
            raw.shutdown(socket.SHUT_WR)
        await asyncio.wait_for(there.lost.wait(), PATIENCE_S)
        assert not there.at_end
        transport.abort()
