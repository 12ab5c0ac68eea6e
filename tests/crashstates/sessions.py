"""A history of sessions to crash in: batches of events for the log, and the digest of the state after each."""

from __future__ import annotations

import random
from typing import NamedTuple

from truba.codec.batch import encode_batch
from truba.codec.chain import Chain
from truba.errors import OperationError
from truba.kinds import Backoff, Kind
from truba.log.memory import MemoryLog
from truba.machine.digest import state_digest
from truba.machine.events import Event, Opened
from truba.machine.machine import Machine
from truba.ports.log import LogBatch
from truba.store.memory import MemoryStore
from truba.types import ORIGIN, Cause, Position

LOG_ID = b"sixteen bytes id"


async def nobody(repeat: object) -> None:
    """A handler that is never called."""


KINDS = {
    1: Kind(1, "one", nobody, max_attempts=2, recovery_delay_s=1, jitter_s=3, backoff=Backoff(1, 2, 3)),
    2: Kind(2, "other", nobody, max_attempts=0, max_age_s=0),
}


class History(NamedTuple):
    entries: list[tuple[LogBatch, Position]]
    digests: dict[int, str]  # of the state after the batch that ends with this seq; 0: the empty state

    def after(self, seq: int) -> int:
        """The last seq of the batch that follows; `seq` itself at the end."""
        return next((position.seq for _, position in self.entries if position.seq > seq), seq)


def history(seed: int, batches: int) -> History:
    dice = random.Random(seed)
    machine = Machine(MemoryStore(), KINDS)
    links = Chain(LOG_ID)
    at, now_ms = ORIGIN, 1_000_000
    entries: list[tuple[LogBatch, Position]] = []
    digests = {0: state_digest(machine)}
    for number in range(batches):
        events: list[Event] = []
        if number == 0 or dice.random() < 0.05:
            machine.begin(machine.term + 1)
            events.append(Opened(now_ms, "writer"))
            machine.apply(events[0])
        for _ in range(dice.choice((1, 1, 2, 5, 12))):
            now_ms += dice.randrange(400)
            if (event := _event(machine, dice, now_ms)) is not None:
                machine.apply(event)
                events.append(event)
        if not events:
            continue
        batch = LogBatch(machine.term, at.seq + 1, len(events), encode_batch(events))
        at = Position(batch.term, batch.last_seq, links.chain(at, batch))
        entries.append((batch, at))
        digests[at.seq] = state_digest(machine)
    return History(entries, digests)


def _event(machine: Machine, dice: random.Random, now_ms: int) -> Event | None:
    def record() -> bytes:
        return dice.randbytes(dice.choice((0, 10, 60, 300, 1500)))

    held = list(machine.owned.values())
    others = [head for head in machine.scan() if head.number not in machine.owned]
    wish = dice.random()
    try:
        if wish < 0.25 or not held:
            return machine.create(
                dice.choice((1, 2)), now_ms, [record() for _ in range(dice.randrange(3))], dice.randbytes(16), 5_000, 3
            )
        if wish < 0.45 and others:
            number = dice.choice(others).number
            return machine.repeat(number, now_ms + 5_000, b"handler") or machine.resume(number, now_ms)
        if wish < 0.48 and others:
            return machine.remove(dice.choice(others).number)
        head = dice.choice(held)
        number, epoch = head.number, head.epoch
        if wish < 0.70:
            return machine.append(number, epoch, [record() for _ in range(dice.randint(1, 3))])
        if wish < 0.78:
            return machine.replace(number, epoch, record())
        if wish < 0.86:
            return machine.store(number, epoch, now_ms + dice.randrange(10_000))
        if wish < 0.94:
            cause = dice.choice((Cause.LOST, Cause.FAILED, Cause.UNREACHABLE))
            return machine.give_back(number, epoch, cause, now_ms, dice.random(), "why")
        return machine.delete(number, epoch)
    except OperationError:
        return None


def memory_log(entries: list[tuple[LogBatch, Position]]) -> MemoryLog:
    log = MemoryLog()
    log.shelf.batches = list(entries)
    return log
