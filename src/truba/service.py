"""`truba serve`: a node with its frontends, from start to clean stop."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

import structlog

from truba import __version__
from truba.address import Address, without_user
from truba.audit import AuditFile
from truba.backup.running import Maker, RunningBackups
from truba.clock import SystemClock
from truba.closing import given_back, stopped
from truba.compose import Parts, build
from truba.config import Config, plain_places
from truba.configured import hook_makers_of, kinds_of, listen_of, settings_of, transports_of
from truba.errors import UnknownOutcome
from truba.frontends.listening import Listening, bind
from truba.frontends.resp import RespFrontend
from truba.garbage import collected_rarely
from truba.node.node import Limits
from truba.notify import notify
from truba.ports.frontend import Frontend
from truba.reload import Reloader, reloading
from truba.remedy import remedy
from truba.signals import ReloadSignals, StopSignals
from truba.transports.local import load_object
from truba.wire.connection import WireSettings

if TYPE_CHECKING:
    from truba.admin.server import AdminServer
    from truba.admin.subject import Subject

log = structlog.get_logger("truba.service")

EXIT_OK = 0
EXIT_LOG_FAILED = 70
"""The log or a checkpoint failed: what was under way is unknown, everything acknowledged is there at the next start."""


async def serve(
    config: Config,
    read: Callable[[], Config] | None = None,
    signals: StopSignals | None = None,
    reloads: ReloadSignals | None = None,
) -> int:
    """Serve until SIGTERM or SIGINT; the process's exit code. ConfigError, DataError, OSError when it cannot start.

    `read`: the configuration anew, asked on SIGHUP and by operators; None: it is for good. `signals`, `reloads`: of a
    process that listened for them before it came here.
    """
    stop = asyncio.Event()

    def asked() -> None:
        notify(STOPPING="1")
        stop.set()

    with collected_rarely(), (signals or StopSignals()).calling(asked):
        if stop.is_set():
            log.info("stopped", reason="told to, before it had begun")
            return EXIT_OK
        return await _serve(config, read, stop, reloads)


async def _serve(
    config: Config, read: Callable[[], Config] | None, stop: asyncio.Event, reloads: ReloadSignals | None
) -> int:
    started = time.monotonic()
    audit = AuditFile(config.audit_path, SystemClock())
    try:
        for place, where in plain_places(config):
            log.warning("plain text beyond this machine", key=".".join(map(str, place)), where=without_user(where))
        settings = settings_of(config, audit)
        own: list[Frontend] = [load_object(table.factory)(table.options) for table in config.node.frontends]
        if config.cluster is not None:
            # Imported when a configuration asks for it: NATS is an extra.
            from truba.clustered.serve import serve_member

            transports = transports_of(config, settings)
            hooks = hook_makers_of(config)
            return await serve_member(
                config, read, listen_of(config), settings, transports, hooks, own, audit, stop, reloads, started
            )
        parts = build(
            config.node.data,
            kinds_of(config),
            name=config.node.name,
            tell=log.warning,
            limits=Limits(grace_max_s=config.node.grace_max, checkpoint_bytes=config.node.checkpoint),
            transports=transports_of(config, settings),
            hook_makers=hook_makers_of(config),
            segment_bytes=config.node.segment,
            reserve_bytes=config.node.reserve,
        )
        if parts.log.cut is not None:
            log.warning(
                "the last write before the stop was torn; it was never acknowledged",
                cut=str(parts.log.cut),
                kept=str(parts.log.cut_kept),
            )
        released = True
        try:
            code = await _run(parts, own, settings, audit, stop, config, read, reloads, started)
        finally:
            released = given_back(parts.release)
        return code if released else EXIT_LOG_FAILED
    finally:
        await audit.close()


async def _run(
    parts: Parts,
    own: list[Frontend],
    settings: WireSettings,
    audit: AuditFile,
    stop: asyncio.Event,
    config: Config,
    read: Callable[[], Config] | None,
    reloads: ReloadSignals | None,
    started: float,
) -> int:
    node = parts.node
    reloader = None if read is None else Reloader(config, read, settings, lambda: node.machine, lambda: node)
    listening: Listening | None = None
    under_way: list[Frontend] = []
    maker = Maker(config.node.data, parts.log, parts.store, node.checkpointer, config.node.reserve)
    backups = RunningBackups(config.node.backups, maker)
    backups.look_back(parts.log.log_id)
    admin: AdminServer | None = None
    try:
        if config.admin is not None:
            # Imported when a configuration asks for it: HTTP is an extra.
            from truba.administered import admin_server

            subject = _subject(parts, config, lambda: listening, backups)
            admin = admin_server(config, config.admin, subject, audit, reloader)
            await admin.start()
        await node.start()
        node.operators.backups = backups
        if config.node.listen is not None or config.node.unix is not None:
            # Not before the node is ready: until then clients are refused and know it, they do not hang.
            listening = await bind(listen_of(config))
            own = [RespFrontend(listening, settings), *own]
        for frontend in own:
            under_way.append(frontend)
            await frontend.start(node)
        bound = None if listening is None else listening.bound
        with reloading(reloader, reloads):  # before anybody knows that there is somebody to signal
            log.info(
                "ready",
                version=__version__,
                listen=None if bound is None else str(Address(*bound)),
                unix=str(config.node.unix) if config.node.unix else None,
                admin=None if admin is None else str(admin.bound),
                data=str(config.node.data),
                term=node.machine.term,
                seq=node.machine.seq,
                kinds=[kind.name for kind in config.kinds],
                paused=node.operators.paused,
                ready_ms=round((time.monotonic() - started) * 1000),
            )
            node.failed.add_done_callback(lambda _: stop.set())
            notify(READY="1", STATUS=f"serving, term {node.machine.term}")
            await stop.wait()
        if not node.failed.done():
            log.info("stopping", sessions_out=node.dispatcher.out)
            node.drain()
            await node.dispatcher.finish(config.node.stop_timeout)
    except UnknownOutcome:
        if not node.failed.done():  # which tells more: the log failed while the node started
            raise
    finally:
        if listening is not None:
            listening.close()  # first, so that whoever comes now is refused and does not wait
        for frontend in under_way:
            await stopped(frontend)
        await backups.close()
        try:
            await node.stop()
        finally:
            if admin is not None:
                await admin.stop()
    if node.failed.done():
        error = node.failed.result()
        log.error(
            "the pipe has stopped",
            error=str(error) or repr(error),
            outcome="unknown for what was not acknowledged; everything acknowledged is stored",
            next=f"{remedy(error)}, then start again: the log is recovered at the start",
        )
        return EXIT_LOG_FAILED
    log.info("stopped", term=node.machine.term, seq=node.machine.seq)
    return EXIT_OK


def _subject(
    parts: Parts, config: Config, listening: Callable[[], Listening | None], backups: RunningBackups
) -> Subject:
    from truba.admin.subject import Doors, Subject

    def doors() -> Doors:
        found = listening()
        return Doors(0) if found is None else Doors(found.connections, {"clients": found.rejections.counts})

    return Subject(
        name=config.node.name,
        version=__version__,
        clock=parts.node.clock,
        current=lambda: parts.node,
        role=lambda: "single",
        doors=doors,
        sync_us=lambda: parts.log.sync_us,
        log_bytes=lambda: parts.log.size_bytes,
        store_bytes=lambda: parts.store.size_bytes,
        last_backup_ms=lambda: backups.newest_ms,
    )
