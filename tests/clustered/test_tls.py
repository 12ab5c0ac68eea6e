"""Three nodes that speak TLS to clients, to each other and at their peer doors, and believe one authority."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

import truba
from tests.clustered.support import run_truba
from tests.tls.certificates import Authority, client
from truba.testing.nats import NatsServers
from truba.testing.nodes import Nodes
from truba.tls import open_streams

pytestmark = pytest.mark.timeout(120)


async def test_a_cluster_behind_tls(tmp_path: Path) -> None:
    """Clients at any node, relayed ones too; operators; a leader that hands over, and one that is killed."""
    authority = Authority(tmp_path)
    ann = authority.issue("ann")
    async with (
        await NatsServers.start(tmp_path / "nats", 3) as servers,
        Nodes(tmp_path / "nodes", servers, tls=authority.issue("127.0.0.1")) as nodes,
    ):
        await nodes.start()
        leader = await nodes.leader()
        async with truba.connect(nodes.urls, tls=ann, connect_timeout_s=30, timeout_s=60, grace_s=60) as pipe:
            session = await pipe.new(7, b"first")
            for url in nodes.urls:
                async with truba.connect(url, tls=ann, connect_timeout_s=30) as other, other.session(7) as brief:
                    await brief.append(b"x")
            follower = next(name for name in nodes.names if name != leader)
            reader, writer = await open_streams(*nodes.clients[follower], client(ann))
            writer.write(b"PING\r\n")
            assert await asyncio.wait_for(reader.readline(), 20) == b"+PONG\r\n"
            writer.close()

            config = str(nodes.config(follower))
            code, out, err = await run_truba("cluster", "status", "--config", config)
            assert code == 0, out + err
            code, out, err = await run_truba("cluster", "step-down", "--config", config, "--to", follower)
            assert code == 0, out + err
            await session.append(b"second")
            await nodes.kill(follower)
            await nodes.leader()
            await session.append(b"third")
            nodes.launch(follower)
            await nodes.leader()
            await nodes.agree()
            await session.delete()
        with pytest.raises(truba.Unavailable, match="does not accept our certificate"):
            await truba.connect(nodes.urls[0], tls=authority.believed, connect_timeout_s=0.5)
        assert not [line for line in nodes.log(leader).splitlines() if '"level": "error"' in line]
