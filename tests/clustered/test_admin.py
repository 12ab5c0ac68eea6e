"""The admin addresses of a real cluster: who leads is steered, a pause outlives its leader."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest

from tests.clustered.support import run_truba, told, until, write
from truba.testing.nats import NatsServers
from truba.testing.nodes import KIND, Nodes

pytestmark = pytest.mark.timeout(120)


@pytest.fixture
async def nodes(tmp_path: Path) -> AsyncIterator[Nodes]:
    servers = await NatsServers.start(tmp_path / "nats", 3)
    try:
        kinds = f'[admin]\nlisten = "127.0.0.1:0"\n{KIND}codec = "steps:STEPS"\n'
        (tmp_path / "nodes").mkdir(mode=0o700)
        (tmp_path / "nodes" / "steps.py").write_text("from truba.records import Json\n\nSTEPS = Json(show=['step'])\n")
        async with Nodes(tmp_path / "nodes", servers, kinds=kinds) as made:
            await made.start()
            yield made
    finally:
        servers.end()


def asking(nodes: Nodes, name: str) -> httpx.AsyncClient:
    lines = [json.loads(line) for line in nodes.log(name).splitlines() if line.startswith("{")]
    bound = next(line["admin"] for line in reversed(lines) if line["event"] == "ready")
    return httpx.AsyncClient(base_url=f"http://{bound}", timeout=20)


async def test_a_pause_outlives_its_leader_and_followers_say_who_leads(nodes: Nodes) -> None:
    leader = await nodes.leader()
    others = [name for name in nodes.names if name != leader]
    (number,) = await write(nodes, 1)
    texts = ["int", "4 bytes, not readable by the codec"]
    async with asking(nodes, leader) as client:
        assert (await client.get("/v1/readiness")).json()["role"] == "leader"
        assert (await client.post("/v1/kinds/transfer/pause")).status_code == 200
        session = (await client.get(f"/v1/sessions/{number}")).json()
        assert [record["shown"] for record in session["record_list"]] == texts
        assert [hold["cause"] for hold in session["history"]] == ["stored"]
        assert "An operator has paused this kind" in " ".join(session["why"])
    for name in others:
        await told(nodes, name, lambda status: status.leader == leader)
        async with asking(nodes, name) as client:
            assert (await client.get("/v1/health")).status_code == 200
            assert (await client.get("/v1/readiness")).status_code == 503
            assert (await client.get("/v1/serving")).status_code == 200
            refused = await client.post("/v1/kinds/transfer/continue")
            assert (refused.status_code, refused.json()["code"]) == (503, "NOTLEADER")
            assert f"node {leader} leads" in refused.json()["detail"]
            assert 'role="follower"' in (await client.get("/v1/metrics")).text
    await nodes.kill(leader)
    heir = await nodes.leader(other_than=leader)
    async with asking(nodes, heir) as client:

        async def ready() -> bool:
            return (await client.get("/v1/readiness")).status_code == 200

        await until(ready)
        assert (await client.get("/v1/kinds/transfer")).json()["paused"] is True
        again = (await client.get(f"/v1/sessions/{number}")).json()
        assert again["history"] == session["history"]
        assert [record["shown"] for record in again["record_list"]] == texts
        (follower,) = [name for name in others if name != heir]
        await told(nodes, follower, lambda status: status.leader == heir)
        for verb, paused in (("continue", False), ("pause", True)):
            done = await run_truba(verb, "transfer", "--url", f"truba://{nodes.clients[follower]}")
            assert done == (0, f"{verb}d: 1\n", "")
            assert (await client.get("/v1/kinds/transfer")).json()["paused"] is paused
    nodes.launch(leader)
    await nodes.agree()  # in pauses and histories too
