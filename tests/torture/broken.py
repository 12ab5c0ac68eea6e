"""Pipes that are broken on purpose: `python -m tests.torture.broken HOW serve --config FILE`.

Each breaks one sentence of the guarantees, in a process of its own, by replacing a part of the real pipe.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from truba.cli.main import main
from truba.codec.batch import decode_batch
from truba.log.file import FileLog
from truba.machine import events
from truba.machine.machine import Machine
from truba.node import node, recovery
from truba.node.dispatcher import Dispatcher
from truba.node.node import Node
from truba.node.owners import Hold, Owner
from truba.node.presence import Listed, Presence
from truba.node.sequencer import Sequencer

BREAK: dict[str, Callable[[], None]] = {}


def breaks(function: Callable[[], None]) -> Callable[[], None]:
    BREAK[function.__name__] = function
    return function


def replace(owner: type, name: str, value: object) -> None:
    assert hasattr(owner, name)  # what was renamed would be broken no more, and nothing would be found
    setattr(owner, name, value)


@breaks
def answers_before_the_write() -> None:
    """G1: what was acknowledged is not written yet, for a moment as long as a slow disk takes."""
    Sequencer.latest = property(lambda self: None, lambda self, batch: None)  # type: ignore[assignment]
    append = FileLog.append

    def later(self: FileLog, batch: Any, done: Any) -> None:
        asyncio.get_running_loop().call_later(0.03, append, self, batch, done)

    replace(FileLog, "append", later)


@breaks
def forgets_the_last_batch() -> None:
    """G1: recovery does not apply what it read last."""

    def recover(log: Any, store: Any, kinds: Mapping[int, Any]) -> Machine:
        machine = Machine(store, kinds)
        batches = [batch for batch, _ in log.read(store.summary.applied.seq)]
        for number, batch in enumerate(batches, 1):
            if number == len(batches):
                machine.begin(batch.term)
                machine.seq += batch.count
            else:
                machine.replay(batch.term, decode_batch(batch.body))
        return machine

    vars(node)["recover"] = recover
    assert recovery.recover is not recover


@breaks
def replays_appends_twice() -> None:
    """G2: recovery applies an append with one record too many."""
    replay = Machine.replay

    def twice(self: Machine, term: int, found: list[Any]) -> None:
        def doubled(event: Any) -> Any:
            if isinstance(event, events.Appended):
                return events.Appended(event.number, [*event.records, event.records[-1]])
            return event

        replay(self, term, [doubled(event) for event in found])

    replace(Machine, "replay", twice)


@breaks
def replaces_half() -> None:
    """G2: Replace adds its record, and the earlier ones stay."""

    def replaced(self: Machine, event: events.Replaced, seq: int) -> None:
        self._appended(events.Appended(event.number, [event.record]), seq)

    replace(Machine, "_replaced", replaced)


@breaks
def knows_no_epoch() -> None:
    """G3: whoever held a session once may write to it as long as somebody holds it."""
    find = Owner._find  # noqa: SLF001

    def found(self: Owner, id_text: bytes) -> Hold:
        old = self.ended.get(id_text.partition(b"@")[0])
        return old if old is not None else find(self, id_text)

    def unchecked(self: Machine, number: int, epoch: int, *rest: Any) -> Any:
        head = self.owned.get(number)
        return head.epoch if head is not None else epoch

    replace(Owner, "_find", found)
    replace(Hold, "check", lambda self: None)
    for verb in ("append", "replace"):
        decide = getattr(Machine, verb)

        def anyway(self: Machine, number: int, epoch: int, *rest: Any, decide: Any = decide) -> Any:
            return decide(self, number, unchecked(self, number, epoch), *rest)

        replace(Machine, verb, anyway)


@breaks
def is_early() -> None:
    """G4: a stored session is due after half of its time."""
    store = Node.store
    replace(Node, "store", lambda self, hold, delay_ms: store(self, hold, delay_ms // 2))


@breaks
def forgets_to_deliver() -> None:
    """G4: after a restart, what was stored before it is not handed over."""
    start = Dispatcher.start

    def started(self: Dispatcher) -> None:
        machine = self._node.machine
        for kind in self._node.kinds:
            young = machine.layers.young.due.get(kind)
            if young is not None:
                young.keys.clear()
        start(self)

    replace(Dispatcher, "start", started)


@breaks
def drops_what_would_be_parked() -> None:
    """Nothing is ever dropped silently: what has had its attempts is, here."""

    def parked(self: Machine, event: events.Parked, seq: int) -> None:
        self._deleted(events.Deleted(event.number), seq)

    replace(Machine, "_parked", parked)


@breaks
def delivers_what_is_deleted() -> None:
    """G5: Delete is answered, and the session given back instead."""

    def delete(self: Node, hold: Hold) -> None:
        if hold.ended:
            hold.check()
        self.store(hold, 0)

    replace(Node, "delete", delete)


@breaks
def hands_over_unlogged() -> None:
    """G4: the handler hears of a hand-over before it is durable, so a restart repeats its epoch."""
    when_durable = Node.when_durable

    def at_once(self: Node, waiter: Callable[[bool], None]) -> None:
        if type(waiter).__name__ == "_Push":
            waiter(True)
        else:
            when_durable(self, waiter)

    replace(Node, "when_durable", at_once)
    append = FileLog.append

    def later(self: FileLog, batch: Any, done: Any) -> None:
        asyncio.get_running_loop().call_later(0.03, append, self, batch, done)

    replace(FileLog, "append", later)


@breaks
def tells_a_wrong_count() -> None:
    """G2: an owner that comes back is told that its last write is missing, and repeats it."""
    take_over = Presence.take_over

    def told(self: Presence, owner: Owner, token: bytes, grace_ms: int) -> Iterator[list[Listed]]:
        for held in take_over(self, owner, token, grace_ms):
            yield [(index, kind, tag, max(0, count - 1)) for index, kind, tag, count in held]

    replace(Presence, "take_over", told)


@breaks
def checkpoints_too_far() -> None:
    """G1: a checkpoint says that it holds a little more of the log than it does."""
    from truba.node.checkpoint import Checkpointer

    run = Checkpointer._run  # noqa: SLF001

    async def late(self: Checkpointer, frozen: Any, *rest: Any) -> None:
        for number in list(frozen.heads)[-3:]:
            if frozen.heads[number] is not None and number not in frozen.was:
                del frozen.heads[number]
                frozen.tails.pop(number, None)
        await run(self, frozen, *rest)

    replace(Checkpointer, "_run", late)


@breaks
def continues_by_itself() -> None:
    """A kind that an operator has paused goes on after a restart."""

    def recovered(*args: Any) -> Machine:
        machine = recovery.recover(*args)
        machine.paused = frozenset()
        return machine

    vars(node)["recover"] = recovered


@breaks
def hands_over_what_is_paused() -> None:
    """Nothing of a paused kind is handed over."""
    from truba.node.dispatcher import KindLane

    wait_ms = KindLane.wait_ms

    def anyway(self: KindLane, *rest: Any) -> Any:
        paused, self._dispatcher.machine.paused = self._dispatcher.machine.paused, frozenset()
        try:
            return wait_ms(self, *rest)
        finally:
            self._dispatcher.machine.paused = paused

    replace(KindLane, "wait_ms", anyway)


if __name__ == "__main__":
    BREAK[sys.argv.pop(1)]()
    main()
