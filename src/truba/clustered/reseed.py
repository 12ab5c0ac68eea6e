"""`truba cluster reseed` and `truba cluster import`: a new stream from what a node has on its own disk.

Both work beside the nodes, not in one: the data directory must not be in use.
"""

from __future__ import annotations

import os
import shutil
import struct
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from truba.cluster.peers import statuses
from truba.cluster.seed import Progress, salvage, seed
from truba.clustered.storage import has_log, peers_tls
from truba.clustered.stream import jetstream_settings
from truba.codec.chain import Chain
from truba.config import Config
from truba.errors import ConfigError, DataForeign, TrubaError
from truba.install import settle
from truba.log.file import FileLog
from truba.node.recovery import recover
from truba.ports.stream import Message
from truba.store.mark import sync_directory
from truba.store.rocks import RocksStore
from truba.streams.jetstream import JetStream
from truba.streams.requirements import check, refuse
from truba.types import Position

Asked = Callable[[Position], object]
"""Told the end of the own log before anything is changed; raises to leave it at that."""

_KEPT = struct.Struct("<QI")
"""Number and length, before each kept message."""


class NodesRunning(TrubaError):
    """What is asked for needs a cluster at rest."""


@dataclass(frozen=True, slots=True)
class Reseeded:
    tail: Position  # of the own log, and of the stream now
    salvaged: int  # batches that only the stream had
    messages: int  # in the new stream
    kept: Path | None  # where the old stream's messages are


@asynccontextmanager
async def _stream(config: Config) -> AsyncIterator[JetStream]:
    stream = await JetStream.connect(jetstream_settings(config))
    try:
        yield stream
    finally:
        await stream.close()


async def reseed(config: Config, asked: Asked, progress: Progress) -> Reseeded:
    """Put the stream together anew from this node's log, and what the stream itself still has beyond it.

    Nothing is lost but what neither has. The old stream's messages are kept in a file first. Run again if it is
    interrupted. NodesRunning; StreamDown: NATS is not. DataError: the node's own log cannot be used.
    """
    cluster = config.cluster
    assert cluster is not None  # whoever calls has looked
    doors = {name: node.peers for name, node in cluster.nodes.items()}
    if running := await statuses(doors, cluster.peers_secret.read(), tls=peers_tls(config)):
        raise NodesRunning(
            f"stop the nodes that run first ({', '.join(sorted(running))}): their stream is to be replaced; nothing was"
            " changed"
        )
    if not has_log(config.node.data):
        raise ConfigError(f"{config.node.data} holds no log that a stream could be made from")
    async with _stream(config) as stream:
        there = await stream.cluster_id()
        own = FileLog.open(config.node.data / "log", segment_bytes=config.node.segment, log_id=there)
        try:
            asked(own.tail)
            links = Chain(own.log_id)
            kept, salvaged = None, 0
            if there is not None:
                kept = _free(config.node.data)
                with kept.open("xb") as file:

                    def keep(message: Message) -> None:
                        file.write(_KEPT.pack(message.seq, len(message.data)) + message.data)

                    salvaged = await salvage(stream, links, own, keep)
                    file.flush()
                    os.fsync(file.fileno())
                await stream.remove()
            await stream.create(own.log_id)
            refuse(await check(stream))
            messages = await seed(stream, links, own, own.begin, config.node.name, progress)
            return Reseeded(own.tail, salvaged, messages, kept)
        finally:
            own.close()


async def import_directory(config: Config, source: Path) -> Position:
    """Make a cluster of a pipe that was alone, ids unchanged; where its log ends.

    The directory is copied to this node's `data`, unless that is the directory itself; the other nodes take a
    checkpoint from this one when they start. The source is not changed. ConfigError, DataError, StreamDown.
    """
    data = config.node.data
    if not has_log(source):
        raise ConfigError(f"{source} holds no log: name the data directory of a pipe")
    _copy(source, data)
    own = FileLog.open(data / "log", segment_bytes=config.node.segment)
    try:
        store = RocksStore.open(data / "store")
        try:
            recover(own, store, {kind.number: kind for kind in config.kinds})
        finally:
            store.close()
        async with _stream(config) as stream:
            there = await stream.cluster_id()
            if there is not None and there != own.log_id:
                raise DataForeign(
                    f"stream {stream.settings.stream} belongs to another cluster, {there.hex()}: name another one, or"
                    " remove it"
                )
            if there is not None and (await stream.bounds()).last:
                raise DataForeign(
                    f"stream {stream.settings.stream} is in use by this cluster already: start the node, it will follow"
                )
            await stream.create(own.log_id)
            refuse(await check(stream))
            await seed(stream, Chain(own.log_id), own, own.tail, config.node.name, lambda event: None)
            return own.tail
    finally:
        own.close()


def _copy(source: Path, data: Path) -> None:
    """Whole or not at all, unless both are one directory."""
    if source.resolve() == data.resolve():
        return
    if data.exists() and any(data.iterdir()):
        raise ConfigError(f"{data} is not empty: give this node a data directory of its own, or import {data} itself")
    settle(source)
    FileLog.open(source / "log").close()  # nobody has it open, and its tail is mended
    part = data.with_name(f"{data.name}.part")
    if part.exists():
        shutil.rmtree(part)
    part.mkdir(mode=0o700, parents=True)
    for name in ("log", "store"):
        shutil.copytree(source / name, part / name)
    for path in [*part.rglob("*"), part]:
        handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
    if data.exists():
        data.rmdir()
    part.rename(data)
    sync_directory(data.parent)


def _free(data: Path) -> Path:
    return next(path for n in range(1, 1_000_000) if not (path := data / f"stream-{n}.kept").exists())
