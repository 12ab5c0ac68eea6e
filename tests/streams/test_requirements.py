"""Servers and streams that are weaker than the guarantees need, each refused with what to write instead."""

from __future__ import annotations

import asyncio
import re
from pathlib import Path
from typing import Any

import pytest
from nats.aio.client import Client

from truba.errors import ConfigError
from truba.ports.stream import StreamDown
from truba.streams import requirements
from truba.streams.jetstream import JetStream, stream_config
from truba.streams.requirements import StreamUnfit, check, refuse
from truba.streams.settings import JetStreamSettings
from truba.testing.nats import PASSWORDS, NatsConfig, NatsServers

CLUSTER = bytes(range(16))


async def problems(settings: JetStreamSettings, **needs: Any) -> str:
    stream = await JetStream.connect(settings)
    try:
        if await stream.cluster_id() is None:
            await stream.create(CLUSTER)
        return "\n".join(map(str, await check(stream, **needs)))
    finally:
        await stream.close()


def only_the_stream(servers: NatsServers) -> JetStreamSettings:
    """Settings with which the servers themselves are not asked."""
    return servers.settings(system_user=None, system_password=None, trust_servers=True)


@pytest.fixture
async def emptied(server: NatsServers) -> NatsServers:
    await server.ask("STREAM.DELETE.truba")
    return server


async def test_what_truba_makes_is_what_truba_needs(emptied: NatsServers) -> None:
    assert await problems(emptied.settings()) == ""
    assert await problems(emptied.settings(), message_bytes_min=64 << 20) != ""


@pytest.mark.parametrize(
    ("config", "changes", "said"),
    [
        (NatsConfig(sync="2m"), {}, r"server n1: .* before it has synced \(sync_interval is 120 s\).*always"),
        (NatsConfig(max_payload="512KB"), {}, r"max_payload lets \d+ bytes through, an entry may have 1048576.*64MB"),
        (NatsConfig(access="anybody"), {}, r"they let anybody in.*trust_servers"),
        (NatsConfig(access="none"), {}, r"they let anybody in"),
        (NatsConfig(access="none"), {}, r"in the global account"),
        (NatsConfig(), {"system_user": None, "system_password": None}, r"cannot be seen.*system_user"),
    ],
)  # fmt: skip
async def test_weaker_servers(tmp_path: Path, config: NatsConfig, changes: dict[str, Any], said: str) -> None:
    async with await NatsServers.start(tmp_path, 1, config) as servers:
        assert re.search(said, await problems(servers.settings(**changes)))


async def test_an_operator_may_vouch_for_what_cannot_be_seen(tmp_path: Path) -> None:
    async with await NatsServers.start(tmp_path, 1, NatsConfig(access="none")) as servers:
        assert await problems(servers.settings(trust_servers=True)) == ""


async def test_a_system_user_that_is_not_let_in(emptied: NatsServers) -> None:
    with pytest.raises(StreamUnfit, match="does not let system_user 'sys' in"):
        await problems(emptied.settings(system_password="wrong"))


async def test_a_user_who_is_told_nothing_of_the_servers(emptied: NatsServers) -> None:
    asked = emptied.settings(system_user="admin", system_password=PASSWORDS["admin"])
    assert "none of them tells system_user 'admin' how it stores" in await problems(asked)


async def test_a_user_who_may_not_ask_is_told_nothing_of_the_servers(tmp_path: Path) -> None:
    async with await NatsServers.start(tmp_path, 1) as servers:
        asked = servers.settings(system_user="truba", system_password=PASSWORDS["truba"])
        assert "none of them tells system_user 'truba' how it stores" in await problems(asked)


async def test_servers_that_say_nothing_yet_are_asked_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """They may be busy, and it is no mistake in the configuration."""
    gather = requirements._gather  # noqa: SLF001 - they fall silent between the greeting and the answer

    async def silent(client: Client) -> list[dict[str, Any]] | None:
        servers.pause(servers.names[0])
        return await gather(client)

    async with await NatsServers.start(tmp_path, 1) as servers:
        monkeypatch.setattr(requirements, "_gather", silent)
        with pytest.raises(StreamDown, match="no answer yet"):
            await problems(servers.settings())
        servers.resume(servers.names[0])
        monkeypatch.undo()
        assert await problems(servers.settings()) == ""


async def test_a_server_that_is_down_is_no_problem_and_one_that_is_silent_not_known_yet(tmp_path: Path) -> None:
    async with await NatsServers.start(tmp_path, 3) as servers:
        assert await problems(servers.settings()) == ""
        leader = await servers.leader("truba")
        one, other = (name for name in servers.names if name != leader)
        settings = servers.settings(servers=(servers.url(leader),))
        servers.pause(one)
        with pytest.raises(StreamDown, match=f"no answer yet from {one} to whether it syncs"):
            await problems(settings)
        servers.resume(one)
        await servers.kill(other)
        stream = await JetStream.connect(settings)

        async def current() -> list[str]:
            return [peer["name"] for peer in (await stream.info())["cluster"]["replicas"] if peer["current"]]

        async with asyncio.timeout(60):
            while other in await current():  # noqa: ASYNC110 what it waits for is another process's
                await asyncio.sleep(0.1)
        await stream.close()
        assert await problems(settings) == ""


async def test_too_few_replicas(emptied: NatsServers) -> None:
    await problems(emptied.settings())
    assert "it has 1 replicas; set its replicas to 3" in await problems(emptied.settings(replicas=3))


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("storage", "memory"),
        ("retention", "workqueue"),
        ("discard", "old"),
        ("max_msgs", 1000),
        ("max_bytes", 1 << 20),
        ("max_age", 3_600_000_000_000),
        ("max_msgs_per_subject", 10),
        ("max_msg_size", 1000),
        ("max_consumers", 3),
        ("subjects", ["truba.log", "truba.more"]),
        ("allow_direct", True),
        ("deny_delete", False),
        ("deny_purge", True),
        ("no_ack", True),
        ("allow_rollup_hdrs", True),
        ("allow_msg_ttl", True),
        ("persist_mode", "async"),
    ],
)
async def test_a_stream_with_other_settings(emptied: NatsServers, key: str, value: Any) -> None:
    settings = only_the_stream(emptied)
    config = stream_config(settings, CLUSTER) | {key: value}
    made = await emptied.ask("STREAM.CREATE.truba", config)
    assert "error" not in made, made
    assert f"stream truba: {key} is" in await problems(settings)


async def test_a_stream_that_takes_messages_from_elsewhere(emptied: NatsServers) -> None:
    settings = only_the_stream(emptied)
    config = stream_config(settings, CLUSTER) | {"sources": [{"name": "other"}]}
    assert "error" not in await emptied.ask("STREAM.CREATE.truba", config)
    assert "it has sources" in await problems(settings)


async def test_all_problems_are_told_at_once(emptied: NatsServers) -> None:
    settings = only_the_stream(emptied)
    await emptied.ask("STREAM.CREATE.truba", stream_config(settings, CLUSTER) | {"max_msgs": 9, "discard": "old"})
    stream = await JetStream.connect(settings)
    with pytest.raises(ConfigError) as refused:
        refuse(await check(stream))
    assert "max_msgs" in str(refused.value)
    assert "discard" in str(refused.value)
    await stream.close()
    refuse([])
