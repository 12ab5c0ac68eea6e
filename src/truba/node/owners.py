"""Who may write: owners, the sessions they hold, and how long a hold lasts without a sign of life.

An *owner* is one connection, one in-process client, or one in-process handler. A *hold* is one owner's right to write
to one session at one epoch. This is the node's own memory, not replicated state: after a restart it is rebuilt from
the machine's owned sessions, whose events name the owner's digest.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from heapq import heappop, heappush
from typing import Literal, NoReturn, Protocol

import msgspec

from truba.errors import BadRequest, Closed, Fenced, NoSession
from truba.types import Cause, Index

ENDED_KEPT = 128
"""Ended holds that an owner remembers, to tell CLOSED from FENCED; older ones are answered by the machine alone. There
may be a hundred thousand owners, and this is the most of what an idle one takes: 20 KB."""

SUSPECT_MAX = 65_536
"""Sessions taken from an owner that it may be handed again; beyond that it must name the epoch for every one."""


class Handover(msgspec.Struct, frozen=True, eq=False):
    """A session on its way to a handler; its Repeated is durable."""

    hold: Hold
    attempt: int
    deadline_ms: int  # how long the handler may go without a sign of life
    cause: Cause
    records: list[bytes]
    trace: bytes  # context that the session's client gave at New; empty: none


class Receiver(Protocol):
    """What an owner hears of its holds. Called on the loop; must not block."""

    def repeat(self, handover: Handover) -> bool:
        """Take an unfinished session. False: it could not be reached."""

    def lost(self, hold: Hold, cause: Cause) -> None:
        """The pipe has taken the session away."""

    def released(self, hold: Hold) -> None:
        """The hold has ended, in whatever way."""


class Link:
    """A place in a ring: whoever leaves it forgets its neighbours (`NOWHERE`), so that it does not keep them."""

    __slots__ = ("earlier", "later")

    earlier: Link
    later: Link


NOWHERE = Link()


class Hold(Link):
    """One owner's right to write to one session at one epoch."""

    __slots__ = (
        "ended",
        "epoch",
        "id",
        "id_text",
        "kind",
        "lane",
        "lease",
        "number",
        "owner",
        "pushed",
        "since_ms",
        "strict",
        "tag",
        "touched_ms",
    )

    def __init__(self, index: Index, kind: int, epoch: int, owner: Owner, tag: int = -1) -> None:
        self.id = index
        self.id_text = b"%d-%d" % index
        self.number = index.seq
        self.kind = kind
        self.epoch = epoch
        self.owner = owner
        self.tag = tag
        self.ended: Literal["", "closed", "taken"] = ""
        self.pushed = False  # handed over: the handler has been told
        self.strict = False  # an id without epoch is ambiguous on this connection
        self.touched_ms = 0  # steady clock
        self.lease: Lease | None = None
        self.since_ms: int  # handed over: when, by the steady clock; set by the dispatcher
        self.lane: Lane | None = None  # handed over: the dispatcher's lane that counts it

    def check(self) -> None:
        """Raises what an operation on an ended hold is answered."""
        if self.ended:
            refuse_ended(str(self.id), self.ended)


def refuse_ended(index: str, how: Literal["closed", "taken"]) -> NoReturn:
    if how == "closed":
        raise Closed(f"you have deleted, stored or given back session {index}; nothing was stored")
    raise Fenced(f"session {index} was taken away from you; nothing was stored")


class Lane(Protocol):
    """Counts the sessions of one kind that handlers work on (see dispatcher)."""

    def moved(self, hold: Hold, to: Hold) -> None: ...

    def left(self, hold: Hold, cause: Cause | None, detail: str) -> None:
        """The hold has ended; `cause` None: its handler deleted or stored the session."""


class Owner:
    """One connection's, client's or handler's holds."""

    __slots__ = (
        "away_cause",
        "digest",
        "ended",
        "grace_ms",
        "holds",
        "out",
        "receiver",
        "superseded",
        "suspect",
        "tags",
        "taking",
        "unpushed_bytes",
        "user",
    )

    def __init__(self, receiver: Receiver | None = None) -> None:
        self.receiver = receiver
        self.digest = b""  # of its token; empty: it cannot come back
        self.grace_ms = 0
        self.user = ""
        self.holds: dict[bytes, Hold] = {}  # by id as printed
        self.out = 0  # of these, how many were handed over
        self.unpushed_bytes = 0  # of records granted to it whose push is still to come
        self.tags: dict[int, Hold] = {}
        self.ended: dict[bytes, Literal["closed", "taken"]] = {}  # the last ones, oldest first
        self.suspect: set[bytes] = set()  # taken from this owner by lateness: its old task may still write
        self.away_cause = Cause.LOST
        self.superseded = False  # a newer connection has named the same owner
        self.taking: list[Owner] = []  # superseded ones whose holds become this one's, slice by slice

    def find(self, id_text: bytes) -> Hold:
        """The open hold that a request means by `3-117` or `3-117@2`. NoSession, Fenced, Closed, BadRequest."""
        hold = self.holds.get(id_text)
        if hold is not None and not hold.strict and not self.superseded:
            return hold
        return self._find(id_text)

    def _find(self, id_text: bytes) -> Hold:
        plain, at, epoch_text = id_text.partition(b"@")
        try:
            index = Index.parse(plain)
            epoch = int(epoch_text) if at else -1
            if at and (epoch < 0 or b"%d" % epoch != epoch_text):
                raise ValueError("not as it is printed")
        except ValueError:
            raise BadRequest(
                f"not an id: {id_text[:64]!r}; ids look like 3-117 or 3-117@2; nothing was stored"
            ) from None
        hold = self.holds.get(plain)
        if hold is not None:
            if self.superseded:
                refuse_ended(str(index), "taken")
            if not at and hold.strict:
                raise Fenced(
                    f"session {index} was taken from this connection and handed to it again: say which hand-over"
                    f" you mean, {index}@{hold.epoch} is the present one; nothing was stored"
                )
            if not at or hold.epoch == epoch:
                return hold
            raise Fenced(f"session {index} is at epoch {hold.epoch}, not {epoch}; nothing was stored")
        ended = self.ended.get(plain)
        if ended is not None:
            refuse_ended(str(index), ended)
        raise NoSession(f"this connection holds no session {index}; nothing was stored")

    def slices(self, size: int) -> Iterator[list[Hold]]:
        """All holds as they are now, `size` at a time; some may have ended when they are asked for.

        Copied as a whole: whoever begins with a dictionary again and again passes each time over all that is gone from
        its front.
        """
        left = list(self.holds.values())
        left.reverse()
        return _from_end(left, size)

    def refuse_superseded(self) -> None:
        """Fenced when a newer connection has named the same owner."""
        if self.superseded:
            raise Fenced("a newer connection has taken over this owner; nothing was stored")

    def take_up(self, hold: Hold) -> None:
        """Begin a hold."""
        hold.owner = self
        id_text = hold.id_text
        self.holds[id_text] = hold
        if hold.tag >= 0:
            self.tags[hold.tag] = hold
        if hold.epoch:
            self.out += 1
        if self.suspect:
            hold.strict = id_text in self.suspect or len(self.suspect) >= SUSPECT_MAX

    def let_go(self, hold: Hold, how: Literal["closed", "taken"]) -> None:
        """End a hold; what it was is remembered for a while."""
        hold.ended = how
        id_text = hold.id_text
        del self.holds[id_text]
        if hold.tag >= 0:
            self.tags.pop(hold.tag, None)
        if hold.epoch:
            self.out -= 1
        ended = self.ended
        ended[id_text] = how
        if len(ended) > ENDED_KEPT:
            del ended[next(iter(ended))]
        if how == "taken" and len(self.suspect) < SUSPECT_MAX:
            self.suspect.add(id_text)


def _from_end(left: list[Hold], size: int) -> Iterator[list[Hold]]:
    """What was given out is let go of: a million at once would take a tenth of a second."""
    while left:
        part = left[: -size - 1 : -1]
        del left[-size:]
        yield part


class Lease(Link):
    """Holds with the same limit, the longest without a sign of life first: a ring that begins and ends here.

    The links are in the holds: a dictionary in this order is laid out anew once so many have come, and with a million
    holds everybody waits 60 ms for that.
    """

    __slots__ = ()

    def __init__(self) -> None:
        self.earlier = self.later = self

    @property
    def first(self) -> Hold | None:
        first = self.later
        return first if isinstance(first, Hold) else None


class Leases:
    """How long each hold may last without a sign of life. All times are of the steady clock, in milliseconds."""

    def __init__(self) -> None:
        self._leases: dict[int, Lease] = {}

    def begin(self, hold: Hold, limit_ms: int, now_ms: int) -> None:
        lease = self._leases.get(limit_ms)
        if lease is None:
            lease = self._leases[limit_ms] = Lease()
        hold.lease = lease
        hold.touched_ms = now_ms
        hold.earlier = last = lease.earlier
        hold.later = lease
        last.later = lease.earlier = hold

    @staticmethod
    def renew(hold: Hold, now_ms: int) -> None:
        if hold.touched_ms == now_ms:
            return  # no order is lost: those behind it are not younger
        hold.touched_ms = now_ms
        lease = hold.lease
        if lease is not None and (later := hold.later) is not lease:
            hold.earlier.later = later
            later.earlier = hold.earlier
            hold.earlier = last = lease.earlier
            hold.later = lease
            last.later = lease.earlier = hold

    @staticmethod
    def end(hold: Hold) -> None:
        if hold.lease is not None:
            hold.lease = None
            hold.earlier.later = hold.later
            hold.later.earlier = hold.earlier
            hold.earlier = hold.later = NOWHERE

    def expired(self, now_ms: int) -> Iterator[Hold]:
        """Holds over their limit; each is ended by this."""
        for limit_ms, lease in self._leases.items():
            while (hold := lease.first) is not None and hold.touched_ms + limit_ms <= now_ms:
                self.end(hold)
                yield hold

    def next_ms(self) -> int | None:
        """When the next hold is over its limit, if nothing is heard of it."""
        next_ms: int | None = None
        for limit_ms, lease in list(self._leases.items()):
            first = lease.first
            if first is None:
                del self._leases[limit_ms]  # a limit may be a grace, and each client chooses its own
                del lease.earlier, lease.later  # itself: only the collector would free it
            elif next_ms is None or first.touched_ms + limit_ms < next_ms:
                next_ms = first.touched_ms + limit_ms
        return next_ms


class Away:
    """Owners whose connection broke, waiting for the same token to come back within their grace. Steady clock, ms."""

    def __init__(self) -> None:
        self._owners: dict[bytes, tuple[Owner, int]] = {}
        self._ends: list[tuple[int, bytes]] = []  # a heap; entries of owners that came back are passed over

    def leave(self, owner: Owner, now_ms: int) -> None:
        until_ms = now_ms + owner.grace_ms
        self._owners[owner.digest] = (owner, until_ms)
        heappush(self._ends, (until_ms, owner.digest))

    def get(self, digest: bytes) -> Owner | None:
        found = self._owners.get(digest)
        return found[0] if found else None

    def forget(self, digest: bytes) -> None:
        """It came back."""
        self._owners.pop(digest, None)

    def expired(self, now_ms: int) -> Iterator[Owner]:
        """Owners that did not come back in time; each is forgotten by this."""
        while (end_ms := self.next_ms()) is not None and end_ms <= now_ms:
            _, digest = heappop(self._ends)
            yield self._owners.pop(digest)[0]

    def next_ms(self) -> int | None:
        """When the next owner's grace ends."""
        while self._ends:
            until_ms, digest = self._ends[0]
            found = self._owners.get(digest)
            if found is not None and found[1] == until_ms:
                return until_ms
            heappop(self._ends)
        return None

    def __contains__(self, owner: Owner) -> bool:
        found = self._owners.get(owner.digest)
        return found is not None and found[0] is owner

    def __len__(self) -> int:
        return len(self._owners)


def token_digest(token: bytes) -> bytes:
    """What is kept of an owner's token: 16 bytes, so that neither log nor store hold the secret."""
    return hashlib.blake2b(token, digest_size=16, person=b"truba owner").digest()
