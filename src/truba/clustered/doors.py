"""How clients come in, whatever this node's role is: on one address, always."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from truba.address import Address
from truba.closing import stopped
from truba.frontends.listening import Listening
from truba.frontends.relay import RelayFrontend
from truba.frontends.resp import RespFrontend
from truba.node.node import Node
from truba.ports.frontend import Frontend
from truba.tls import Contexts
from truba.wire.connection import WireSettings


class ClusterDoors:
    """A relay while another node leads; RESP, and frontends of the user's own, while this one does."""

    def __init__(
        self,
        listening: Listening,
        settings: WireSettings,
        own: Sequence[Frontend],
        others: Mapping[str, Address],
        tls: Contexts | None = None,
    ) -> None:
        """`others`: the client addresses of the other nodes, by name; `tls`: how they are dialled, if they speak it."""
        self._relay = RelayFrontend(listening, guarded=settings.authenticator is not None, tls=tls)
        self._resp = RespFrontend(listening, settings)
        self._own = own
        self._others = others
        self._serving: list[Frontend] = []

    async def open(self) -> None:
        await self._relay.start(None)

    async def close(self) -> None:
        await self._relay.stop()

    def follow(self, leader: str) -> None:
        self._relay.follow(self._others.get(leader))

    async def lead(self, node: Node) -> None:
        await self._relay.stop()
        for frontend in (self._resp, *self._own):
            self._serving.append(frontend)
            await frontend.start(node)

    async def leave(self) -> None:
        serving, self._serving = self._serving, []
        for frontend in serving:
            await stopped(frontend)
        if serving:
            await self._relay.start(None)
