"""Connections between simulated processes: bytes in order and late, cut in the middle, noticed by each end in its time.

A `Link` has two `End`s, each the asyncio transport of one protocol. What one end writes travels as pieces, each with
a time of arrival that is never before that of the piece ahead. A process that dies takes its ends with it: they call
back nobody any more.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from random import Random
from typing import Any

CONNECT_S = 0.002

SLOWEST = 30.0
"""Times the usual latency: the longest that a piece is on its way."""


class End(asyncio.Transport):
    """One end of a link, as the transport of the protocol that sits there."""

    def __init__(self, link: Link, protocol: asyncio.Protocol, extra: dict[str, Any]) -> None:
        super().__init__(extra)
        self.link = link
        self.protocol = protocol
        self.peer: End
        self.gone = False  # calls nobody back: told of its end, or its process has died
        self.loop = link.network.loop
        self._closing = False
        self._finished = False  # has said all that it will say
        self.travelling: deque[tuple[float, bytes | None]] = deque()  # to the peer; None: the end of the stream
        self._travelling_bytes = 0
        self._timer: asyncio.TimerHandle | None = None
        self.last_s = 0.0
        self._reading = True
        self.unread: deque[bytes | None] = deque()
        self._high = 1 << 16
        self._writing_paused = False

    # -- as a transport -----------------------------------------------------------------------------------------

    def write(self, data: Any) -> None:
        if self._closing or self._finished or self.gone or not data:
            return
        self._send(bytes(data))

    def write_eof(self) -> None:
        if not (self._closing or self._finished or self.gone):
            self._finished = True
            self._send(None)

    def close(self) -> None:
        if not self._closing:
            self.write_eof()
            self._closing = True
            self.loop.call_soon(self.lose, None)

    def abort(self) -> None:
        if self.gone:
            return
        self._closing = True
        self.loop.call_soon(self.lose, None)
        self.link.break_off(self)

    def is_closing(self) -> bool:
        return self._closing or self.gone

    def pause_reading(self) -> None:
        self._reading = False

    def resume_reading(self) -> None:
        if not self._reading:
            self._reading = True
            if self.unread:
                self.loop.call_soon(self.read)

    def is_reading(self) -> bool:
        return self._reading

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        self._high = 1 << 16 if high is None else high

    def get_write_buffer_size(self) -> int:
        return self._travelling_bytes

    # -- as part of the network -------------------------------------------------------------------------------

    def lose(self, error: Exception | None) -> None:
        """The protocol at this end hears that the connection is over, once."""
        if not self.gone:
            self.gone = self._closing = True
            self.unread.clear()
            self.protocol.connection_lost(error)

    def vanish(self) -> None:
        """The process at this end has died."""
        self.gone = self._closing = True
        self.unread.clear()

    def forget(self, dice: Random) -> None:
        """Of what travels from here only the first part arrives, perhaps half of a message."""
        keep = int(dice.random() * (self._travelling_bytes + 1)) if dice.random() < 0.7 else 0
        kept: deque[tuple[float, bytes | None]] = deque()
        for at_s, piece in self.travelling:
            if piece is None or not keep:
                break
            kept.append((at_s, piece[:keep]))
            keep -= len(kept[-1][1] or b"")
        self.travelling = kept
        self._travelling_bytes = sum(len(piece or b"") for _, piece in kept)

    def _send(self, piece: bytes | None) -> None:
        if self.link.broken:
            return  # into nothing; nobody has told this end yet
        at_s = self.last_s = max(self.last_s, self.loop.time() + self.link.network.delay_s())
        self.travelling.append((at_s, piece))
        self._travelling_bytes += len(piece or b"")
        if self._timer is None:
            self._timer = self.loop.call_at(at_s, self._arrive)
        if self._travelling_bytes > self._high and not self._writing_paused:
            self._writing_paused = True
            self.protocol.pause_writing()

    def _arrive(self) -> None:
        self._timer = None
        now_s = self.loop.time() + 1e-9
        travelling, peer = self.travelling, self.peer
        while travelling and travelling[0][0] <= now_s:
            piece = travelling.popleft()[1]
            if peer.gone and piece is not None:
                self.link.refuse(self)
                return
            peer.unread.append(piece)
            if piece is None:
                break
        if travelling:
            self._timer = self.loop.call_at(travelling[0][0], self._arrive)
        peer.read()

    def read(self) -> None:
        unread = self.unread
        while unread and self._reading and not self._closing:
            if unread[0] is None:
                unread.popleft()
                if not self.protocol.eof_received():
                    self.close()
                continue
            data = unread.popleft() or b""
            while unread and unread[0] is not None:
                data += unread.popleft() or b""
            self.peer.was_read(len(data))
            self.protocol.data_received(data)
        if self._closing:
            unread.clear()

    def was_read(self, count: int) -> None:
        self._travelling_bytes = max(0, self._travelling_bytes - count)
        if self._writing_paused and self._travelling_bytes * 4 <= self._high:
            self._writing_paused = False
            if not self.gone:
                self.protocol.resume_writing()


class Link:
    """A connection. `near` has dialled, `far` was called."""

    def __init__(self, network: Network, name: str, near: asyncio.Protocol, far: asyncio.Protocol) -> None:
        self.network = network
        self.name = name
        self.broken = False
        self.near = End(self, near, {"peername": (name, 1), "sockname": (name, 2)})
        self.far = End(self, far, {"peername": (name, 2), "sockname": (name, 1)})
        self.near.peer, self.far.peer = self.far, self.near

    def cut(self) -> None:
        """The wire is cut: part of what travels still arrives, and each end notices in its own time."""
        if self.broken:
            return
        self.broken = True
        dice = self.network.dice
        for end in (self.near, self.far):
            end.forget(dice)
            late_s = 20.0 * dice.random() if dice.random() < 0.15 else 0.01 * dice.random()
            after_s = max(late_s, end.peer.last_s - self.network.loop.time())
            self.network.loop.call_later(after_s, end.lose, ConnectionResetError("cut"))

    def break_off(self, by: End) -> None:
        """`by` is gone without a farewell: what it sent last may be lost, and the other end hears of it."""
        if not self.broken:
            self.broken = True
            by.forget(self.network.dice)
            by.peer.travelling.clear()
            after_s = max(by.last_s - by.loop.time(), 0.0) + self.network.delay_s()
            by.loop.call_later(after_s, by.peer.lose, ConnectionResetError("reset"))

    def refuse(self, end: End) -> None:
        """What `end` said has reached nobody: the other end has closed. It is told so."""
        if not self.broken:
            self.broken = True
            end.travelling.clear()
            end.loop.call_later(self.network.delay_s(), end.lose, ConnectionResetError("reset"))

    def died(self, end: End) -> None:
        """The process at that end has died."""
        if not end.gone:
            end.vanish()
            self.break_off(end)


class Network:
    """Who listens where, and how fast bytes travel."""

    def __init__(self, loop: asyncio.AbstractEventLoop, dice: Random, latency_s: float) -> None:
        self.loop = loop
        self.dice = dice
        self.latency_s = latency_s
        self.links: list[Link] = []  # those that may still carry something
        self._listening: dict[tuple[str, int], Callable[[], asyncio.Protocol]] = {}

    def delay_s(self) -> float:
        chance = self.dice.random()
        return self.latency_s * (chance if chance < 0.97 else SLOWEST * chance)

    @property
    def delay_max_s(self) -> float:
        return self.latency_s * SLOWEST

    def listen(self, host: str, port: int, accept: Callable[[], asyncio.Protocol]) -> None:
        self._listening[host, port] = accept

    def close(self, host: str, port: int) -> None:
        self._listening.pop((host, port), None)

    async def dial(self, make: Callable[[], asyncio.Protocol], host: str, port: int, name: str = "") -> Link:
        """OSError when nobody listens there."""
        await asyncio.sleep(CONNECT_S + self.delay_s())
        accept = self._listening.get((host, port))
        if accept is None:
            raise ConnectionRefusedError(111, "Connection refused")
        link = Link(self, name or f"{host}:{port}", make(), accept())
        self.links = [each for each in self.links if not (each.near.gone and each.far.gone)]
        self.links.append(link)
        link.far.protocol.connection_made(link.far)
        link.near.protocol.connection_made(link.near)
        return link
