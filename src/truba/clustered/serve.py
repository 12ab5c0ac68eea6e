"""`truba serve` with a [cluster]: a member with its doors, from start to clean stop."""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import replace
from typing import Any, TypeVar

import structlog

from truba import __version__
from truba.address import Address
from truba.clock import SystemClock
from truba.closing import given_back
from truba.cluster.door import Door
from truba.cluster.log import BATCH_BYTES_MAX
from truba.cluster.member import Member
from truba.cluster.peers import statuses
from truba.clustered.doors import ClusterDoors
from truba.clustered.host import MemberHost
from truba.clustered.storage import NodeStorage, has_log, peers_tls
from truba.clustered.stream import jetstream_settings
from truba.codec.chain import Chain
from truba.compose import check_kinds, make_hooks, make_routes
from truba.config import Config
from truba.config.cluster import REQUEST_BYTES_MAX
from truba.configured import hook_makers_of, kinds_of, transports_of
from truba.errors import LogRegression
from truba.frontends.listening import Listen, bind
from truba.machine.machine import Machine
from truba.node.checkpoint import Checkpointer
from truba.node.node import Limits, Node
from truba.notify import notify
from truba.ports.audit import AuditLog
from truba.ports.frontend import Frontend
from truba.ports.log import Log
from truba.ports.parked import HookMaker
from truba.ports.store import Store
from truba.ports.stream import StreamDown
from truba.ports.transport import Transport
from truba.reload import Reloader, reloading
from truba.remedy import remedy
from truba.signals import ReloadSignals
from truba.streams.jetstream import JetStream
from truba.streams.requirements import check, refuse
from truba.tls import Contexts
from truba.wire.connection import WireSettings

T = TypeVar("T")

log = structlog.get_logger("truba.cluster")

EXIT_OK = 0
EXIT_FAILED = 70

MESSAGE_BYTES_MIN = BATCH_BYTES_MAX + REQUEST_BYTES_MAX + (1 << 20)
"""A batch that one request has filled beyond its limit, and room for what stands around it."""

AGAIN_S = 2.0
"""Between two tries to reach the stream at the start."""

LATE_S = 1.0
"""A node that has not reached NATS by then says that it waits; why, it says when the first try has ended."""


async def serve_member(
    config: Config,
    read: Callable[[], Config] | None,
    listen: Listen,
    settings: WireSettings,
    transports: Mapping[str, Transport],
    hook_makers: Mapping[str, HookMaker],
    own: Sequence[Frontend],
    audit: AuditLog,
    stop: asyncio.Event,
    reloads: ReloadSignals | None,
    started_s: float,
) -> int:
    """Until `stop`; the process's exit code. ConfigError, DataError, OSError when it cannot start."""
    cluster = config.cluster
    assert cluster is not None  # or there would be nothing to be a member of
    first_kinds = kinds_of(config)
    check_kinds(first_kinds)
    make_routes(first_kinds, transports)  # refused before anything starts
    make_hooks(first_kinds, hook_makers)
    name, clock = config.node.name, SystemClock()
    request_bytes_max = min(settings.parser.request_bytes_max, REQUEST_BYTES_MAX)
    settings = replace(settings, parser=replace(settings.parser, request_bytes_max=request_bytes_max))
    secret = cluster.peers_secret.read()
    dialled = peers_tls(config)
    limits = Limits(
        grace_max_s=config.node.grace_max,
        checkpoint_bytes=config.node.checkpoint,
        write_bytes_max=REQUEST_BYTES_MAX,  # else a handler in this process could end each leader with one append
    )
    others = {other: node for other, node in cluster.nodes.items() if other != name}
    peers = {other: node.peers for other, node in others.items()}
    reloader: Reloader | None = None

    def make_node(node_log: Log, store: Store, machine: Machine, checkpointer: Checkpointer) -> Node:
        now = reloader.config if reloader else config
        kinds = kinds_of(now)
        return Node(
            node_log,
            store,
            kinds,
            make_routes(kinds, transports_of(now, settings)),
            name=name,
            limits=limits,
            tell=log.warning,
            machine=machine,
            checkpointer=checkpointer,
            hooks=make_hooks(kinds, hook_makers_of(now)),
        )

    async def tails() -> dict[str, int]:
        said = await statuses(peers, secret, tls=dialled)
        return {other: said[other].seq if other in said else 0 for other in peers} | {name: storage.log.tail.seq}

    released = True
    async with AsyncExitStack() as open_:
        stream = await _unless(stop, _connect(config))
        if stream is None:
            return _stopped()
        open_.push_async_callback(stream.close)
        cluster_id = await _unless(stop, _cluster_id(stream, config))
        if cluster_id is None:
            return _stopped()
        storage = NodeStorage(
            config.node.data,
            cluster_id,
            peers,
            secret,
            tls=dialled,
            segment_bytes=config.node.segment,
            reserve_bytes=config.node.reserve,
        )

        def release() -> None:
            nonlocal released
            released = given_back(storage.close)

        open_.callback(release)
        listening = await bind(listen)
        open_.callback(listening.close)
        clients = {other: node.clients for other, node in others.items()}
        doors = ClusterDoors(listening, settings, own, clients, dialled if config.node.tls is not None else None)
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
        if read is not None:
            reloader = Reloader(
                config,
                read,
                settings,
                lambda: member.node.machine if member.node else member.machine,
                lambda: member.node,
                lambda taken: member.take_kinds(taken.kinds),
            )
        host = MemberHost(member, storage, cluster_id, clock, lambda: stream.servers)
        door_tls = None if cluster.tls is None else Contexts(cluster.tls.files, server_side=True)
        door = Door(host, secret, config.node.data / "outgoing", audit, door_tls)
        await door.start(cluster.door(name))
        open_.push_async_callback(door.close)
        admin = None
        if config.admin is not None:
            # Imported when a configuration asks for it: HTTP is an extra.
            from truba.administered import admin_server
            from truba.clustered.subject import member_subject

            subject = member_subject(member, storage, listening, door, clock)
            admin = admin_server(config, config.admin, subject, audit, reloader)
            open_.push_async_callback(admin.stop)
            await admin.start()
        await doors.open()
        open_.push_async_callback(doors.close)
        bound = listening.bound
        with reloading(reloader, reloads):  # before anybody knows that there is somebody to signal
            log.info(
                "ready",
                version=__version__,
                node=name,
                listen=None if bound is None else str(Address(*bound)),
                peers=str(door.bound),
                admin=None if admin is None else str(admin.bound),
                data=str(config.node.data),
                term=storage.log.tail.term,
                seq=storage.log.tail.seq,
                cluster=cluster_id.hex(),
                kinds=[kind.name for kind in config.kinds],
                ready_ms=round((time.monotonic() - started_s) * 1000),
            )
            notify(READY="1", STATUS=f"node {name}; its role: truba cluster status")
            code = await _run(member, stop, storage)
    return code if released else EXIT_FAILED


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
    except Exception as error:
        log.error(
            "the node has stopped",
            error=str(error) or repr(error),
            outcome="unknown for what was not acknowledged; everything acknowledged is stored",
            next=f"{remedy(error)}, then start again: the log is recovered at the start",
            exc_info=not isinstance(error, OSError),
        )
        return EXIT_FAILED
    finally:
        asked.cancel()
    tail = storage.log.tail
    log.info("stopped", term=tail.term, seq=tail.seq)
    return EXIT_OK


async def _unless(stop: asyncio.Event, work: Coroutine[Any, Any, T]) -> T | None:
    """What the work comes to; None: it was told to stop before that."""
    task, stopping = asyncio.ensure_future(work), asyncio.ensure_future(stop.wait())
    try:
        await asyncio.wait([task, stopping], return_when=asyncio.FIRST_COMPLETED)
        if task.done():
            return task.result()
        task.cancel()
        await asyncio.wait([task])
        return None
    finally:
        stopping.cancel()


def _stopped() -> int:
    log.info("stopped", reason="told to, before it was ready")
    return EXIT_OK


async def _connect(config: Config) -> JetStream:
    """The stream's servers, however long it takes for them to be there. ConfigError: they do not let us in."""
    settings, what = jetstream_settings(config), "waiting for NATS"
    late = asyncio.get_running_loop().call_later(
        LATE_S, _tell, what, f"no answer yet from {', '.join(settings.servers)}"
    )
    try:
        return await _however_long(what, lambda: JetStream.connect(settings))
    finally:
        late.cancel()


async def _cluster_id(stream: JetStream, config: Config) -> bytes:
    """Whose stream it is, made if this is a new cluster. ConfigError: it is unfit; LogRegression: it is gone."""

    async def ask() -> bytes:
        cluster_id = await stream.cluster_id()
        if cluster_id is None:
            if has_log(config.node.data):
                raise LogRegression(
                    f"there is no stream {stream.settings.stream}, but {config.node.data} holds a log. If the stream"
                    " was lost: truba cluster reseed. If this directory is to begin a cluster: truba cluster import"
                )
            cluster_id = await stream.create(secrets.token_bytes(16))
        refuse(await check(stream, message_bytes_min=MESSAGE_BYTES_MIN))
        return cluster_id

    return await _however_long("waiting for JetStream", ask)


async def _however_long(what: str, ask: Callable[[], Awaitable[T]]) -> T:
    """Ask until the stream is up; why it is not is told once."""
    told = False
    while True:
        try:
            return await ask()
        except StreamDown as error:
            if not told:
                _tell(what, str(error))
                told = True
        await asyncio.sleep(AGAIN_S)


def _tell(what: str, why: str) -> None:
    log.warning(what, error=why)
    notify(STATUS=f"{what}: {why}")
