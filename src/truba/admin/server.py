"""The HTTP server of the admin address: uvicorn, on the loop that is there."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, cast

import structlog
import uvicorn

from truba.address import Address
from truba.admin.app import make_app
from truba.admin.jobs import Jobs
from truba.admin.patience import Patience
from truba.admin.pulse import Pulse
from truba.admin.subject import Settings, Subject
from truba.ports.audit import AuditLog
from truba.rejections import Rejections

log = structlog.get_logger("truba.admin")

CONNECTIONS_MAX = 128
"""Operators and their monitoring: beyond it requests are answered 503, and clients of the pipe notice nothing."""

HEADERS_BYTES_MAX = 16 << 10
IDLE_S = 10
FAREWELL_S = 3


class AdminServer:
    """`start` it once there is something to look at, `stop` it before that goes."""

    def __init__(self, subject: Subject, settings: Settings, audit: AuditLog) -> None:
        self._settings = settings
        self._jobs = Jobs(subject, audit)
        self._pulse = Pulse(subject)
        self._rejections = Rejections(_warn)
        self._app = make_app(subject, settings, self._pulse, audit, self._jobs, self._rejections)
        self._server: _Server | None = None
        self._task: asyncio.Task[None] | None = None
        self.bound: Address | None = None

    async def start(self) -> None:
        """OSError when the address cannot be had; its text says which."""
        sockets = await _bind(self._settings.listen)
        self.bound = Address(*sockets[0].getsockname()[:2])
        config = uvicorn.Config(
            self._app,
            http=cast(Any, Patience(self._rejections.add, self._settings.tls).protocol),
            ws="none",
            lifespan="off",
            loop="none",
            log_config=None,
            log_level="warning",
            access_log=False,
            server_header=False,
            proxy_headers=False,
            limit_concurrency=CONNECTIONS_MAX,
            timeout_keep_alive=IDLE_S,
            timeout_graceful_shutdown=FAREWELL_S,
            h11_max_incomplete_event_size=HEADERS_BYTES_MAX,
        )
        config.load()
        self._server = _Server(config)
        self._pulse.start()
        self._task = asyncio.get_running_loop().create_task(self._server.serve(sockets), name="admin")
        self._task.add_done_callback(_tell)

    async def stop(self) -> None:
        await self._jobs.stop()
        await self._pulse.stop()
        if self._server is not None and self._task is not None:
            self._server.should_exit = True
            await asyncio.wait([self._task])
        self._rejections.close()


class _Server(uvicorn.Server):
    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """They are the pipe's, which stops this server itself."""
        yield


def _warn(cause: str, **fields: object) -> None:
    log.warning(cause, **fields)


def _tell(task: asyncio.Task[None]) -> None:
    """A defect of the admin address never ends the pipe."""
    if not task.cancelled() and (error := task.exception()) is not None:
        log.error("the admin address has failed", error=repr(error), next="restart the pipe to have it again")


async def _bind(listen: Address) -> list[socket.socket]:
    made: list[socket.socket] = []
    try:
        found = await asyncio.get_running_loop().getaddrinfo(
            listen.host, listen.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )
        for family, _, _, _, where in dict.fromkeys(found):
            sock = socket.socket(family, socket.SOCK_STREAM)
            made.append(sock)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if family == socket.AF_INET6:
                sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            sock.bind(where)
            sock.setblocking(False)
    except OSError as error:
        for sock in made:
            sock.close()
        why = error.strerror if isinstance(error, socket.gaierror) or not error.errno else os.strerror(error.errno)
        raise OSError(error.errno, f"cannot listen on {listen} for operators: {why}") from error
    return made
