"""What operators do through a node: look through all sessions, and decide about those that nobody holds.

As with the node's own operations, each decides at once, raises a refusal, or stages its event and returns; an answer
may leave once what is staged is durable. Who may do it has been settled by then: that is the part of whoever asks.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from truba.machine.why import why
from truba.ports.backup import Backups
from truba.ports.store import Head
from truba.types import Index

if TYPE_CHECKING:
    from truba.node.node import Node

PAGE_STEPS_MAX = 8192
"""Sessions that are looked at for one page: some milliseconds, in which nobody else is served."""

PAGE_STEPS = 512
"""Of these, at once: what a page that fills up sooner has looked at in vain."""


UNCHANGED = "; nothing was changed"
"""At the end of each refusal of a change."""


class Operators:
    """Owned by the node. `backups`: there where whoever owns log and store can make any."""

    def __init__(self, node: Node) -> None:
        self.backups: Backups | None = None
        self._node = node

    def page(
        self, after: Index | None, limit: int, wanted: Callable[[Head], bool], steps_max: int = PAGE_STEPS_MAX
    ) -> tuple[list[Head], Index | None]:
        """Up to `limit` sessions that are `wanted`, in order of id, and the id to go on after; None: that was all.

        Looks at `steps_max` sessions at most, so a page may be short, or empty, before the end.
        """
        machine = self._node.machine
        found: list[Head] = []
        after_number = after.seq if after else 0
        for steps in range(steps_max, 0, -PAGE_STEPS):
            heads, rest = machine.page(after_number, min(steps, PAGE_STEPS))
            for head in heads:
                if wanted(head):
                    found.append(head)
                    if len(found) == limit:
                        return found, head.id
            if rest is None:
                return found, None
            after_number = rest
        return found, Index(machine.term, after_number)

    def why(self, index: Index) -> tuple[str, ...]:
        """In plain words: where a session stands, what brought it there, what happens next and when. NoSession."""
        node, head = self._node, self._node.look_up(index)
        return why(head, node.kinds[head.kind], node.dispatcher.lanes[head.kind].view, node.clock.now_ms())

    def resume(self, index: Index) -> None:
        """Make a parked or stored session due at once, with fresh limits. NoSession; Busy: somebody holds it."""
        node, head = self._node, self._node.look_up(index, UNCHANGED)
        node.sequencer.stage(node.machine.resume(head.number, node.clock.now_ms()))
        node.dispatcher.wake()

    def reschedule(self, index: Index, due_ms: int) -> None:
        """Have a stored session handed over at another time; its attempts and its age are as before. NoSession;
        Busy: somebody holds it, or it is parked."""
        node, head = self._node, self._node.look_up(index, UNCHANGED)
        node.sequencer.stage(node.machine.reschedule(head.number, due_ms, node.clock.now_ms()))
        node.wake_at(due_ms)

    def remove(self, index: Index) -> None:
        """Delete a stored or parked session. NoSession; Busy: somebody holds it."""
        node, head = self._node, self._node.look_up(index, UNCHANGED)
        node.sequencer.stage(node.machine.remove(head.number))

    @property
    def paused(self) -> list[str]:
        """The kinds of which nothing is handed over, by name."""
        return [kind.name for number, kind in sorted(self._node.kinds.items()) if number in self._node.machine.paused]

    def pause(self, kind: int, on: bool) -> None:
        """Hand over nothing more of a kind (`on`), or go on; holds until it is taken back, whatever restarts.
        UnknownKind."""
        node = self._node
        event = node.machine.pause(kind, on, node.clock.now_ms())
        if event is not None:
            node.sequencer.stage(event)
            node.tell("hand-over paused" if on else "hand-over continues", kind=kind)
            node.dispatcher.wake()
