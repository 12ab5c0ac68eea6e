"""One RESP connection: bytes in, requests to the node, answers out in order and not before they are durable.

A connection that the pipe dialled (`dialled=True`) is a handler's: it may say KINDS, and is then an owner to which the
dispatcher hands sessions. Everything else is the same on both. What each verb means is in `truba.wire.verbs`.
"""

from __future__ import annotations

import asyncio
import re
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Protocol, cast

import structlog

from truba.errors import BadRequest, DataError, NoPerm, OperationError
from truba.node.node import Node
from truba.node.owners import Handover, Hold, Owner
from truba.ports.audit import AuditLog
from truba.ports.auth import Authenticator, Principal
from truba.protocols import replies
from truba.protocols.resp import FramingLost, Limits, RequestParser
from truba.rights import READ, missing
from truba.types import Cause
from truba.wire.patience import FAREWELL_S, Stall, keep_alive
from truba.wire.stranger import Stranger, certified, verbs_of_strangers

log = structlog.get_logger("truba.wire")

_QUOTED = re.compile(r"""'.*'|".*\"""")

PENDING_BYTES_MAX = 4 << 20
"""Request bytes of one connection whose answers have not left: beyond it reading stops until half is answered."""

TURN_BYTES_MAX = 16 << 10
REQUEST_BYTES = 32
"""How much one connection gets done in one turn of the loop: so many bytes of answers, where each request counts as
so many too. About 400 operations or 30 INFO: two milliseconds. A connection that never stops asking, or has a thousand
requests in one packet, holds up the others by no more than that."""


@dataclass(frozen=True, slots=True)
class WireSettings:
    """What all connections of a frontend share."""

    parser: Limits = field(default_factory=Limits)
    output_bytes_max: int = 1 << 20  # unsent answers of one connection before reading stops
    authenticator: Authenticator | None = None
    audit: AuditLog | None = None  # of what operators change; None: that is written down nowhere


class Verb(Protocol):
    """A request's meaning. Returns the encoded answer; raises OperationError; None: the answer comes `late`."""

    def __call__(self, connection: Connection, args: list[bytes], /) -> bytes | None: ...


class Connection(asyncio.Protocol):
    """See the module. `closed` is called once, when the connection has ended."""

    # More attributes than Python keeps in an object: without slots each is looked up in a dict, 5 % of an operation.
    __slots__ = (
        "_at_end", "_backlog", "_backlog_waits", "_burst_bytes", "_closed", "_known", "_parser", "_paused_for",
        "_pending_bytes", "_sequencer", "_short_of_room", "_stall", "_stranger", "_turn_bytes_max", "_unsent",
        "_verbs", "_verbs_of_known", "_wake", "closing", "credit", "dialled", "error", "holds", "kinds", "name",
        "node", "owner", "peer", "principal", "proto", "quitting", "reject", "settings", "tasks", "transport",
    )  # fmt: skip

    def __init__(
        self,
        node: Node,
        verbs: dict[bytes, Verb],
        settings: WireSettings,
        closed: Callable[[Connection], None],
        *,
        dialled: bool = False,
        wake: Callable[[], None] | None = None,
        known: Callable[[Connection], None] | None = None,
        reject: Callable[..., object] | None = None,
    ) -> None:
        """`known`: called when it is proved who the peer is, if that must be proved. `reject(cause, **why)`: told of
        what the peer is turned away for; the log is, if it is None."""
        self.node = node
        self.settings = settings
        self.dialled = dialled
        self.owner: Owner = node.presence.attach(self)
        self.holds = self.owner.holds
        self.kinds: frozenset[int] = frozenset()  # served by the handler at the other end
        self.credit = 0
        self.proto = 3 if dialled else 2
        self.principal: Principal | None = None
        self.peer = ""
        self.name = ""  # CLIENT SETNAME
        self.transport: asyncio.Transport | None = None
        self.error: Exception | None = None  # that the connection ended with
        self.tasks: set[asyncio.Task[None]] = set()  # that answer later
        self.reject = reject or _tell
        self._stranger = None if settings.authenticator is None else Stranger()
        self._verbs = verbs if self._stranger is None else verbs_of_strangers(verbs)
        self._verbs_of_known = verbs
        self._closed = closed
        self._wake = wake
        self._parser = RequestParser(settings.parser)
        self._known = known
        self._stall: Stall | None = None
        self._backlog: list[list[bytes]] | None = None  # requests that wait for an answer that is late, or for room
        self._backlog_waits = False  # for its turn, or for room, and the answers before it are durable already
        self._turn_bytes_max = min(TURN_BYTES_MAX, settings.output_bytes_max)
        self._burst_bytes = 0  # of answers, since the backlog waited for those before it to be durable
        self._at_end: Callable[[], None] | None = None  # nothing more can come: what to do once all is answered
        self._unsent: deque[tuple[bytes, int]] = deque()  # answers, and the size of what they answer
        self._sequencer = node.sequencer
        self._pending_bytes = 0
        self._paused_for: set[str] = set()
        self._short_of_room = False  # a session waits until what was granted before it is pushed
        self.closing = False
        self.quitting = False  # QUIT: nothing that follows is read

    # -- asyncio ---------------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = stream = cast(asyncio.Transport, transport)  # uvloop's is no subclass of it
        peer = stream.get_extra_info("peername")
        self.peer = f"{peer[0]}:{peer[1]}" if isinstance(peer, tuple) else "unix"
        stream.set_write_buffer_limits(high=self.settings.output_bytes_max)
        keep_alive(stream.get_extra_info("socket"))
        if (principal := certified(self.settings.authenticator, stream, self.peer)) is not None:
            self.admit(principal)

    def admit(self, principal: Principal) -> None:
        """From here on the peer is this one."""
        self.principal = principal
        if not self.owner.digest:  # whoever has named the owner comes back for it, whoever this connection is now
            self.owner.user = principal.name
        if self._stranger is not None and not self._stranger.known:
            self._stranger.known = True
            self._verbs = self._verbs_of_known
            if self._known is not None:
                self._known(self)

    def data_received(self, data: bytes) -> None:
        if self._stranger is not None:
            self._stranger.feed(data)
            if self._backlog is None:  # else it was read before the pause, and waits for the verdict too
                self._serve_stranger(self._stranger)
            return
        try:
            requests = self._parser.feed(data)
        except FramingLost as lost:
            self._at_end = self._at_end or partial(self._give_up, lost.error)
            self._serve(lost.requests, 0)
            return
        if requests:
            self._serve(requests, len(data))

    def _serve_stranger(self, stranger: Stranger) -> None:
        while not stranger.known and not self.closing:
            try:
                request = stranger.take()
            except FramingLost as lost:
                self._at_end = self._at_end or partial(self._give_up, lost.error)
                self._serve([], 0)
                return
            if request is None:
                return
            self._serve([request], 0)
            if self._backlog is not None:  # the verdict is late
                return
        if stranger.known:
            self._stranger = None
            if rest := stranger.rest():
                self.data_received(rest)

    def eof_received(self) -> bool:
        """The client has said all that it will say, and may still read: it gets its answers, then the end."""
        self._at_end = self._at_end or self.close
        self._serve([], 0)
        return True

    def connection_lost(self, error: Exception | None) -> None:
        self.closing = True
        self._at_end = None  # it leads back here: nobody would free the two of them before the next full collection
        self.transport = None
        self.error = error
        self._unstall()
        self.kinds = frozenset()
        self.node.presence.detach(self.owner)
        self._closed(self)

    def pause_writing(self) -> None:
        self.node.limits_hit["output_bytes_max"] += 1
        self._pause("output")
        self._unstall()
        if self.transport is not None:
            self._stall = Stall(self.transport, self.peer, self.reject)

    def resume_writing(self) -> None:
        self._unstall()
        self._resume("output")
        if self._backlog_waits:
            self._serve_backlog()
        if self._wake is not None:
            self._wake()

    def _unstall(self) -> None:
        if self._stall is not None:
            self._stall.over()
            self._stall = None

    # -- requests ------------------------------------------------------------------------------------------

    def _serve(self, requests: list[list[bytes]], size: int) -> None:
        if self.closing:
            return
        if self._backlog is not None:
            self._backlog += requests
            return
        if len(requests) == 1:  # the usual case: whoever waits for each answer
            answer = self._answer(requests[0])
            if answer is None:
                self._backlog = []
            else:
                self.send(answer, size)
        elif requests:
            self._serve_pipeline(requests, size)
        if self.quitting:
            self.close()
        elif self._paused_for and "answers" in self._paused_for:
            if self._burst_bytes > self.settings.output_bytes_max:
                # A few bytes can ask for a mebibyte each: the rest waits until these answers have left.
                self.node.when_durable(self._answers_left)
            else:
                self._serve_backlog_soon()
        elif self._at_end is not None and self._backlog is None and (self._stranger is None or self._stranger.idle):
            self._at_end()

    def _serve_pipeline(self, requests: list[list[bytes]], size: int) -> None:
        out: list[bytes] = []
        room = self._turn_bytes_max
        for at, args in enumerate(requests, 1):
            answer = self._answer(args)
            if answer is None:
                self._backlog = requests[at:]
                break
            out.append(answer)
            if self.quitting:
                break
            room -= len(answer) + REQUEST_BYTES
            if room < 0 and at < len(requests):
                self._backlog = requests[at:]
                self._burst_bytes += sum(map(len, out))
                self._pause("answers")
                break
        if out:
            self.send(b"".join(out), size)

    def _answer(self, args: list[bytes]) -> bytes | None:
        """What the request is answered; None: that comes later (`go_on`)."""
        try:
            verb = self._verbs.get(args[0]) or self._verbs.get(args[0].upper())
            if verb is None:
                raise BadRequest(f"unknown command {args[0][:32]!r}; nothing was stored")
            return verb(self, args)
        except (OperationError, DataError) as error:
            return self.refusal(error)

    def refusal(self, error: OperationError | DataError) -> bytes:
        """The answer to a request that was refused. Damage ends the node, too."""
        if isinstance(error, OperationError):
            self.node.refusals[error.code] += 1
            return replies.error(error.code, str(error))
        self.node.give_up(error)
        self.quitting = True
        return replies.error("UNAVAILABLE", f"the pipe stops: {error}")

    def permit(self, verb: str, kind: int | None) -> None:
        """NoPerm unless whoever is at the other end may do that. Everybody may when no authentication is set up."""
        principal = self.principal
        if principal is not None and not principal.allows(verb, kind):
            what = verb if kind is None else f"{verb} on kind {kind}"
            name = None if kind is None else self.node.kinds[kind].name if kind in self.node.kinds else str(kind)
            unchanged = "" if verb in READ else "; nothing was stored"
            raise NoPerm(f"user {principal.name!r} may not {what}: {missing(verb, name)}{unchanged}")

    def _answers_left(self, durable: bool) -> None:
        """What was answered is with the transport; on with the rest, if there is room for it."""
        self._burst_bytes = 0
        self._serve_backlog_soon()

    def _serve_backlog_soon(self) -> None:
        """In a turn of its own: first come the others."""
        self._backlog_waits = True
        asyncio.get_running_loop().call_soon(self._serve_backlog)

    def _serve_backlog(self) -> None:
        if not self._backlog_waits or "output" in self._paused_for or self.transport is None:
            return
        self._backlog_waits = False
        backlog, self._backlog = self._backlog, None
        self._resume("answers")
        self._serve(backlog or [], 0)

    def send(self, answers: bytes, size: int = 0) -> None:
        """Let bytes go once everything staged so far is durable; `size`: bytes of the requests they answer."""
        sequencer = self._sequencer
        batch = sequencer.latest
        self._unsent.append((answers, size))
        self._pending_bytes += size
        if batch is None:
            self._release(not sequencer.failed)
            return
        batch.waiters.append(self._release)
        if self._pending_bytes > PENDING_BYTES_MAX:
            self._pause("pending")

    def _release(self, durable: bool) -> None:
        """The turn of the oldest: batches become durable in order, and so a connection's answers leave in order."""
        answers, size = self._unsent.popleft()
        self._pending_bytes -= size
        transport = self.transport
        if transport is None:
            return
        if not durable:
            transport.abort()  # no answer is the true answer: nobody knows the outcome
            return
        transport.write(answers)
        if self._paused_for and self._pending_bytes * 2 <= PENDING_BYTES_MAX:
            self._resume("pending")

    # -- late answers (see `late`) ---------------------------------------------------------------------------

    def hold_back(self) -> None:
        """A verb returns None: read nothing more until `go_on`."""
        self._pause("late answer")

    def go_on(self, answer: bytes) -> None:
        """The answer that a verb returned None for; then what had to wait for it."""
        backlog, self._backlog = self._backlog, None
        self.send(answer)
        self._resume("late answer")
        if self.quitting:
            self.close()
        if self._stranger is not None:
            self._serve_stranger(self._stranger)
        self._serve(backlog or [], 0)

    # -- endings ------------------------------------------------------------------------------------------

    def close(self) -> None:
        """Read nothing more; end once everything answered so far has left."""
        if self.closing:
            return
        self.closing = True
        self._pause("closing")
        self.node.when_durable(self._shut)

    def hang_up(self) -> None:
        """No answer is the true answer."""
        self.closing = True
        if self.transport is not None:
            self.transport.abort()

    def _give_up(self, error: OperationError) -> None:
        unquoted = _QUOTED.sub("...", str(error))  # what it said may be a piece of a record
        self.reject("connection given up", peer=self.peer, error=unquoted)
        self.send(replies.error(error.code, str(error)))
        self.close()

    def _shut(self, durable: bool) -> None:
        if self.transport is not None:
            self.transport.close()  # after its buffer has been sent
            asyncio.get_running_loop().call_later(FAREWELL_S, self.transport.abort)  # to a peer that does not read

    def _pause(self, reason: str) -> None:
        if not self._paused_for and self.transport is not None:
            self.transport.pause_reading()
        self._paused_for.add(reason)

    def _resume(self, reason: str) -> None:
        if reason in self._paused_for:
            self._paused_for.discard(reason)
            if not self._paused_for and self.transport is not None:
                self.transport.resume_reading()

    # -- as an owner's receiver: only a dialled connection is handed sessions ---------------------------

    def has_seat(self, kind: int) -> bool:
        """Would the handler at the other end take one more session of this kind?"""
        owner, transport = self.owner, self.transport
        if owner.superseded or self.closing or transport is None or "output" in self._paused_for:
            return False
        if kind not in self.kinds or owner.out >= self.credit:
            return False
        if (principal := self.principal) is not None and not principal.allows("KINDS", kind):
            return False  # whoever may not have said KINDS now, after a reload, is not sent records either
        # Granted in one turn, many large sessions would all be pushed before the transport could say that it is full.
        unpushed_bytes = owner.unpushed_bytes
        if unpushed_bytes and unpushed_bytes + transport.get_write_buffer_size() > self.settings.output_bytes_max:
            self._short_of_room = True
            return False
        return True

    def serve_kinds(self, kinds: frozenset[int], credit: int) -> None:
        """KINDS: begin to be handed sessions."""
        self.kinds = kinds
        self.credit = credit
        if self._wake is not None:
            self._wake()

    def repeat(self, handover: Handover) -> bool:
        transport = self.transport
        if transport is None or self.closing:
            return False
        hold = handover.hold
        if handover.trace:
            transport.write(replies.push([b"traced", hold.id_text, hold.epoch, handover.trace]))
        transport.write(
            replies.push(
                [
                    b"repeat",
                    hold.id_text,
                    hold.epoch,
                    hold.kind,
                    handover.attempt,
                    handover.deadline_ms,
                    handover.cause.encode(),
                    *handover.records,
                ]
            )
        )
        if self._short_of_room:
            self._short_of_room = False
            if self._wake is not None:
                self._wake()
        return True

    def lost(self, hold: Hold, cause: Cause) -> None:
        if self.dialled:
            self.send(replies.push([b"lost", hold.id_text, hold.epoch, cause.encode()]))

    def released(self, hold: Hold) -> None:
        if hold.epoch and self._wake is not None:
            self._wake()


def _tell(cause: str, **why: object) -> None:
    log.warning(cause, **why)
