"""What a connection is spared: peers that vanished without a word, and peers that do not read what they asked for."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable

FAREWELL_S = 5.0
"""How long a peer may take to read its last answers."""

STALL_S = 30.0
"""A peer that has not read a byte of its answers for so long, while no more fit, is cut."""


class Stall:
    """Begun when no more fits for a peer: one that reads nothing from then on is cut. `over` ends it."""

    def __init__(self, transport: asyncio.Transport, peer: str, reject: Callable[..., object]) -> None:
        self._transport = transport
        self._peer = peer
        self._reject = reject
        self._alarm = asyncio.get_running_loop().call_later(STALL_S, self._look, None)

    def over(self) -> None:
        """There is room again, or nobody any more."""
        self._alarm.cancel()

    def _look(self, before_bytes: int | None) -> None:
        """`before_bytes`: unsent the last time; None: nobody has looked yet, and more may have come since the pause."""
        unsent_bytes = self._transport.get_write_buffer_size()
        if before_bytes is not None and unsent_bytes >= before_bytes:
            self._reject("connection cut: it does not read its answers", peer=self._peer, unsent_bytes=unsent_bytes)
            self._transport.abort()
            return
        self._alarm = asyncio.get_running_loop().call_later(STALL_S, self._look, unsent_bytes)


def keep_alive(sock: socket.socket | None) -> None:
    """A peer that vanished without a word is noticed within half a minute. Nothing to do for a Unix socket."""
    if sock is None or sock.family not in (socket.AF_INET, socket.AF_INET6):
        return
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, 10)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, 5)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT, 3)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, 25_000)
