"""Connections of the admin address that have no request under way: few of them, and none for long.

uvicorn waits for ever for the rest of a request, and answers 503 to everybody while too many wait: without this, who
reaches the port could have the pipe's readiness fail with a hundred connections that say nothing.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Any

from uvicorn.protocols.http.h11_impl import H11Protocol

from truba.entrance import peer_of
from truba.strangers import Strangers
from truba.tls import Contexts
from truba.tls.layer import HandshakeFailed, Secured

IDLE_MAX = 64
"""Half of what the server takes: the other half is left for requests under way."""

REQUEST_WITHIN_S = 10.0
"""From the connection, or the end of the last answer, until the next request's headers are there."""

UNREAD_S = 60.0
"""That long may a client not read its answer."""


class Patience:
    """One for each server; `protocol` is what its connections are made with."""

    def __init__(
        self,
        reject: Callable[..., object],
        tls: Contexts | None = None,
        *,
        idle_max: int = IDLE_MAX,
        within_s: float = REQUEST_WITHIN_S,
    ) -> None:
        """`reject(cause, **why)`: told of who is turned away, but for those who only were slow. With `tls` who has not
        shaken hands is one of them: asyncio's own TLS takes any number, for a minute each."""
        warnings = _Warnings(reject)
        idle: Strangers[_Connection] = Strangers(_Connection.give_up, strangers_max=idle_max, within_s=within_s)

        class Connection(_Connection):
            _idle = idle
            _secured = tls is not None
            _warnings = warnings

        self._connection = Connection
        self._tls = tls
        self._reject = reject
        self._shaking: Strangers[Secured] = Strangers(_hang_up, strangers_max=idle_max, within_s=within_s)

    def protocol(self, **of_uvicorn: Any) -> asyncio.Protocol:
        """One connection's."""
        if self._tls is None:
            return self._connection(**of_uvicorn)

        def shaken() -> asyncio.Protocol:
            self._shaking.known(layer)
            return self._connection(**of_uvicorn)

        def failed(error: HandshakeFailed) -> None:
            self._shaking.known(layer)
            self._reject("no TLS connection", peer=peer_of(layer.plain), error=str(error))

        layer = Secured(shaken, self._tls.current(), server_side=True, failed=failed)
        self._shaking.add(layer)
        return layer


def _hang_up(layer: Secured, why: str) -> None:
    if layer.plain is None:  # taken from the kernel in this turn of the loop: it is made in the next
        asyncio.get_running_loop().call_soon(_hang_up, layer, why)
    else:
        layer.plain.abort()


class _Warnings(logging.Logger):
    """What uvicorn warns of, connection by connection, is what strangers do: requests that are none, and too many."""

    def __init__(self, reject: Callable[..., object]) -> None:
        super().__init__("uvicorn.error")
        self.parent = logging.getLogger(self.name)
        self._reject = reject

    def handle(self, record: logging.LogRecord) -> None:
        if record.levelno == logging.WARNING:
            self._reject(record.getMessage())
        else:
            super().handle(record)


class _Connection(H11Protocol):
    _idle: Strangers[_Connection]
    _secured: bool
    _warnings: _Warnings
    _unread: asyncio.TimerHandle | None = None

    def __init__(self, **of_uvicorn: Any) -> None:
        super().__init__(**of_uvicorn)
        self.logger = self._warnings

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        if self._secured:
            self.scheme = "https"
        self._idle.add(self)

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        self._look()

    def on_response_complete(self) -> None:
        super().on_response_complete()  # takes up the next request, if it is there already
        if not self.transport.is_closing():
            self._idle.known(self)
            self._idle.add(self)
            self._look()

    def connection_lost(self, exc: Exception | None) -> None:
        self._idle.known(self)
        self.resume_writing()
        super().connection_lost(exc)

    def pause_writing(self) -> None:
        super().pause_writing()
        if self._unread is None:
            self._unread = self.loop.call_later(UNREAD_S, self.transport.abort)

    def resume_writing(self) -> None:
        if self._unread is not None:
            self._unread.cancel()
            self._unread = None
        super().resume_writing()

    def give_up(self, _why: str) -> None:
        if self.transport.get_write_buffer_size():  # the end of an answer, on a slow way
            self.transport.close()
            self.loop.call_later(UNREAD_S, self.transport.abort)
        else:
            self.transport.abort()

    def _look(self) -> None:
        if self.cycle is not None and not self.cycle.response_complete:
            self._idle.known(self)
