"""The stream: a replicated sequence of messages that another engine keeps, and all nodes of a cluster read.

Adapters: `truba.streams.memory`, `truba.streams.jetstream`. The suite that every adapter must pass is
`truba.testing.stream`. A stream knows nothing of entries, terms or chains; what its messages mean is judged by
`truba.cluster.rule`, by every reader for itself.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from truba.errors import TrubaError


class Message(NamedTuple):
    """A stored message. `seq` counts all messages from 1; a number is never given twice."""

    seq: int
    data: bytes


@dataclass(frozen=True, slots=True)
class Stored:
    """A quorum has the message on stable storage, as number `seq`."""

    seq: int


@dataclass(frozen=True, slots=True)
class Rejected:
    """Whoever answered says that the stream does not end with the expected number. It may be out of date."""

    reason: str


@dataclass(frozen=True, slots=True)
class Unsure:
    """No answer in time, or one that tells nothing: the message may be stored, now or later."""

    reason: str


Outcome = Stored | Rejected | Unsure


class Bounds(NamedTuple):
    """Numbers of the first and the last message. Empty: `first` is `last + 1`."""

    first: int
    last: int
    bytes: int  # as the engine counts them


class StreamDown(TrubaError):
    """The stream cannot be reached, or has no leader just now: try again later.

    `cut_off`: no server of the engine can be reached from here, which tells nothing of the others.
    """

    def __init__(self, text: str, *, cut_off: bool = False) -> None:
        super().__init__(text)
        self.cut_off = cut_off


class StreamGone(TrubaError):
    """There is no such stream (any more), says the engine itself."""


class Tail(Protocol):
    """A reader that stays at the end of the stream."""

    async def take(self) -> Sequence[Message]:
        """The next messages, at least one, in order; or none: nothing new, but the stream has just proved to be up.

        A jump in the numbers is a hole in the stream itself, never one of the reader's making. While the stream is
        down it waits, and goes on where it was. Given up (cancelled), it loses nothing. StreamGone; StreamDown: the
        tail was closed.
        """

    async def close(self) -> None:
        """Whoever waits in `take`, or calls it later, hears StreamDown."""


class Stream(Protocol):
    """All calls come on the loop's thread."""

    def publish(self, data: bytes, expected: int | None, done: Callable[[Outcome], None]) -> None:
        """Have the message stored, if the last number of the stream is then `expected` (None: whatever it is).

        Returns at once. `done` is called exactly once, on the loop, not before this returns, and after
        `publish_timeout_s` at the latest. Messages leave in the order of the calls and may arrive in any.
        """

    async def get(self, seq: int) -> Message | None:
        """The message with that number, as the stream's leader has it; None when it has none. May be out of date.

        StreamDown, StreamGone.
        """

    async def bounds(self) -> Bounds:
        """As the stream's leader has them; may be out of date. StreamDown, StreamGone."""

    def tail(self, after_seq: int) -> Tail:
        """Begin to read what follows `after_seq`, or what is kept of it. Proofs of life come each half second or so."""

    async def trim(self, before_seq: int) -> None:
        """Drop messages before that number, for good. At least the last one stays. StreamDown, StreamGone."""

    async def close(self) -> None: ...
