"""Publishing: messages out, in order, and what became of each. Its own inbox, its own numbers, its own timeouts.

nats-py's `publish_async` never resolves when the server rejects the expected number; and a task and a future for each
message would cost more than the message. Here one subscription takes all answers, and one timer ends what got none.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import Callable

import msgspec
from nats.aio.client import Client
from nats.aio.msg import Msg

from truba.ports.stream import Outcome, Rejected, Stored, Unsure
from truba.streams.link import Link

EXPECTED = "Nats-Expected-Last-Sequence"
WRONG_LAST_SEQUENCE = frozenset((10071, 10164))
HEADER_BYTES = 64  # of a message with an expected number, rounded up; the servers count it to the message


class _Error(msgspec.Struct):
    err_code: int = 0
    description: str = ""


class _Answer(msgspec.Struct):
    seq: int = 0
    error: _Error | None = None


_decode = msgspec.json.Decoder(_Answer).decode


class Publisher:
    """All methods come on the loop's thread. Gives each message exactly one outcome."""

    def __init__(self, link: Link) -> None:
        self._link = link
        self._loop = asyncio.get_running_loop()
        self._subject = link.settings.subject
        self._timeout_s = link.settings.publish_timeout_s
        self._inbox = ""
        self._number = 0
        # By number, and so by deadline as well: all wait equally long.
        self._waiting: dict[str, tuple[float, Callable[[Outcome], None]]] = {}
        self._outbox: deque[tuple[str, bytes, int | None]] = deque()
        self._filled = asyncio.Event()
        self._timer: asyncio.TimerHandle | None = None
        self._closed = False
        self._writer = self._loop.create_task(self._write())

    async def listen(self, client: Client) -> None:
        """Take answers from this client."""
        self._inbox = client.new_inbox()
        await client.subscribe(f"{self._inbox}.*", cb=self._answered)

    def publish(self, data: bytes, expected: int | None, done: Callable[[Outcome], None]) -> None:
        """See `ports.stream`. ValueError: the servers take no message of that size."""
        if self._closed:
            self._loop.call_soon(done, Unsure("the stream was closed"))
            return
        if self._link.up and len(data) + HEADER_BYTES > self._link.client.max_payload:
            limit = self._link.client.max_payload
            raise ValueError(f"a message of {len(data)} bytes is over the NATS servers' max_payload of {limit}")
        self._number += 1
        number = str(self._number)
        deadline_s = self._loop.time() + self._timeout_s
        self._waiting[number] = deadline_s, done
        self._outbox.append((number, data, expected))
        self._filled.set()
        if self._timer is None:
            self._timer = self._loop.call_at(deadline_s, self._expire)

    def give_up(self, reason: str) -> None:
        """The connection is gone, and with it all answers."""
        self._outbox.clear()
        for number in list(self._waiting):
            self._end(number, Unsure(reason))

    async def close(self) -> None:
        self._closed = True
        self._writer.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await self._writer
        if self._timer is not None:
            self._timer.cancel()
        self.give_up("the stream was closed")

    async def _write(self) -> None:
        """Hand all that has gathered to nats-py, which sends it with one write.

        What nats-py holds in the moment that the connection breaks it sends after the reconnect. That is why such a
        message is Unsure, not lost; the expected number then mostly turns it away.
        """
        while True:
            await self._filled.wait()
            self._filled.clear()
            while self._outbox:
                number, data, expected = self._outbox.popleft()
                headers = None if expected is None else {EXPECTED: str(expected)}
                try:
                    await self._link.client.publish(self._subject, data, f"{self._inbox}.{number}", headers)
                except Exception as error:  # disconnected, closed: whatever it is, no answer will come
                    self._end(number, Unsure(str(error) or type(error).__name__))

    async def _answered(self, message: Msg) -> None:
        number = message.subject[len(self._inbox) + 1 :]
        self._end(number, _outcome(message))

    def _end(self, number: str, outcome: Outcome) -> None:
        _, done = self._waiting.pop(number, (0.0, None))
        if done is None:
            return  # its time had run out
        try:
            done(outcome)
        except Exception as error:  # nats-py would swallow it
            self._loop.call_exception_handler({"message": "a publish's done failed", "exception": error})

    def _expire(self) -> None:
        self._timer = None
        now_s = self._loop.time()
        late = []
        for number, (deadline_s, _) in self._waiting.items():
            if deadline_s > now_s:
                self._timer = self._loop.call_at(deadline_s, self._expire)
                break
            late.append(number)
        for number in late:
            self._end(number, Unsure(f"no answer within {self._timeout_s} s"))


def _outcome(message: Msg) -> Outcome:
    if not message.data:  # a status: 503 when no server takes the subject just now
        status = (message.headers or {}).get("Status", "no content")
        return Unsure(f"no stream took it ({status})")
    try:
        answer = _decode(message.data)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        return Unsure(f"the answer makes no sense: {error}")
    match answer:
        case _Answer(error=_Error(err_code=code, description=text)):
            return Rejected(text) if code in WRONG_LAST_SEQUENCE else Unsure(f"{text} ({code})")
        case _Answer(seq=0):
            return Unsure("the answer has no number")
        case _Answer(seq=seq):
            return Stored(seq)
