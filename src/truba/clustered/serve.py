"""`truba serve` with a [cluster]: a member with its doors, from start to clean stop."""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace

import structlog

from truba import __version__
from truba.clock import SystemClock
from truba.cluster.door import Door
from truba.cluster.log import BATCH_BYTES_MAX
from truba.cluster.member import Member
from truba.clustered.doors import ClusterDoors
from truba.clustered.host import MemberHost
from truba.clustered.storage import NodeStorage, ask_all, has_log
from truba.clustered.stream import jetstream_settings
from truba.codec.chain import Chain
from truba.compose import check_kinds, make_routes
from truba.config import Config, read_secret
from truba.config.cluster import REQUEST_BYTES_MAX
from truba.errors import Deposed, LogRegression
from truba.frontends.listening import Listen, bind
from truba.machine.machine import Machine
from truba.node.checkpoint import Checkpointer
from truba.node.node import Limits, Node
from truba.ports.frontend import Frontend
from truba.ports.log import Log
from truba.ports.store import Store
from truba.ports.stream import StreamDown
from truba.ports.transport import Transport
from truba.streams.jetstream import JetStream
from truba.streams.requirements import check, refuse
from truba.wire.connection import WireSettings

log = structlog.get_logger("truba.cluster")

EXIT_OK = 0
EXIT_FAILED = 70

MESSAGE_BYTES_MIN = BATCH_BYTES_MAX + REQUEST_BYTES_MAX + (1 << 20)
"""A batch that one request has filled beyond its limit, and room for what stands around it."""

AGAIN_S = 2.0
"""Between two tries to reach the stream at the start."""


async def serve_member(
    config: Config,
    listen: Listen,
    settings: WireSettings,
    transports: Mapping[str, Transport],
    own: Sequence[Frontend],
    stop: asyncio.Event,
    started_s: float,
) -> int:
    """Until `stop`; the process's exit code. ConfigError, DataError, OSError when it cannot start."""
    cluster = config.cluster
    assert cluster is not None  # or there would be nothing to be a member of
    check_kinds(config.kinds)
    make_routes(config.kinds, transports)  # refused before anything starts
    name, clock = config.node.name, SystemClock()
    request_bytes_max = min(settings.parser.request_bytes_max, REQUEST_BYTES_MAX)
    settings = replace(settings, parser=replace(settings.parser, request_bytes_max=request_bytes_max))
    secret = read_secret(cluster.secret_file)
    stream = await _connect(config, stop)
    if stream is None:
        return EXIT_OK
    try:
        cluster_id = await _cluster_id(stream, config, stop)
        if cluster_id is None:
            return EXIT_OK
        others = {other: node.peers for other, node in cluster.nodes.items() if other != name}
        storage = NodeStorage(
            config.node.data,
            cluster_id,
            others,
            secret,
            segment_bytes=config.node.segment,
            reserve_bytes=config.node.reserve,
        )
        try:
            limits = Limits(grace_max_s=config.node.grace_max, checkpoint_bytes=config.node.checkpoint)

            def make_node(node_log: Log, store: Store, machine: Machine, checkpointer: Checkpointer) -> Node:
                return Node(
                    node_log,
                    store,
                    config.kinds,
                    make_routes(config.kinds, transports),
                    name=name,
                    limits=limits,
                    tell=log.warning,
                    machine=machine,
                    checkpointer=checkpointer,
                )

            async def tails() -> dict[str, int]:
                said = await ask_all(others, secret)
                return {other: said[other].seq if other in said else 0 for other in others} | {
                    name: storage.log.tail.seq
                }

            listening = await bind(listen)
            try:
                clients = {other: node.clients for other, node in cluster.nodes.items() if other != name}
                doors = ClusterDoors(listening, settings, own, clients)
                member = Member(
                    name,
                    stream,
                    Chain(cluster_id),
                    storage,
                    config.kinds,
                    make_node,
                    doors,
                    clock=clock,
                    tell=log.warning,
                    checkpoint_bytes=config.node.checkpoint,
                    stop_timeout_s=config.node.stop_timeout,
                    tails=tails,
                    keep_bytes=cluster.keep,
                )
                host = MemberHost(member, storage, cluster_id, clock, lambda: stream.servers)
                door = Door(host, secret, config.node.data / "outgoing")
                await door.start(cluster.door(name))
                await doors.open()
                bound = listening.bound
                log.info(
                    "ready",
                    version=__version__,
                    node=name,
                    listen=None if bound is None else f"{bound[0]}:{bound[1]}",
                    peers=str(door.bound),
                    data=str(config.node.data),
                    term=storage.log.tail.term,
                    seq=storage.log.tail.seq,
                    cluster=cluster_id.hex(),
                    kinds=[kind.name for kind in config.kinds],
                    ready_ms=round((time.monotonic() - started_s) * 1000),
                )
                try:
                    return await _run(member, stop, storage)
                finally:
                    await doors.close()
                    await door.close()
            finally:
                listening.close()
        finally:
            storage.close()
    finally:
        await stream.close()


async def _run(member: Member, stop: asyncio.Event, storage: NodeStorage) -> int:
    asked = asyncio.ensure_future(stop.wait())
    asked.add_done_callback(lambda _: member.stop())
    try:
        await member.run()
    except LogRegression as error:
        log.error(
            "the stream does not hold what this node has; it stops",
            error=str(error),
            outcome="nothing was changed; everything acknowledged is in the nodes' own logs",
            next="compare the nodes (truba cluster status), then truba cluster reseed on the one with the longest log",
        )
        return EXIT_FAILED
    except Deposed as error:  # not out of `run`; a defect would be hidden otherwise
        raise AssertionError("a deposed member ended") from error
    except Exception as error:
        log.error(
            "the node has stopped",
            error=str(error) or repr(error),
            outcome="unknown for what was not acknowledged; everything acknowledged is stored",
            next="mend the disk, then start again: the log is recovered at the start",
            exc_info=not isinstance(error, OSError),
        )
        return EXIT_FAILED
    finally:
        asked.cancel()
    tail = storage.log.tail
    log.info("stopped", term=tail.term, seq=tail.seq)
    return EXIT_OK


async def _connect(config: Config, stop: asyncio.Event) -> JetStream | None:
    """The stream's servers, however long it takes for them to be there; None: `stop`. ConfigError: they are unfit."""
    settings = jetstream_settings(config)
    told = False
    while not stop.is_set():
        try:
            return await JetStream.connect(settings)
        except StreamDown as error:
            if not told:
                log.warning("waiting for NATS", servers=settings.servers, error=str(error))
                told = True
            await _pause(stop)
    return None


async def _cluster_id(stream: JetStream, config: Config, stop: asyncio.Event) -> bytes | None:
    """Whose stream it is, made if this is a new cluster; None: `stop`. ConfigError, LogRegression."""
    told = False
    while not stop.is_set():
        try:
            cluster_id = await stream.cluster_id()
            if cluster_id is None:
                if has_log(config.node.data):
                    raise LogRegression(
                        f"there is no stream {stream.settings.stream}, but {config.node.data} holds a"
                        " log. If the stream was lost: truba cluster reseed. If this directory is to begin a cluster:"
                        " truba cluster import"
                    )
                cluster_id = await stream.create(secrets.token_bytes(16))
            refuse(await check(stream, message_bytes_min=MESSAGE_BYTES_MIN))
        except StreamDown as error:
            if not told:
                log.warning("waiting for JetStream", error=str(error))
                told = True
            await _pause(stop)
        else:
            return cluster_id
    return None


async def _pause(stop: asyncio.Event) -> None:
    try:
        async with asyncio.timeout(AGAIN_S):
            await stop.wait()
    except TimeoutError:
        return
