"""Connections to a node, as the wire keeps them, and how long things take on them.

Requests arrive in the order in which they were sent; answers leave once all that the node has staged before them is
durable, in order; a connection that ends takes what is under way with it. What happens at the node's end happens in
the node's process, and stands still with it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextvars import Context
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

from tests.cluster.storms.history import Job, Op, Verb
from truba.errors import LogPoisoned, OperationError, UnknownOutcome
from truba.node.node import Node
from truba.node.owners import Hold, Owner, Receiver
from truba.types import Index

if TYPE_CHECKING:
    from tests.cluster.storms.nodes import StormSeat
    from tests.cluster.storms.world import StormWorld

R = TypeVar("R")


class Broken(Exception):
    """The connection ended: what was asked for on it may have happened or not."""


class Line:
    """A connection to the node that a seat lets clients in to. `who` is at the other end."""

    def __init__(
        self, world: StormWorld, seat: StormSeat, node: Node, who: str, receiver: Receiver | None = None
    ) -> None:
        self.world = world
        self.seat = seat
        self.node = node
        self.who = who
        self.history = world.history
        self.owner: Owner = seat.context.copy().run(node.presence.attach, receiver)
        self.ended_here = False  # at the end of who has dialled
        self.ended_there = False
        self.named: bytes | None = None  # the token by which it may write, once it was told that it may; b"": by none
        self.lost = False  # nothing comes through, and nobody has noticed yet
        self._loop = asyncio.get_running_loop()
        self._context = Context()  # of the world around the nodes
        self._waiting: dict[asyncio.Future[Any], None] = {}
        self._there_s = self._back_s = 0.0  # when the last one arrives
        self._held_back: list[Callable[[], None]] | None = None  # requests behind one whose answer is late
        self.on_end: Callable[[], None] = lambda: None  # the node's end has ended, and the node lives
        seat.lines[self] = None

    # -- the end of who asks -----------------------------------------------------------------------------------

    def ask(self, decide: Callable[[Node, Owner], R], durable: Callable[[R], object]) -> asyncio.Future[R]:
        """`decide` is called at the node, `durable` when its answer leaves there. OperationError; Broken."""
        answer: asyncio.Future[R] = self._loop.create_future()
        self._send(partial(self._arrive, decide, durable, answer), answer)
        return answer

    def name_owner(self, token: bytes, grace_s: float) -> asyncio.Future[list[tuple[Index, int, int, int]]]:
        """OWNER: what this owner holds, once it is proved that the node may say so."""
        answer: asyncio.Future[list[tuple[Index, int, int, int]]] = self._loop.create_future()
        in_vain: list[bool] = []  # the node had been replaced when it was asked

        def decide(node: Node, owner: Owner) -> list[tuple[Index, int, int, int]]:
            return node.presence.name_owner(owner, token, round(grace_s * 1000))

        def durable(listing: list[tuple[Index, int, int, int]]) -> None:
            self.world.story.tell(self.who, f"is told by {self.seat.name} that it holds {_listed(listing)}")
            self.history.resumed(self, self.node, listing, in_vain=in_vain[0])

        def arrive() -> None:
            in_vain.append(self.history.stale(self.node))
            self._confirm(partial(self._arrive, decide, durable, answer))

        self._send(arrive, answer)
        return answer

    def _send(self, arrive: Callable[[], None], answer: asyncio.Future[Any]) -> None:
        if self.ended_here:
            answer.set_exception(Broken())
            answer.exception()  # whether or not anybody looks at it
            return
        self._waiting[answer] = None
        self._there_s = max(self._there_s, self._loop.time() + self.world.latency_s())
        if not self.lost:
            self._loop.call_at(self._there_s, self._let_in, arrive, context=self.seat.context)

    def hang_up(self) -> None:
        """End it from here. The node learns of it, sooner or later."""
        if not self.ended_here:
            self._end_here()
            self._there_s = max(self._there_s, self._loop.time() + self.world.latency_s())
            if not self.lost:
                self._loop.call_at(self._there_s, self.end_there, context=self.seat.context)

    def _end_here(self) -> None:
        self.ended_here = True
        for answer in self._waiting:
            if not answer.done():
                answer.set_exception(Broken())
                answer.exception()
        self._waiting.clear()

    # -- the node's end ----------------------------------------------------------------------------------------

    def end_there(self) -> None:
        """The node's end is closed: by the node, or because it has learned that nobody is at the other one."""
        if self.ended_there:
            return
        self.ended_there = True
        self.seat.lines.pop(self, None)
        self.node.presence.detach(self.owner)
        self.on_end()
        if not self.lost:
            self._loop.call_later(self.world.latency_s(), self._end_here, context=self._context)

    def _abort(self) -> None:
        """No answer is the true answer. As with a transport, the end comes in a turn of its own."""
        self._loop.call_soon(self.end_there)

    def cut(self) -> None:
        """As a cable: nothing comes through any more. Each end notices in its own time."""
        self.lost = True
        self._loop.call_later(self.world.notice_s(), self._end_here, context=self._context)
        self._loop.call_later(self.world.notice_s(), self.end_there, context=self.seat.context)

    def die_there(self) -> None:
        """The node's process is gone: the kernel closes for it, and nothing of the node runs any more."""
        self.ended_there = True
        self.seat.lines.pop(self, None)
        if not self.lost:
            self._loop.call_later(self.world.latency_s(), self._end_here, context=self._context)

    def _let_in(self, arrive: Callable[[], None]) -> None:
        if self.lost or self.ended_there:
            return
        if self._held_back is not None:
            self._held_back.append(arrive)
        else:
            arrive()

    def _confirm(self, arrive: Callable[[], None]) -> None:
        """As `wire` does: what is read from the state must not be out of date; what comes behind it waits."""
        self._held_back = []

        def confirmed(error: BaseException | None) -> None:
            if self.lost or self.ended_there:
                return
            if error is not None:
                self._abort()
                return
            waiting, self._held_back = [arrive, *(self._held_back or ())], None
            for each in waiting:
                self._let_in(each)

        try:
            self.node.log.confirm(confirmed)
        except LogPoisoned:
            self._abort()

    def _arrive(
        self, decide: Callable[[Node, Owner], R], durable: Callable[[R], object], answer: asyncio.Future[R]
    ) -> None:
        try:
            result = decide(self.node, self.owner)
        except UnknownOutcome:
            self._abort()
        except OperationError as refusal:
            self.node.when_durable(partial(self._leave, answer, None, refusal, lambda _: None))
        else:
            self.node.when_durable(partial(self._leave, answer, result, None, durable))

    def _leave(
        self,
        answer: asyncio.Future[R],
        result: R,
        refusal: OperationError | None,
        durable: Callable[[R], object],
        ok: bool,
    ) -> None:
        if self.ended_there:
            return
        if not ok:
            self._abort()
            return
        durable(result)
        if not self.lost:
            self._back_s = max(self._back_s, self._loop.time() + self.world.latency_s())
            self._loop.call_at(self._back_s, self._land, answer, result, refusal, context=self._context)

    def _land(self, answer: asyncio.Future[R], result: R, refusal: OperationError | None) -> None:
        self._waiting.pop(answer, None)
        if self.lost or answer.done():
            return
        if refusal is not None:
            answer.set_exception(refusal)
            answer.exception()
        else:
            answer.set_result(result)

    # -- operations on sessions --------------------------------------------------------------------------------

    def new(self, kind: int, records: list[bytes], tag: int = -1) -> asyncio.Future[Job]:
        def decide(node: Node, owner: Owner) -> Job:
            hold = node.new(owner, kind, records, tag)
            return self.history.created(hold.id, kind, records, self)

        def durable(job: Job) -> None:
            self.world.story.tell(self.who, f"is answered by {self.seat.name}: new {job.id} {_text(records)}")
            self.history.born(job, self.seat)

        return self.ask(decide, durable)

    def operate(
        self, job: Job, epoch: int, op: Op, delay_s: float = 0.0, *, exact: bool = False
    ) -> asyncio.Future[None]:
        """`exact`: say which hand-over is meant, as `3-117@2`."""
        text = f"{job.id}@{epoch}" if exact else str(job.id)

        def decide(node: Node, owner: Owner) -> None:
            hold = node.find(owner, text.encode())
            if op.verb == "store":
                op.due_ms = node.clock.now_ms() + round(delay_s * 1000)
            _act(node, hold, op, round(delay_s * 1000))
            self.history.asked(job, self, epoch, op, node)

        def durable(_: None) -> None:
            self.world.story.tell(self.who, f"is answered by {self.seat.name}: {op} on {job.id} at epoch {epoch}")
            self.history.done(job, epoch, op, self.seat)

        return self.ask(decide, durable)


def _act(node: Node, hold: Hold, op: Op, delay_ms: int) -> None:
    verb: Verb = op.verb
    match verb:
        case "append":
            node.append(hold, op.records)
        case "replace":
            node.replace(hold, op.records[0])
        case "delete":
            node.delete(hold)
        case "store":
            node.store(hold, delay_ms)
        case "fail":
            node.fail(hold, "as it happens")
        case "remove":
            raise ValueError("an operator's, not an owner's")


def _listed(listing: list[tuple[Index, int, int, int]]) -> str:
    return ", ".join(f"{id_} ({count} operations)" for id_, _, _, count in listing) or "nothing"


def _text(records: list[bytes]) -> str:
    return b" ".join(records).decode()
