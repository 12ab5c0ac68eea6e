"""Who sees everything: the story of a storm, and what holds of logs and states at every moment of it.

* One history: whatever two nodes have in their own logs at one place is the same, and was in the stream before.
* Equal Index means equal state: at places that the chain hash itself picks, so that all nodes are asked at the same.
* What was logged of each session, so that others can tell what was early, late, or never happened.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextvars import Context
from hashlib import sha256

from tests.cluster.world import CLUSTER, Seat
from truba.cluster.entry import Entry, EntryKind, decode
from truba.codec.batch import decode_batch
from truba.codec.chain import Chain
from truba.machine.digest import state_digest
from truba.machine.events import Created, Deleted, Paused, Repeated, Resumed, Stored
from truba.ports.log import LogBatch
from truba.ports.stream import Outcome
from truba.ports.stream import Stored as StoredMessage
from truba.streams.memory import Sea
from truba.testing.jump import JumpClock
from truba.types import Index, Position

LINKS = Chain(CLUSTER)
DIGEST_ONE_IN = 8
"""Of all places of the log, so many have the states there compared: a digest reads every record."""


class Story:
    """What happened, one line a step, with simulated times."""

    def __init__(self, clock: JumpClock, show: Callable[[str], object] | None = None) -> None:
        self.lines: list[str] = []
        self._clock = clock
        self._start_s = clock.steady_s
        self._show = show

    def tell(self, who: str, what: str) -> None:
        line = f"{self._clock.steady_s - self._start_s:9.3f}  {who:<9} {what}"
        self.lines.append(line)
        if self._show is not None:
            self._show(line)

    @property
    def digest(self) -> str:
        """Equal for equal stories."""
        return sha256("\n".join(self.lines).encode()).hexdigest()


class WatchedSea(Sea):
    """Knows which entries it has taken."""

    def __init__(self) -> None:
        super().__init__()
        self.chains: dict[bytes, int] = {}  # and the number of its first message
        self.term = 0  # of the latest OPEN

    def store(self, data: bytes, expected: int | None) -> Outcome:
        outcome = super().store(data, expected)
        if isinstance(outcome, StoredMessage):
            match decode(LINKS, data):
                case Entry(kind=EntryKind.OPEN | EntryKind.BATCH) as entry:
                    self.chains.setdefault(entry.chain, outcome.seq)
                    if entry.kind is EntryKind.OPEN:
                        self.term = max(self.term, entry.term)
        return outcome

    def lose(self, count: int) -> int:
        """Forget the last messages, as an engine whose disks do not sync: one batch at least.

        An engine that loses nothing but a beat gives its number again all the same; no node can tell that from the
        stream before another one leads by that number, and that numbers are never given twice is what is assumed.
        """
        batches = [seq for seq in range(self.first + 1, self.last + 1) if has_events(self.messages[seq])]
        lost = min(max(count, self.last + 1 - batches[-1]), self.last - self.first) if batches else 0
        for seq in range(self.last - lost + 1, self.last + 1):
            self.messages.pop(seq, None)
        self.last -= lost
        return lost


class Witness:
    """`wrong`: the first thing that must not be; empty: all is well."""

    def __init__(self, story: Story, sea: WatchedSea) -> None:
        self.story = story
        self.sea = sea
        self.wrong = ""
        self.seq = 0  # of the last event that any node has in its own log
        self.compared = 0
        self.valid: list[int] = []  # messages of the stream that some node has taken for valid
        self._positions: dict[int, Position] = {}
        self._digests: dict[int, tuple[str, str]] = {}  # seq -> digest, and who was the first to have it
        self._kinds: dict[int, int] = {}  # of each session by its number
        self._paused: set[int] = set()
        self.epochs: dict[int, int] = {}  # session number -> hand-overs logged
        self.ids: dict[int, Index] = {}
        self._due_ms: dict[int, int] = {}
        self.granted_ms: dict[tuple[int, int], int] = {}  # session number, epoch -> due time of that hand-over
        self.stored_ms: dict[tuple[int, int], int] = {}  # session number, epoch that ended -> its new due time

    def complain(self, what: str) -> None:
        if not self.wrong:
            self.wrong = what
        self.story.tell("WRONG", what)

    def copied(self, seat: Seat, batch: LogBatch, position: Position) -> None:
        """A node has a batch in its own log now."""
        known = self._positions.get(position.seq)
        if known is None:
            if position.chain not in self.sea.chains:
                self.complain(f"{seat.name} has logged {_at(position)}, which was never in the stream")
            self.valid.append(self.sea.chains.get(position.chain, 0))
            self._positions[position.seq] = position
            if position.seq > self.seq:
                self._learn(seat, batch)
        elif known != position:
            self.complain(f"two histories: {seat.name} has {_at(position)}, another node has {_at(known)}")
        self.story.tell(seat.name, f"logged {_at(position)}")
        if position.chain[0] % DIGEST_ONE_IN == 0:
            asyncio.get_running_loop().call_soon(self._compare, seat, position.seq, 8, context=Context())

    def took(self, seat: Seat, position: Position) -> None:
        """A node's log begins anew, where a peer's checkpoint ends."""
        if self._positions.get(position.seq, position) != position:
            self.complain(
                f"{seat.name} takes a checkpoint at {_at(position)}, the log has {_at(self._positions[position.seq])}"
            )

    def _learn(self, seat: Seat, batch: LogBatch) -> None:
        if batch.first_seq != self.seq + 1:
            self.complain(f"{seat.name} has logged events from {batch.first_seq} on, {self.seq} was the last before")
        for seq, event in enumerate(decode_batch(batch.body), batch.first_seq):
            match event:
                case Created(kind=kind):
                    self.ids[seq] = Index(batch.term, seq)
                    self._kinds[seq] = kind
                    self.epochs[seq] = 0
                case Paused(kind=kind, on=on):
                    (self._paused.add if on else self._paused.discard)(kind)
                case Repeated(number=number):
                    if (kind := self._kinds[number]) in self._paused:
                        self.complain(f"{self.ids[number]} is handed over, and its kind {kind} is paused")
                    self.epochs[number] += 1
                    self.granted_ms[number, self.epochs[number]] = self._due_ms[number]
                case Stored(number=number, due_ms=due_ms):
                    self._due_ms[number] = self.stored_ms[number, self.epochs[number]] = due_ms
                case Resumed(number=number, due_ms=due_ms):
                    self._due_ms[number] = due_ms
                case Deleted(number=number):
                    self.ids.pop(number)
        self.seq = batch.last_seq

    def _compare(self, seat: Seat, seq: int, tries: int) -> None:
        """As soon as the state is that of the place; a leader's may be beyond it already."""
        machine = seat.member.machine
        if machine is None or machine.seq > seq:
            return
        if machine.seq < seq:
            if tries:
                asyncio.get_running_loop().call_soon(self._compare, seat, seq, tries - 1, context=Context())
            return
        digest = state_digest(machine)
        known, who = self._digests.setdefault(seq, (digest, seat.name))
        self.compared += who != seat.name
        if digest != known:
            self.complain(f"at event {seq} the state of {seat.name} is {digest[:8]}, that of {who} was {known[:8]}")


def has_events(data: bytes) -> bool:
    entry = decode(LINKS, data)
    return isinstance(entry, Entry) and entry.events > 0


def is_open(data: bytes) -> bool:
    entry = decode(LINKS, data)
    return isinstance(entry, Entry) and entry.kind is EntryKind.OPEN


def _at(position: Position) -> str:
    return f"{position.term}-{position.seq} {position.chain.hex()[:8]}"
