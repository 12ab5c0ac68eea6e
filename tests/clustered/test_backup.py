"""A cluster's backup is that of a node at rest; restored, it begins another cluster and never joins the old one."""

from __future__ import annotations

from pathlib import Path

import pytest

import truba
from tests.clustered.support import records_of, run_truba
from truba.backup.verify import verify
from truba.streams.jetstream import JetStream
from truba.testing.nats import NatsServers
from truba.testing.nodes import Nodes


@pytest.mark.timeout(240)
async def test_a_cluster_is_backed_up_and_restored(tmp_path: Path) -> None:
    async with (
        await NatsServers.start(tmp_path / "nats", 3) as servers,
        Nodes(tmp_path / "nodes", servers) as nodes,
    ):
        await nodes.start()
        known: dict[str, list[bytes]] = {}
        async with truba.connect(nodes.urls, connect_timeout_s=30) as pipe:
            for n in range(20):
                session = await pipe.new(7, b"%d" % n)
                await session.store(3600)
                known[str(session.id)] = [b"%d" % n]
        code, _, err = await run_truba("backup", "one", "--url", nodes.urls[0])
        assert code == 1
        assert "stop one node" in err
        await nodes.agree()
        leader = await nodes.leader()
        follower = next(name for name in nodes.names if name != leader)
        backup = tmp_path / "backup"
        code, _, err = await run_truba("backup", "--data", str(nodes.data(follower)), str(backup))
        assert code == 7  # it runs
        assert await nodes.stop(follower) == 0
        code, _, err = await run_truba("backup", "--data", str(nodes.data(follower)), str(backup))
        assert code == 0, err
        assert verify(backup).sound
        last = verify(backup).manifest.at
        nodes.launch(follower)
        await nodes.agree()
        for name in nodes.names:
            await nodes.stop(name)

        restored = tmp_path / "restored"
        code, _, err = await run_truba("restore", str(backup), str(restored))
        assert code == 0, err
        config = nodes.config("a")
        text = config.read_text()
        config.write_text(text.replace('data = "a"', f'data = "{restored}"'))
        nodes.launch("a")  # the old stream is still there: this is not its log
        assert await nodes.wait("a", 60) == 7
        assert "holds log" in nodes.log("a")

        stream = await JetStream.connect(servers.settings())
        await stream.remove()
        await stream.close()
        code, _, err = await run_truba("cluster", "import", str(restored), "-c", str(config))
        assert code == 0, err
        nodes.launch("a")
        await nodes.leader()
        for name in ("b", "c"):  # with empty directories: their old ones are of the old cluster
            nodes.data(name).rename(tmp_path / f"old-{name}")
            nodes.launch(name)
        await nodes.agree()
        assert await records_of(nodes) == known
        async with truba.connect(nodes.urls) as pipe:
            session = await pipe.new(7, b"goes on")
            assert session.id > truba.Index(last.term, last.seq)
