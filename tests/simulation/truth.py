"""What the log must hold: every batch that was called durable, in order, and a second machine that applies them all.

The machine of a node stands on checkpoints, layers and what recovery found. This one has seen every durable batch and
nothing else, with an empty store below it. At equal Index the two must be equal (G6). And what a node finds on its disk
must be all that was called durable, plus at most what was under way (G1).
"""

from __future__ import annotations

from collections.abc import Iterable

from tests.node.gate import Gates
from tests.simulation.checker import Violation
from truba.codec.batch import decode_batch
from truba.errors import DataError
from truba.kinds import Kind
from truba.log.file import FileLog
from truba.machine.digest import state_digest
from truba.machine.events import Event, Repeated
from truba.machine.machine import Machine
from truba.ports.log import LogBatch
from truba.store.memory import MemoryStore
from truba.types import Phase


class Truth:
    """Hears of each batch from the log, and keeps the state that follows."""

    def __init__(self, kinds: Iterable[Kind]) -> None:
        kinds = tuple(kinds)
        self.machine = Machine(MemoryStore(), {kind.number: kind for kind in kinds})
        self._gates = Gates(kinds)
        self._under_way: list[LogBatch] = []
        self.compared = 0

    def appended(self, batch: LogBatch) -> None:
        self._under_way.append(batch)

    def durable(self, batch: LogBatch) -> None:
        if self._under_way.pop(0) is not batch:
            raise Violation("G1: batches became durable out of order")
        self._apply(batch)

    def recovered(self, log: FileLog) -> None:
        """A start has read what is on the disk."""
        seq = self.machine.seq
        if log.tail.seq < seq:
            raise Violation(f"G1: the log ends with seq {log.tail.seq}, and seq {seq} was durable")
        try:
            found = [batch for batch, _ in log.read(seq)]
        except (DataError, ValueError) as error:
            raise Violation(f"G1: what follows seq {seq} cannot be read: {error}") from error
        if found != self._under_way[: len(found)]:
            raise Violation(f"G1: after seq {seq} the log holds what nobody wrote: {found}")
        self._under_way.clear()
        for batch in found:
            self._apply(batch)

    def agrees(self, machine: Machine, when: str) -> None:
        """A node's state at the end of its log, with nothing under way."""
        mine = self.machine
        if (machine.term, machine.seq) != (mine.term, mine.seq):
            raise Violation(f"G6: {when}: state of {machine.term}-{machine.seq}, log of {mine.term}-{mine.seq}")
        self.compared += 1
        if state_digest(machine) != state_digest(mine):
            raise Violation(f"G6: {when}: at {mine.term}-{mine.seq} the state is not that of the log")

    def _apply(self, batch: LogBatch) -> None:
        machine = self.machine
        machine.begin(batch.term)
        for event in decode_batch(batch.body):
            self._gates.saw(event)  # what the breaker should have held back is an error
            if type(event) is Repeated:
                self._in_order(event)
            machine.apply(event)

    def _in_order(self, event: Event) -> None:
        """Within a kind, what is handed over is what is due first, and of equal ones what was stored first."""
        assert isinstance(event, Repeated)
        heads = self.machine.layers.young.heads
        chosen = heads[event.number]
        assert chosen is not None
        for head in heads.values():
            if (
                head is not None
                and head.kind == chosen.kind
                and head.phase is Phase.STORED
                and (head.due_ms, head.order) < (chosen.due_ms, chosen.order)
            ):
                raise Violation(f"G4: {chosen.id} was handed over before {head.id}, which was due earlier")
