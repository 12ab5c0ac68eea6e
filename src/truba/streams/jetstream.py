"""The stream on NATS JetStream: `truba.ports.stream.Stream`, and what it takes to make and to remove one.

Of JetStream one stream with one subject is used, read and written through its leader, and nothing else: no key-value
bucket, no object store, no direct get (any replica answers those, however far behind).
"""

from __future__ import annotations

import base64
from collections.abc import Callable
from typing import Any, Self

from truba.errors import ConfigError
from truba.ports.stream import Bounds, Message, Outcome, StreamDown, StreamGone
from truba.streams.link import ApiError, Link
from truba.streams.publisher import HEADER_BYTES, Publisher
from truba.streams.settings import JetStreamSettings
from truba.streams.tail import JetStreamTail

CLUSTER_ID = "truba-cluster"
NAME_IN_USE = 10058
NO_MESSAGE = 10037
NOT_NOW = frozenset((10005, 10008, 10009, 10023, 10049, 10118))
"""Refusals that pass: too few servers up, no leader, not ready, the one of that name not cleared away yet."""


def stream_config(settings: JetStreamSettings, cluster_id: bytes) -> dict[str, Any]:
    """The stream as it must be. `truba.streams.requirements` checks an existing one against this."""
    return {
        "name": settings.stream,
        "subjects": [settings.subject],
        "num_replicas": settings.replicas,
        "storage": "file",
        "retention": "limits",
        "discard": "new",  # with no limit nothing is discarded; if somebody sets one, publishing fails, loudly
        "max_msgs": -1,
        "max_bytes": -1,
        "max_age": 0,
        "max_msgs_per_subject": -1,
        "max_msg_size": -1,
        "max_consumers": -1,
        "allow_direct": False,
        "deny_delete": True,
        "deny_purge": False,  # or it could not be trimmed
        "metadata": {CLUSTER_ID: cluster_id.hex()},
    }


class JetStream:
    """A connected stream, which need not exist yet. See `ports.stream.Stream`."""

    def __init__(self, link: Link) -> None:
        """Use `connect`."""
        self.settings = link.settings
        self.link = link
        self._publisher = Publisher(link)
        self._tails: set[JetStreamTail] = set()
        link.on_client = self._publisher.listen
        link.on_down = self._publisher.give_up
        link.on_up = self._nudge

    @classmethod
    async def connect(cls, settings: JetStreamSettings) -> Self:
        """StreamDown: no server answers within `connect_timeout_s`. ConfigError: they do not let us in."""
        link = Link(settings)
        stream = cls(link)
        try:
            await link.open()
        except BaseException:
            await stream.close()
            raise
        return stream

    @property
    def message_bytes_max(self) -> int:
        """The largest message that the server at hand takes; `publish` of a larger one is a ValueError. StreamDown."""
        return self.link.client.max_payload - HEADER_BYTES

    @property
    def servers(self) -> tuple[str, ...]:
        """The server that it is connected to now, if any."""
        return self.link.server

    async def create(self, cluster_id: bytes) -> bytes:
        """Make the stream, for the cluster with that id (16 bytes); the id of the stream that is there now.

        It is another one when another node was quicker. And it need not be empty: a single server that still clears
        away a large stream of this name begins the new one with messages of a removed one, or cannot store it yet
        (seen on 2.15.1; StreamDown). ConfigError: JetStream will not have it. StreamDown.
        """
        try:
            await self.link.ask(f"STREAM.CREATE.{self.settings.stream}", stream_config(self.settings, cluster_id))
        except ApiError as error:
            if error.number in NOT_NOW:
                raise StreamDown(f"create: {error}") from error
            if error.number != NAME_IN_USE:
                raise ConfigError(f"JetStream does not make stream {self.settings.stream}: {error}") from error
        there = await self.cluster_id()
        if there is None:
            raise StreamDown(f"stream {self.settings.stream} was removed as it was made")
        return there

    async def cluster_id(self) -> bytes | None:
        """Which cluster the stream belongs to; None: there is no such stream. StreamDown; ConfigError: not ours."""
        try:
            info = await self.info()
        except StreamGone:
            return None
        written = info["config"].get("metadata", {}).get(CLUSTER_ID, "")
        try:
            cluster_id = bytes.fromhex(written)
        except ValueError:
            cluster_id = b""
        if len(cluster_id) != 16:
            raise ConfigError(
                f"stream {self.settings.stream} was not made by truba: it has no {CLUSTER_ID} in its metadata; "
                "name another stream, or remove this one"
            )
        return cluster_id

    async def remove(self) -> None:
        """Delete the stream and all its messages; fine when there is none. StreamDown."""
        try:
            await self._ask("STREAM.DELETE")
        except StreamGone:
            return

    async def info(self) -> dict[str, Any]:
        """What the stream's leader says of it: `config`, `state`, `cluster`. StreamDown, StreamGone."""
        return await self._ask("STREAM.INFO")

    def publish(self, data: bytes, expected: int | None, done: Callable[[Outcome], None]) -> None:
        self._publisher.publish(data, expected, done)

    async def get(self, seq: int) -> Message | None:
        if seq < 1:
            return None
        try:
            answer = await self.link.ask(f"STREAM.MSG.GET.{self.settings.stream}", {"seq": seq})
        except ApiError as error:
            if error.number == NO_MESSAGE:
                return None
            raise StreamDown(f"get {seq}: {error}") from error
        message = answer["message"]
        return Message(message["seq"], base64.b64decode(message.get("data", "")))

    async def bounds(self) -> Bounds:
        state = (await self.info())["state"]
        last = state["last_seq"]
        return Bounds(state["first_seq"] if state["messages"] else last + 1, last, state["bytes"])

    def tail(self, after_seq: int) -> JetStreamTail:
        tail = JetStreamTail(self.link, after_seq, self._tails.discard)
        self._tails.add(tail)
        return tail

    async def trim(self, before_seq: int) -> None:
        bounds = await self.bounds()
        before_seq = min(before_seq, bounds.last)
        # JetStream takes a purge with 0 for a purge of all, and one beyond the end too.
        if before_seq > max(bounds.first, 1):
            await self._ask("STREAM.PURGE", {"seq": before_seq})

    async def close(self) -> None:
        for tail in list(self._tails):
            await tail.close()
        await self._publisher.close()
        await self.link.close()

    async def _ask(self, what: str, content: dict[str, Any] | None = None) -> dict[str, Any]:
        try:
            return await self.link.ask(f"{what}.{self.settings.stream}", content)
        except ApiError as error:
            raise StreamDown(f"{what}: {error}") from error

    def _nudge(self) -> None:
        for tail in self._tails:
            tail.nudge()
