"""Who comes in by a listening socket: not too many, in TLS if need be, strangers for a short time only.

    loop.create_server(entrance.take, ...)        over the network
    loop.create_unix_server(entrance.take_local)  over a Unix socket: no TLS there

Knows nothing of what is said once somebody is in.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, Generic, Protocol, TypeVar, cast

from truba.strangers import Strangers
from truba.tls import Contexts, HandshakeFailed, Secured


class Guest(Protocol):
    """A connection as an entrance sees it: an asyncio.Protocol. It calls `left` when it has ended, if it was `made`."""

    @property
    def transport(self) -> asyncio.Transport | None: ...


G = TypeVar("G", bound=Guest)


class Entrance(Generic[G]):
    """Closed until `opened`; who comes meanwhile is hung up before anything is read.

    `make`: the protocol of one who is let in. `full`: what answers one too many, in plain text. `guarded`: who is in is
    a stranger (`truba.strangers`) until `known`; who has not shaken hands is one anyhow. `tell(what, **why)`: of
    whoever is turned away (`truba.rejections`). `plain_answer`: said to who does not speak TLS where it must be spoken.
    """

    def __init__(
        self,
        make: Callable[[], G],
        full: Callable[[], asyncio.Protocol],
        tell: Callable[..., object],
        *,
        connections_max: int,
        tls: Contexts | None = None,
        guarded: bool = False,
        plain_answer: bytes = b"",
        strangers_max: int | None = None,
        known_within_s: float | None = None,
    ) -> None:
        self.opened = False
        self.guests: set[G] = set()
        self._make = make
        self._full = full
        self._tell = tell
        self._connections_max = connections_max
        self._tls = tls
        self._guarded = guarded
        self._plain_answer = plain_answer
        self._shaking: set[Secured] = set()
        self._strangers: Strangers[G | Secured] = Strangers(
            self._dismiss, strangers_max=strangers_max, within_s=known_within_s
        )

    @property
    def _crowded(self) -> bool:
        return len(self.guests) + len(self._shaking) >= self._connections_max

    def take_local(self) -> asyncio.Protocol:
        if not self.opened:
            return HungUp()
        if self._crowded:
            self._tell("connection refused", reason="connections_max", limit=self._connections_max)
            return self._full()
        return self._let_in()

    def take(self) -> asyncio.Protocol:
        if self._tls is None:
            return self.take_local()
        if not self.opened:
            return HungUp()
        if self._crowded:
            self._tell("connection refused", reason="connections_max", limit=self._connections_max)
            return HungUp()  # to say so would take a handshake
        layer = Secured(
            lambda: self._shaken(layer),
            self._tls.current(),
            server_side=True,
            failed=lambda error: self._failed(layer, error),
            plain_answer=self._plain_answer,
        )
        self._shaking.add(layer)
        self._strangers.add(layer)
        return layer

    def known(self, guest: G) -> None:
        """It has said who it is."""
        self._strangers.known(guest)

    def left(self, guest: G) -> None:
        self._strangers.known(guest)
        self.guests.discard(guest)

    def close(self) -> None:
        """Take no more. Those who are in stay; those who still shake hands are hung up."""
        self.opened = False
        for layer in self._shaking:
            if layer.plain is not None:
                layer.plain.abort()

    def _let_in(self) -> asyncio.Protocol:
        guest = self._make()
        self.guests.add(guest)
        if self._guarded:
            self._strangers.add(guest)
        return cast(asyncio.Protocol, guest)

    def _shaken(self, layer: Secured) -> asyncio.Protocol:
        self._shaking.discard(layer)
        self._strangers.known(layer)
        return self._let_in() if self.opened else HungUp()

    def _failed(self, layer: Secured, error: HandshakeFailed) -> None:
        self._shaking.discard(layer)
        self._strangers.known(layer)
        if self.opened:
            self._tell("no TLS connection", peer=peer_of(layer.plain), error=str(error))

    def _dismiss(self, one: G | Secured, why: str) -> None:
        if one not in self.guests and one not in self._shaking:
            return
        transport = one.plain if isinstance(one, Secured) else one.transport
        if transport is None:  # taken from the kernel in this turn of the loop: it is made in the next
            asyncio.get_running_loop().call_soon(self._dismiss, one, why)
            return
        if isinstance(one, Secured):
            self._shaking.discard(one)
        self._tell("connection cut", peer=peer_of(transport), reason=why)
        transport.abort()


class HungUp(asyncio.Protocol):
    """Hung up before anything was read."""

    transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        cast(asyncio.Transport, transport).abort()


def peer_of(transport: asyncio.BaseTransport | None) -> str:
    """The other end's address, for logs."""
    peer: Any = transport.get_extra_info("peername") if transport is not None else None
    return f"{peer[0]}:{peer[1]}" if isinstance(peer, tuple) else "unix"
