"""The default frontend: RESP, on the sockets it is given."""

from __future__ import annotations

from truba.frontends.listening import Listening, Reception
from truba.node.node import Node
from truba.wire.connection import Connection, WireSettings
from truba.wire.verbs import VERBS


class RespFrontend:
    """See `truba.ports.frontend`. The sockets stay bound when it stops: they are whoever's who bound them."""

    def __init__(self, listening: Listening, settings: WireSettings) -> None:
        self._settings = settings
        self._reception = Reception(listening, self._connection, guarded=settings.authenticator is not None)
        self._node: Node | None = None

    @property
    def connections(self) -> list[Connection]:
        """Those that are open now."""
        return [guest for guest in self._reception.guests if isinstance(guest, Connection)]

    async def start(self, node: Node) -> None:
        self._node = node
        await self._reception.open()

    def _connection(self) -> Connection:
        assert self._node is not None  # connections come between start and stop
        reception = self._reception
        return Connection(
            self._node,
            VERBS,
            self._settings,
            reception.left,
            known=reception.known,
            reject=reception.rejections.add,
        )

    async def stop(self) -> None:
        await self._reception.close()
        self._node = None
