"""What owners asked for and were told, session by session, and whether that can be true.

An operation is *open* from the moment a node takes it until something tells its fate: an answer that leaves a node, a
hand-over that shows the records, an owner that is told how many of its operations happened. Operations of one session
happen in the order in which they were asked for, so of the open ones some first few did, the others never will.
Every record is unlike every other, so what a session holds tells which.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from math import inf
from typing import Literal

from tests.cluster.storms.witness import Witness
from tests.cluster.world import Seat
from truba.errors import NoSession
from truba.machine.machine import Machine
from truba.node.node import Node
from truba.node.owners import Handover
from truba.types import Index

Verb = Literal["append", "replace", "delete", "store", "fail", "remove"]


@dataclass(eq=False, slots=True)
class Op:
    """One operation on a session. `due_ms`: of a store. `seq`: of its event, if it ever comes to be one."""

    verb: Verb
    records: list[bytes] = field(default_factory=list)
    due_ms: int = 0
    seq: int = 0
    fate: Literal["open", "done", "never"] = "open"

    def __str__(self) -> str:
        return f"{self.verb} {b' '.join(self.records).decode()}".rstrip()


@dataclass(eq=False, slots=True)
class Job:
    """One session. `records`: as they are after all that is known to have happened."""

    id: Index
    kind: int
    records: list[bytes]
    holder: object
    born: bool = False  # its New was acknowledged, or it was seen
    epoch: int = 0
    counted: int = 0  # operations known to have happened since New or the hand-over
    over: bool = False  # the hold was ended by its owner
    deleted: bool = False
    open: list[Op] = field(default_factory=list)
    removals: list[Op] = field(default_factory=list)  # an operator has asked for them, and was not answered

    def may_be(self) -> list[list[bytes]]:
        """Its records after none, the first, the first two ... of the open operations."""
        states = [self.records]
        for op in self.open:
            match op.verb:
                case "append":
                    states.append(states[-1] + op.records)
                case "replace":
                    states.append(op.records)
                case _:
                    states.append(states[-1])
        return states

    def settle(self, count: int) -> None:
        """The first `count` of the open operations happened."""
        done, self.open = self.open[:count], self.open[count:]
        for op in done:
            op.fate = "done"
            match op.verb:
                case "append":
                    self.records = self.records + op.records
                    self.counted += 1
                case "replace":
                    self.records = op.records
                    self.counted += 1
                case "delete":
                    self.deleted = self.over = True
                case _:
                    self.over = True

    def forget_open(self, *, ended: bool = False) -> None:
        """What is open now never happens. `ended`: the hold has; a store or fail that was next may be what ended it."""
        for place, op in enumerate(self.open):
            if not (ended and place == 0 and op.verb in ("store", "fail")):
                op.fate = "never"
        for op in self.removals:
            op.fate = "never"
        self.open, self.removals = [], []


@dataclass(eq=False, slots=True)
class Steering:
    """An operator has asked that a kind be paused (`on`) or continued."""

    kind: int
    on: bool
    sent_s: float
    answered_s: float = inf


class History:
    def __init__(self, witness: Witness) -> None:
        self.jobs: dict[Index, Job] = {}
        self.steerings: list[Steering] = []
        self._witness = witness
        self.acknowledged = 0
        self.unknown = 0  # open operations that turned out to have happened
        self.lost = 0  # open operations that turned out never to have
        self.deliveries = 0
        self.late_pushes = 0

    def complain(self, what: str) -> None:
        self._witness.complain(what)

    def stale(self, node: Node) -> bool:
        """It has been replaced, whether it knows that or not: nothing that it takes can happen any more."""
        return node.machine.term < self._witness.sea.term

    # -- what owners do: told where and when a node takes it, or lets an answer go ------------------------------

    def created(self, id_: Index, kind: int, records: list[bytes], holder: object) -> Job:
        """A node took a New. It may be one that it knows already, by its tag."""
        job = self.jobs.get(id_)
        if job is None:
            job = self.jobs[id_] = Job(id_, kind, list(records), holder)
        return job

    def born(self, job: Job, seat: Seat) -> None:
        """A node lets the answer go that a session was opened."""
        job.born = True
        self.acknowledged += 1
        self._logged(seat, job.id.seq, f"{job.id}: its New")

    def asked(self, job: Job, holder: object, epoch: int, op: Op, node: Node) -> None:
        """A node took an operation, from whoever believes to hold the session at that epoch."""
        op.seq = node.machine.seq
        if holder is not job.holder or epoch != job.epoch or job.over or self.stale(node):
            op.fate = "never"
        else:
            job.open.append(op)

    def done(self, job: Job, epoch: int, op: Op, seat: Seat) -> None:
        """A node lets the answer go that it happened."""
        self.acknowledged += 1
        self._logged(seat, op.seq, f"{op} on {job.id}")
        if op.fate == "never":
            self.complain(
                f"{op} on {job.id} at epoch {epoch} is acknowledged, and its owner had lost the session before"
            )
        elif op in job.open:
            job.settle(job.open.index(op) + 1)
        if op.verb == "store" and self._witness.stored_ms.get((job.id.seq, epoch)) != op.due_ms:
            self.complain(f"{job.id} was stored until {op.due_ms}: {self._witness.stored_ms.get((job.id.seq, epoch))}")

    def concluded(self, job: Job, op: Op) -> None:
        """An owner was not answered, came back in time, and the session is not in the list: this has ended it."""
        if op.fate == "never":
            self.complain(f"{op} on {job.id} must have happened, concludes its owner; it had lost the session before")
        elif op in job.open:
            job.settle(job.open.index(op) + 1)

    def removing(self, job: Job, op: Op, node: Node) -> None:
        """A node took an operator's wish to delete a session that nobody holds."""
        op.seq = node.machine.seq
        if self.stale(node):
            op.fate = "never"
        else:
            job.removals.append(op)

    def removed(self, job: Job, op: Op, seat: Seat) -> None:
        self._logged(seat, op.seq, f"{op} on {job.id}")
        if op.fate == "never":
            self.complain(f"{op} on {job.id} is acknowledged, and the session was there after that")
        job.deleted = job.over = True

    def _logged(self, seat: Seat, seq: int, what: str) -> None:
        if not seq <= min(seat.disk.log.tail.seq, self._witness.seq):
            self.complain(f"{what} is acknowledged, and {seat.name} has not logged event {seq} yet")

    def resumed(self, holder: object, node: Node, listing: list[tuple[Index, int, int, int]], *, in_vain: bool) -> None:
        """An owner that came back is told what it holds, and how many operations happened.

        A handler may have been handed a session and never have heard of it, for the node died before it was pushed.
        `in_vain`: the node had been replaced before it was asked, and must not say anything. One that was replaced
        meanwhile says what was true; nobody can build on it, for nothing that it takes can happen.
        """
        if self.stale(node):
            if in_vain:
                self.complain(f"{node.name} tells an owner what it holds, and had been replaced when it was asked")
            return
        for id_, kind, _, count in listing:
            job = self.jobs.get(id_)
            if job is None or job.kind != kind:
                self.complain(f"{id_} of kind {kind} is given back to its owner, who never opened it")
                continue
            head = node.machine.get(id_.seq)
            if head is not None and head.epoch > job.epoch:
                self._shown(job, node.machine.records(id_.seq), f"is at epoch {head.epoch}")
                job.epoch, job.counted, job.over = head.epoch, 0, False
            happened = count - job.counted
            ends = any(op.verb not in ("append", "replace") for op in job.open[: max(0, happened)])
            if job.over or ends or not 0 <= happened <= len(job.open):
                self.complain(
                    f"{id_}: its owner is told of {count} operations; known: {job.counted}, {_said(job.open)}"
                )
                continue
            self._split(job, happened, ended=False)
            job.holder = holder
            job.born = True

    def _split(self, job: Job, happened: int, *, ended: bool) -> None:
        self.unknown += happened
        job.settle(happened)
        self.lost += len(job.open)
        job.forget_open(ended=ended)

    # -- hand-overs ----------------------------------------------------------------------------------------------

    def delivered(self, node: Node, handover: Handover, latest_ms: int, holder: object) -> None:
        """A node pushes a session to a handler. `latest_ms`: the latest time that its clock has shown of late."""
        self.deliveries += 1
        hold, witness = handover.hold, self._witness
        epoch, number = hold.epoch, hold.number
        due_ms = witness.granted_ms.get((number, epoch))
        if due_ms is None:
            self.complain(f"{hold.id} is pushed at epoch {epoch}, and no log holds that hand-over")
        elif due_ms > latest_ms:
            self.complain(f"{hold.id} is pushed {due_ms - latest_ms} ms early")
        job = self.jobs.get(hold.id)
        if job is None:
            self.complain(f"{hold.id} is pushed, and nobody ever opened it")
        elif self.stale(node) and (epoch <= job.epoch or job.deleted):
            self.late_pushes += 1  # sent in time, for all that its sender knows: as if it were late on the way
        elif job.deleted:
            self.complain(f"{hold.id} is pushed at epoch {epoch}, and it was deleted")
        elif epoch <= job.epoch:
            self.complain(f"{hold.id} is pushed at epoch {epoch}, and was at epoch {job.epoch} before")
        else:
            self._shown(job, handover.records, f"is pushed at epoch {epoch}")
            job.born = True
            job.epoch = epoch
            job.counted = 0
            job.over = False
            job.holder = holder

    def _shown(self, job: Job, records: list[bytes], where: str) -> None:
        states = job.may_be()
        if records not in states:
            self.complain(
                f"{job.id} {where} with {_text(records)}; it has {_text(job.records)}, open: {_said(job.open)}"
            )
            return
        self._split(job, states.index(records), ended=True)

    # -- the whole -----------------------------------------------------------------------------------------------

    def compare(self, machine: Machine) -> None:
        """Against a state that all nodes agree on, while nobody works."""
        found = {head.id: head for head in machine.scan()}
        for job in self.jobs.values():
            head = found.pop(job.id, None)
            if head is None:
                if job.born and not job.deleted and not self._may_be_gone(job):
                    self.complain(f"{job.id} is gone; it had {_text(job.records)}, open: {_said(job.open)}")
                job.forget_open()
                job.deleted = job.over = True
                continue
            if job.deleted:
                self.complain(f"{job.id} is there, and it was deleted")
            elif head.epoch < job.epoch:
                self.complain(f"{job.id} is at epoch {head.epoch}, and was at {job.epoch}")
            else:
                try:
                    self._shown(job, machine.records(head.number), "is")
                except NoSession as error:
                    self.complain(f"{job.id}: {error}")
                job.born = True
        for id_ in found:
            self.complain(f"{id_} is there, and nobody ever opened it")
        for kind in {steering.kind for steering in self.steerings}:
            if not self._may_be_last(kind, on := kind in machine.paused):
                self.complain(f"kind {kind} is {'paused' if on else 'not paused'}, and the last word was another")

    def _may_be_last(self, kind: int, on: bool) -> bool:
        """That word, or the beginning, where nothing is paused, was not followed by an acknowledged other one."""
        mine = [steering for steering in self.steerings if steering.kind == kind]
        said_s = [steering.answered_s for steering in mine if steering.on is on] + ([] if on else [-inf])
        against_s = [other.sent_s for other in mine if other.on is not on and other.answered_s < inf]
        return any(all(sent_s <= at_s for sent_s in against_s) for at_s in said_s)

    def _may_be_gone(self, job: Job) -> bool:
        """Nothing to recover from, or deleted by somebody who was not told so."""
        return bool(job.removals) or any(op.verb == "delete" for op in job.open) or [] in job.may_be()


def _text(records: list[bytes]) -> str:
    return "[" + ", ".join(record.decode() for record in records) + "]"


def _said(ops: list[Op]) -> str:
    return ", ".join(map(str, ops)) or "nothing"
