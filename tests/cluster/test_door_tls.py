"""The peer door in TLS: both sides show a certificate of the cluster's authority, and then the secret."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from pathlib import Path

import pytest

from tests.cluster.played import SECRET, Played, opened
from tests.tls.certificates import Authority, client, server
from truba.address import Address
from truba.cluster.peers import Peer, statuses
from truba.errors import BadRequest, NoAuth, Unavailable
from truba.tls import Tls


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path)


async def test_nodes_of_one_authority(tmp_path: Path, authority: Authority) -> None:
    """Whole checkpoints too, which are larger than any buffer."""
    host = Played()
    host.files = {"one": b"x" * (5 << 20), "two/three": b""}
    node = authority.issue("127.0.0.1")
    async with opened(host, tmp_path / "scratch", tls=server(node)) as door:
        dialled = client(authority.issue("127.0.0.1", file="b"))
        async with Peer.visit(door.bound, SECRET, tls=dialled) as peer:
            assert await peer.status() == host.said
            await peer.fetch(tmp_path / "fetched")
        assert (tmp_path / "fetched" / "one").read_bytes() == host.files["one"]
        assert (await statuses({"a": door.bound}, SECRET, tls=dialled))["a"] == host.said
        with pytest.raises(NoAuth):  # a certificate alone is not enough
            await Peer.connect(door.bound, b"wrong", tls=dialled)


async def test_who_is_refused(tmp_path: Path, authority: Authority) -> None:
    stranger = Authority(tmp_path, "other").issue("127.0.0.1")
    ours = authority.issue("127.0.0.1")
    cases = [
        (authority.believed, "does not accept our certificate: certificate required"),
        (Tls(authority.pem, stranger.certificate, stranger.key), "does not accept our certificate: unknown ca"),
        (Tls(stranger.ca, ours.certificate, ours.key), "the other side's certificate is not accepted"),
    ]
    async with opened(Played(), tmp_path / "scratch", tls=server(ours)) as door:
        for tls, message in cases:
            with pytest.raises(Unavailable, match=message):
                await Peer.connect(door.bound, SECRET, tls=client(tls))
        with pytest.raises(BadRequest, match="this door speaks TLS"):
            await Peer.connect(door.bound, SECRET)
        elsewhere = Address("localhost", door.bound.port)
        with pytest.raises(Unavailable, match="Hostname mismatch"):
            await Peer.connect(elsewhere, SECRET, tls=client(ours))
    async with opened(Played(), tmp_path / "scratch") as door:
        with pytest.raises(Unavailable, match="does not speak TLS"):
            await Peer.connect(door.bound, SECRET, tls=client(ours))


async def test_strangers_do_not_keep_peers_out(tmp_path: Path) -> None:
    async with opened(Played(), tmp_path) as door:
        held = [await asyncio.open_connection(*door.bound) for _ in range(80)]
        async with Peer.visit(door.bound, SECRET) as peer:
            assert (await peer.status()).name == "a"
        for _, writer in held:
            writer.close()
            with suppress(ConnectionError):  # the door has cut some of them
                await writer.wait_closed()
