"""Frontends: how clients reach the pipe. Shipped: `truba.frontends.resp`; yours is named in the configuration.

A frontend turns requests into calls on `Node` (see `truba.node.node`): `presence.attach` an owner for each connection,
call the operations, and let no answer go before `node.sequencer.latest`, as it was after the call, is durable.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from truba.node.node import Node


class Frontend(Protocol):
    """Started and stopped in turn, as often as this node begins and ceases to lead: each time with another node."""

    async def start(self, node: Node) -> None:
        """Begin to take clients for this node. OSError when the address cannot be had."""

    async def stop(self) -> None:
        """Take no new work, let the answers of what is under way go, close; forget the node.

        After it returned `start` may be called again. What it raises is told in the log; the node stops all the same.
        """
