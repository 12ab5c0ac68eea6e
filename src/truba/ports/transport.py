"""Routes: how unfinished sessions reach the handlers.

Shipped: `truba.transports.local` (coroutines in this process) and `truba.transports.dial` (`truba://`, `trubas://`,
`unix:`). A scheme of your own is a factory named in the configuration's `[transports]` table.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from truba.kinds import Kind
    from truba.node.node import Node
    from truba.node.owners import Owner


class Route(Protocol):
    """One configured handler address, which may serve several kinds.

    All calls come on the loop's thread and must not block.
    """

    def start(self, node: Node, wake: Callable[[], None]) -> None:
        """Begin to look for the handler. Call `wake` whenever `seat` may have begun to answer otherwise."""

    def seat(self, kind: int) -> Owner | None:
        """An owner (got from `node.presence.attach`) that would take one more session of this kind now, or None.

        Called before each hand-over; the session then goes to `owner.receiver.repeat` once its Repeated is durable,
        unless the hold ends before. Every hand-over of it ends with `owner.receiver.released`.
        """

    def state(self) -> str:
        """One line for people: connected, refused since ..."""

    async def stop(self) -> None:
        """Let go of the handler. Sessions that it still holds are lost to it."""


class Transport(Protocol):
    """Makes the routes of one scheme."""

    def __call__(self, address: str, kinds: Collection[Kind]) -> Route:
        """`address` is the handler as configured, scheme included. ConfigError when it makes no sense."""
