"""A reader at the end of the stream. Keeps one consumer on the servers, and makes it anew whenever it may have missed
something; what it hands out follows without a hole of its own making.

nats-py's ordered consumer goes on behind messages that were dropped on the client's side; so the consumer is our own.
It is push, without acknowledgements, of one replica in memory, and gone 10 s after we are.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import Callable, Sequence

from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.aio.subscription import Subscription
from nats.errors import Error as NatsError

from truba.ports.stream import Message, StreamDown
from truba.streams.link import ApiError, Link

SILENT_HEARTBEATS = 3
RETRY_S = 0.2
INACTIVE_S = 10.0
MESSAGE = "$JS.ACK."
FLOW = "$JS.FC."


class _Consumer:
    """What one consumer has sent so far. Its callback only puts aside; `lost` says that something did not arrive."""

    def __init__(self, client: Client, generation: int, after_seq: int, bytes_max: int) -> None:
        self.client = client
        self.generation = generation
        self.name = ""
        self.subscription: Subscription | None = None
        self.lost = False
        self.alive = False  # a heartbeat has come since that was last asked
        self.wake = asyncio.Event()
        self._last_seq = after_seq
        self._received = 0  # messages, by the consumer's own count
        self._room_bytes = bytes_max
        # Messages, and between them the subjects that say to the server "we have come so far: send more".
        self._queue: deque[Message | str] = deque()

    async def receive(self, message: Msg) -> None:
        reply = message.reply
        if self.lost:
            return
        if reply.startswith(MESSAGE):
            self._put(message, reply.split("."))
        elif reply.startswith(FLOW):
            self._queue.append(reply)
        elif message.headers is not None:
            self._heartbeat(message.headers)
        self.wake.set()

    def _put(self, message: Msg, tokens: list[str]) -> None:
        # $JS.ACK.STREAM.CONSUMER.DELIVERIES.SEQ.COUNT.TIME.PENDING, or with a domain and an account before STREAM
        at = 5 if len(tokens) == 9 else 7
        seq, count = int(tokens[at]), int(tokens[at + 1])
        full = self._queue and len(message.data) > self._room_bytes  # one at a time there is room for any message
        if count != self._received + 1 or full:
            self.lost = True
            return
        self._received = count
        # A replica that lags behind may begin with what we have already. (A stream that really went back is found by
        # whoever compares its bounds.)
        if seq > self._last_seq:
            self._last_seq = seq
            self._room_bytes -= len(message.data)
            self._queue.append(Message(seq, message.data))

    def _heartbeat(self, headers: dict[str, str]) -> None:
        if int(headers.get("Nats-Last-Consumer", self._received)) != self._received:
            self.lost = True
        self.alive = True
        if stalled := headers.get("Nats-Consumer-Stalled"):  # our word to go on was lost on the way
            self._queue.append(stalled)

    def take(self) -> tuple[list[Message], list[str]]:
        """All that is queued: messages, and the subjects that ask the server for more."""
        queued, self._queue = self._queue, deque()
        self.wake.clear()
        messages = [each for each in queued if isinstance(each, Message)]
        self._room_bytes += sum(len(each.data) for each in messages)
        return messages, [each for each in queued if isinstance(each, str)]


class JetStreamTail:
    """See `ports.stream.Tail`. Nothing runs between two calls of `take` but the callback that puts messages aside."""

    def __init__(self, link: Link, after_seq: int, on_close: Callable[[JetStreamTail], None]) -> None:
        self._link = link
        self._on_close = on_close
        self._last_seq = after_seq
        self._consumer: _Consumer | None = None
        self._silence_s = SILENT_HEARTBEATS * link.settings.heartbeat_s
        self._closed = False

    async def take(self) -> Sequence[Message]:
        failed = 0
        while True:
            if self._closed:
                raise StreamDown("the tail was closed")
            consumer = self._consumer
            if consumer is None:
                try:
                    consumer = await self._make()
                except StreamDown:
                    failed += 1
                    if failed > 1:
                        await self._link.move_on()
                    await asyncio.sleep(RETRY_S)
                    continue
            # What arrived before a loss is good: it is in order, and the next consumer begins behind it.
            messages, requests = consumer.take()
            for subject in requests:
                with contextlib.suppress(NatsError, OSError):  # not sent: the next heartbeat asks again
                    await consumer.client.publish(subject)
            alive, consumer.alive = consumer.alive, False
            if messages:
                self._last_seq = messages[-1].seq
                return messages
            if consumer.lost or consumer.generation != self._link.generation:
                await self._drop()
                continue
            if alive:
                return []
            try:
                async with asyncio.timeout(self._silence_s):
                    await consumer.wake.wait()
            except TimeoutError:
                await self._drop()

    def nudge(self) -> None:
        """The connection works again: no need to wait for the silence."""
        if self._consumer is not None:
            self._consumer.wake.set()

    async def close(self) -> None:
        self._closed = True
        self._on_close(self)
        self.nudge()
        await self._drop()

    async def _make(self) -> _Consumer:
        settings, client = self._link.settings, self._link.client
        consumer = _Consumer(client, self._link.generation, self._last_seq, settings.tail_bytes_max)
        subject = client.new_inbox()
        try:
            consumer.subscription = await client.subscribe(subject, cb=consumer.receive)
        except (NatsError, OSError) as error:
            raise StreamDown(f"subscribe: {error}") from error
        self._consumer = consumer  # from here on `_drop` gives everything back, also when this is cancelled
        config = {
            "deliver_subject": subject,
            "deliver_policy": "by_start_sequence",
            "opt_start_seq": self._last_seq + 1,
            "ack_policy": "none",
            "replay_policy": "instant",
            "mem_storage": True,
            "num_replicas": 1,
            "flow_control": True,
            "idle_heartbeat": int(settings.heartbeat_s * 1e9),
            "inactive_threshold": int(INACTIVE_S * 1e9),
        }
        try:
            answer = await self._link.ask(
                f"CONSUMER.CREATE.{settings.stream}", {"stream_name": settings.stream, "config": config}
            )
        except ApiError as error:
            await self._drop()
            raise StreamDown(f"consumer: {error}") from error
        except BaseException:
            await self._drop()
            raise
        consumer.name = answer["name"]
        return consumer

    async def _drop(self) -> None:
        """Let the consumer go. If the servers do not hear of it, they drop it when nobody has listened for a while."""
        consumer, self._consumer = self._consumer, None
        if consumer is None or consumer.subscription is None:
            return
        with contextlib.suppress(NatsError, OSError):
            await consumer.subscription.unsubscribe()
            if consumer.name:
                settings = self._link.settings
                nobody = f"{settings.inbox}.nobody"  # a request needs a place for its answer
                await consumer.client.publish(
                    f"$JS.API.CONSUMER.DELETE.{settings.stream}.{consumer.name}", reply=nobody
                )
