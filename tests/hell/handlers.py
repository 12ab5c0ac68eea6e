"""Handler services, one worse than the other, as protocols: the pipe is at the other end. All chance is handed in.

A service is made for each connection; what outlives connections is in its `Record`, which also judges what the pipe
does: no session is handed over twice at one epoch, early, or with other records than were written.
"""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, cast

import hiredis

from truba.client.answers import NOT_A_PIPE, Answers
from truba.client.requests import encode

Id = bytes


@dataclass(eq=False)
class Record:
    """What the handler service of one kind has seen, in all its connections and in health too."""

    kind: int
    dice: random.Random
    now_ms: Callable[[], int]
    credit: int = 8
    handed_over: list[tuple[Id, int, int]] = field(default_factory=list)  # id, epoch, when
    epochs: dict[Id, int] = field(default_factory=dict)
    attempts: Counter[Id] = field(default_factory=Counter)
    finished: dict[Id, int] = field(default_factory=dict)  # id -> when its Delete was acknowledged
    written: dict[Id, list[bytes]] = field(default_factory=dict)  # its records, as far as they are known
    heard_ms: dict[Id, int] = field(default_factory=dict)  # the last sign of life about a session that was acknowledged
    refused: Counter[bytes] = field(default_factory=Counter)

    def take(self, id_text: Id, epoch: int, attempt: int, records: list[bytes]) -> None:
        before = self.epochs.get(id_text, 0)
        assert epoch > before, f"{id_text!r} is handed over at epoch {epoch}, after {before}"
        assert id_text not in self.finished, f"{id_text!r} was deleted, and comes again"
        expected = self.written[id_text]
        assert records[: len(expected)] == expected, f"{id_text!r} comes with {records}, not with {expected}"
        assert attempt > self.attempts[id_text] or before == 0 or attempt == 1, "an attempt that was counted before"
        self.epochs[id_text] = epoch
        self.attempts[id_text] = attempt
        self.handed_over.append((id_text, epoch, self.now_ms()))


class Service(asyncio.Protocol):
    """A good one: says KINDS, and for each session appends a record, and deletes it. The bad ones differ in a step."""

    def __init__(self, record: Record) -> None:
        self.record = record
        self.dice = record.dice
        self.loop = asyncio.get_running_loop()
        self.answers = Answers()
        self.waiting: list[tuple[bytes, Id, int]] = []  # of requests sent: verb, id, epoch
        self.transport: asyncio.Transport
        self.connected = False  # accepted is not yet connected: that comes with a later turn of the loop
        self.up = True

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)
        self.connected = True
        if self.up:
            self.greet()
        else:
            self.transport.abort()

    def hang_up(self) -> None:
        self.up = False
        if self.connected:
            self.transport.abort()

    def connection_lost(self, error: Exception | None) -> None:
        self.up = False

    def data_received(self, data: bytes) -> None:
        try:
            for message in self.answers.read(data):
                self.hear(message)
        except NOT_A_PIPE as error:
            raise AssertionError(f"what the pipe says is not its protocol: {data!r}") from error

    def hear(self, message: Any) -> None:
        if not isinstance(message, hiredis.PushNotification):
            self.answered(message)
            return
        match message:
            case [b"repeat", id_text, epoch, kind, attempt, _, _, *records]:
                assert kind == self.record.kind
                self.record.take(id_text, epoch, attempt, records)
                self.work(id_text, epoch, attempt)
            case [b"hello", b"truba", b"1", _] | [b"lost", _, _, _]:
                pass
            case _:
                raise AssertionError(f"a push that no pipe sends: {message}")

    def answered(self, message: Any) -> None:
        verb, id_text, epoch = self.waiting.pop(0)
        if isinstance(message, hiredis.ReplyError):
            self.record.refused[str(message).partition(" ")[0].encode()] += 1
            return
        self.record.heard_ms[id_text] = self.record.now_ms()
        if verb == b"DELETE":
            assert self.record.epochs[id_text] == epoch, f"a stale handler has deleted {id_text!r}"
            self.record.finished[id_text] = self.record.now_ms()
        elif verb in (b"APPEND", b"REPLACE"):
            assert self.record.epochs[id_text] == epoch, f"a stale handler has written to {id_text!r}"

    def ask(self, verb: bytes, *args: bytes, about: Id = b"", epoch: int = 0) -> None:
        if self.up:
            self.waiting.append((verb, about, epoch))
            self.say(encode(verb, *args))

    def say(self, data: bytes) -> None:
        if self.up:
            self.transport.write(data)

    def later(self, delay_s: float, act: Callable[..., None], *args: Any) -> None:
        self.loop.call_later(delay_s, lambda: act(*args) if self.up else None)

    # -- what the bad ones do otherwise

    def greet(self) -> None:
        self.ask(b"KINDS", b"%d" % self.record.kind, b"CREDIT", b"%d" % self.record.credit)

    def work(self, id_text: Id, epoch: int, attempt: int) -> None:
        self.finish(id_text, epoch)

    def finish(self, id_text: Id, epoch: int) -> None:
        ref = b"%b@%d" % (id_text, epoch)
        self.ask(b"APPEND", ref, b"done", about=id_text, epoch=epoch)
        self.ask(b"DELETE", ref, about=id_text, epoch=epoch)

    def die(self) -> None:
        if self.up:
            self.up = False
            if self.dice.random() < 0.5:
                self.transport.abort()
            else:
                self.transport.close()


class Resets(Service):
    """Accepts, and closes at once."""

    def greet(self) -> None:
        self.die()


class Silent(Service):
    """Accepts, and never says a word."""

    def greet(self) -> None:
        pass


class Dripping(Service):
    """All that it says comes one byte a second."""

    def greet(self) -> None:
        self._drops = bytearray()
        super().greet()
        self._drip()

    def say(self, data: bytes) -> None:
        self._drops += data

    def _drip(self) -> None:
        if self._drops:
            super().say(bytes(self._drops[:1]))
            del self._drops[:1]
        self.later(1.0, self._drip)


class Babbling(Service):
    """Noise, at once or behind its KINDS."""

    def greet(self) -> None:
        if self.dice.random() < 0.5:
            super().greet()
        self.say(
            self.dice.choice(
                (self.dice.randbytes(300), b"HTTP/1.1 400 Bad Request\r\n\r\n", b"\x16\x03\x01", b"+OK\r\n")
            )
        )

    def answered(self, message: Any) -> None:
        pass  # to what, nobody knows

    def work(self, id_text: Id, epoch: int, attempt: int) -> None:
        pass


class Boasting(Babbling):
    """Promises more than anybody could hold."""

    def greet(self) -> None:
        if self.dice.random() < 0.5:
            super(Babbling, self).greet()
        self.say(
            self.dice.choice(
                (
                    b"*4000000000\r\n",
                    b"$4000000000\r\n",
                    b"*65536\r\n" * 100,
                    b"*2\r\n$5\r\nKINDS\r\n$60000\r\n",
                    b"*3\r\n$1\r\n",
                )
            )
        )


class DiesEarly(Service):
    """Says KINDS, and dies before anything is handed to it, or as soon as something is."""

    def greet(self) -> None:
        super().greet()
        if self.dice.random() < 0.3:
            self.die()

    def work(self, id_text: Id, epoch: int, attempt: int) -> None:
        self.die()


class DiesLate(Service):
    """Dies behind the first of its requests, whose answer it may still hear."""

    def work(self, id_text: Id, epoch: int, attempt: int) -> None:
        self.ask(b"APPEND", b"%b@%d" % (id_text, epoch), b"half", about=id_text, epoch=epoch)
        if self.dice.random() < 0.5:
            self.later(self.dice.random() * 0.01, self.die)


class Deaf(Service):
    """Takes sessions and reads nothing more."""

    def greet(self) -> None:
        super().greet()
        self.later(self.dice.random(), self.stop)

    def stop(self) -> None:
        self.transport.pause_reading()

    def work(self, id_text: Id, epoch: int, attempt: int) -> None:
        pass


class Idle(Service):
    """Takes sessions and does nothing with them."""

    def work(self, id_text: Id, epoch: int, attempt: int) -> None:
        pass


class Late(Service):
    """Finishes each session after its time is over, and is told so."""

    late_s = 4.0

    def work(self, id_text: Id, epoch: int, attempt: int) -> None:
        self.later(self.late_s * (0.6 + self.dice.random()), self.finish, id_text, epoch)


class Failing(Service):
    """Gives every session back."""

    def work(self, id_text: Id, epoch: int, attempt: int) -> None:
        self.ask(b"FAIL", b"%b@%d" % (id_text, epoch), b"no", about=id_text, epoch=epoch)


class Lying(Service):
    """Writes to sessions that are not its own, at epochs that were never, and changes its KINDS all the time."""

    def work(self, id_text: Id, epoch: int, attempt: int) -> None:
        for ref in (b"%b@%d" % (id_text, epoch + 1), b"1-99999@1", b"nonsense", id_text + b"@"):
            self.ask(self.dice.choice((b"DELETE", b"FAIL", b"TOUCH")), ref, about=b"nobody's", epoch=-1)
        self.record.credit = max(self.record.credit, 3)
        self.ask(b"KINDS", b"%d" % self.record.kind, b"CREDIT", b"%d" % self.dice.randrange(4))
        if self.dice.random() < 0.3:
            self.later(1.0, super().greet)

    def answered(self, message: Any) -> None:
        _, id_text, _ = self.waiting[0]
        assert id_text != b"nobody's" or isinstance(message, hiredis.ReplyError), "it was let at what is not its own"
        super().answered(message)


class Chattering(Idle):
    """Asks without end, and never listens to the answers."""

    def greet(self) -> None:
        super().greet()
        self.later(0.5, self.transport.pause_reading)
        self.later(0.6, self.chatter)

    def chatter(self) -> None:
        if self.transport.get_write_buffer_size() < 1 << 20:
            self.say(encode(b"INFO") * 200)
        self.later(0.2, self.chatter)


BAD: tuple[type[Service], ...] = (
    Resets, Silent, Dripping, Babbling, Boasting, DiesEarly, DiesLate, Deaf, Idle, Late, Failing, Lying, Chattering,
)  # fmt: skip
