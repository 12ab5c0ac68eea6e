"""What servers and stream must be for the guarantees to hold, asked of them at each start. Changes nothing.

Every problem says what is wrong, where, and what to write instead. What cannot be seen counts as a problem too, unless
the configuration says `trust_servers`.
"""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import nats
from nats.aio.client import Client
from nats.errors import Error as NatsError

from truba.errors import ConfigError
from truba.ports.stream import StreamDown
from truba.streams.jetstream import CLUSTER_ID, JetStream, stream_config
from truba.streams.login import login
from truba.streams.settings import JetStreamSettings

OLDEST = (2, 14, 4)
NEWEST_MAJOR = 2
FORBIDDEN = {
    "no_ack": "nothing would be acknowledged",
    "allow_rollup_hdrs": "a message could drop those before it",
    "allow_msg_ttl": "a message could say when it is dropped",
}
"""Flags of a stream that truba leaves out when it makes one."""
ANSWERS_S = 0.5
"""How long further servers may take to answer after the first one."""


@dataclass(frozen=True, slots=True)
class Problem:
    where: str
    what: str
    instead: str

    def __str__(self) -> str:
        return f"{self.where}: {self.what}; {self.instead}"


class StreamUnfit(ConfigError):
    """Servers or stream are weaker than the guarantees need."""


def refuse(problems: Iterable[Problem]) -> None:
    """StreamUnfit with all of them, if there are any."""
    if told := [str(problem) for problem in problems]:
        raise StreamUnfit("the stream cannot be trusted with this log:\n  " + "\n  ".join(told))


async def check(stream: JetStream, *, message_bytes_min: int = 1 << 20) -> list[Problem]:
    """All problems. `message_bytes_min`: the largest entry that must fit. StreamDown when nobody answers.

    The stream must exist. What servers do with their disks only their system account tells.
    """
    settings = stream.settings
    info = await stream.info()
    found = [
        *_of_server(stream, message_bytes_min),
        *_of_stream(info, settings),
        *await _of_user(stream),
        *await _of_servers(settings, _working(info)),
    ]
    return list(dict.fromkeys(found))


def _of_server(stream: JetStream, message_bytes_min: int) -> Iterator[Problem]:
    client = stream.link.client
    if stream.message_bytes_max < message_bytes_min:
        yield Problem(
            "the servers",
            f"max_payload lets {stream.message_bytes_max} bytes through, an entry may have {message_bytes_min}",
            'write "max_payload: 64MB" in nats-server.conf',
        )
    if not client._server_info.get("auth_required") and not stream.settings.trust_servers:  # noqa: SLF001 - told nowhere else
        yield Problem(
            "the servers",
            "they let anybody in, and who can publish can stop this cluster",
            "give them accounts and users, or write trust_servers = true if nobody else can reach them",
        )


def _of_stream(info: Mapping[str, Any], settings: JetStreamSettings) -> Iterator[Problem]:
    config = info["config"]
    where = f"stream {settings.stream}"
    wanted = stream_config(settings, b"")
    hints: dict[str, Callable[[Any], str]] = {
        "max_age": lambda _: "nothing may be dropped for its age",
        "discard": lambda _: 'discard "old" drops what was acknowledged',
    }
    for key, value in wanted.items():
        if key in ("metadata", "name"):
            continue
        given = config.get(key, False if isinstance(value, bool) else None)
        if key == "num_replicas":
            if given < value:
                yield Problem(where, f"it has {given} replicas", f"set its replicas to {value}, or replicas here")
        elif given != value:
            hint = hints.get(key, lambda _: "truba needs it so")(value)
            yield Problem(where, f"{key} is {given!r}", f"set it to {value!r}: {hint}")
    for key, harm in FORBIDDEN.items():
        if config.get(key):
            yield Problem(where, f"{key} is {config[key]!r}", f"set it to false: {harm}")
    if config.get("persist_mode", "default") not in ("", "default"):
        yield Problem(where, f"persist_mode is {config['persist_mode']!r}", "it acknowledges before it has synced")
    for key in ("mirror", "sources", "republish", "subject_transform"):
        if config.get(key):
            yield Problem(where, f"it has {key}", "remove that: every message must come from a node")
    if config.get("sealed"):
        yield Problem(where, "it is sealed", "nothing can be written to it any more: truba cluster reseed")
    if CLUSTER_ID not in config.get("metadata", {}):
        yield Problem(where, f"its metadata has no {CLUSTER_ID}", "it was not made by truba: name another stream")


async def _of_user(stream: JetStream) -> list[Problem]:
    try:
        answer = await stream.link.request("$SYS.REQ.USER.INFO")
    except StreamDown:
        return []  # a server without accounts, told of already; or a user that may not even ask
    data = answer.get("data", {})
    problems = []
    if data.get("account") == "$G" and not stream.settings.trust_servers:
        problems.append(
            Problem(
                "the account",
                "truba's user is in the global account, with whoever else has no account of its own",
                "give truba an account of its own in nats-server.conf",
            )
        )
    return problems


def _working(info: Mapping[str, Any]) -> set[str]:
    """The servers that keep the stream just now, by what its leader says. Empty: one server, on its own."""
    cluster = info.get("cluster") or {}
    replicas = [
        peer["name"] for peer in cluster.get("replicas") or () if peer.get("current") and not peer.get("offline")
    ]
    return {name for name in (cluster.get("leader"), *replicas) if name}


async def _of_servers(settings: JetStreamSettings, working: set[str]) -> list[Problem]:
    """Of all servers, by their system account. StreamDown: one of those that work has not answered yet.

    A server that is down is no reason to refuse: a node that starts while a host is lost is needed most.
    """
    if settings.system is None:
        if settings.trust_servers:
            return []
        return [
            Problem(
                "the servers",
                "whether they sync what they store cannot be seen",
                "give system_user and system_password_file, or system_credentials_file; "
                "or write trust_servers = true if you have looked yourself",
            )
        ]
    servers = await _ask_servers(settings)
    silent = working - {str(answer.get("server", {}).get("name")) for answer in servers}
    if not servers:
        return [
            Problem(
                "the servers",
                f"none of them tells {settings.system} how it stores",
                "name a user of their system account",
            )
        ]
    if silent:
        raise StreamDown(f"no answer yet from {', '.join(sorted(silent))} to whether it syncs what it stores")
    problems: list[Problem] = []
    for answer in servers:
        server = answer.get("server", {})
        where = f"server {server.get('name', '?')}"
        problems += _of_version(where, str(server.get("ver", "")))
        config = answer.get("data", {}).get("config") or {}
        if answer.get("data", {}).get("disabled") or not config:
            continue  # it routes, and stores nothing
        if not config.get("sync_always"):
            interval_s = config.get("sync_interval", 0) / 1e9
            problems.append(
                Problem(
                    where,
                    f"it acknowledges before it has synced (sync_interval is {interval_s:g} s)",
                    'write "sync_interval: always" into its jetstream block',
                )
            )
    return problems


def _of_version(where: str, version: str) -> Iterator[Problem]:
    numbers = tuple(int(part) for part in re.findall(r"\d+", version)[:3])
    oldest = ".".join(map(str, OLDEST))
    if numbers < OLDEST or numbers[0] > NEWEST_MAJOR:
        yield Problem(where, f"it is of version {version}", f"use nats-server {oldest} or a later {NEWEST_MAJOR}.x")


async def _ask_servers(settings: JetStreamSettings) -> list[dict[str, Any]]:
    """Each server's JSZ. ConfigError: the system user is not let in. StreamDown."""
    errors: list[Exception] = []

    async def remember(error: Exception) -> None:
        errors.append(error)

    client = Client()
    who = login(client, settings, settings.system_user, settings.system_password, settings.system_credentials_file)
    try:
        async with asyncio.timeout(settings.connect_timeout_s):
            await client.connect(list(settings.servers), allow_reconnect=False, error_cb=remember, **who)
        answers = await _gather(client)
        if answers is None and not any("permissions" in str(each).lower() for each in errors):
            raise StreamDown("no answer yet from any server to whether it syncs what it stores")
        return answers or []
    except (NatsError, OSError) as error:
        told = next((str(each) for each in [*errors, error] if "authorization" in str(each).lower()), "")
        if told:
            raise StreamUnfit(f"NATS does not let {settings.system} in: {told}") from error
        raise StreamDown(f"the servers' own account: {error or type(error).__name__}") from error
    finally:
        await client.close()


async def _gather(client: Client) -> list[dict[str, Any]] | None:
    """None: nothing came at all, not even that there is nobody who tells this user."""
    inbox = client.new_inbox()
    subscription = await client.subscribe(inbox)
    await client.publish("$SYS.REQ.SERVER.PING.JSZ", b'{"config": true}', reply=inbox)
    answers: list[dict[str, Any]] = []
    heard = False
    with suppress(nats.errors.TimeoutError):
        while True:
            message = await subscription.next_msg(timeout=ANSWERS_S if answers else 2.0)
            heard = True
            if message.data:
                answers.append(json.loads(message.data))
    return answers if heard else None
