"""One connection to a pipe: bytes in, answers out, in order. It knows nothing of sessions and never dials."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from typing import Any, cast

import hiredis

from truba.client.answers import MESSAGE_BYTES_MAX, NOT_A_PIPE, Answers
from truba.client.requests import encode, error_of
from truba.tls import HandshakeFailed

EARLY_MAX = 4
"""Answers that nobody has waited for yet. One question is asked at a time, and a pipe that is full says so unasked."""

HELD_BYTES_MAX = 4 << 30
"""Of the list of all that an owner holds, as `Answers` reckons: ten million sessions, at less than each takes here."""


class Link(asyncio.Protocol):
    """`handshake` first; then `go_live`, and each answer goes to one function.

    `answered` returns False to have the connection given up; `gone` is called once, when it has ended.
    """

    def __init__(self) -> None:
        self._answers = Answers()
        self._early: deque[Any] = deque()  # answers that came before anybody waited for them
        self._greeting: asyncio.Future[Any] | None = None
        self._answered: Callable[[Any], bool] | None = None
        self._heard: Callable[[], None] | None = None  # something of an answer has come
        self._gone: Callable[[], None] | None = None
        self.transport: asyncio.Transport
        self.lost = False
        self._error: Exception | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)  # uvloop's is no subclass of it

    def data_received(self, data: bytes) -> None:
        answered = self._answered or self._came_early
        try:
            for reply in self._answers.read(data):
                if not answered(reply):
                    self.transport.abort()
                    return
        except NOT_A_PIPE:
            self.transport.abort()  # what is under way is settled after reconnecting
        if self._heard is not None:
            self._heard()

    def _came_early(self, reply: Any) -> bool:
        self._early.append(reply)
        self._wake()
        return len(self._early) <= EARLY_MAX

    def connection_lost(self, error: Exception | None) -> None:
        self.lost = True
        self._error = error
        self._answered = None
        self._wake()
        if self._gone is not None:
            self._gone()

    async def handshake(self, *request: bytes) -> Any:
        """Ask, and wait. OperationError: refused; ConnectionResetError: no answer."""
        self.transport.write(encode(*request))
        while not self._early:
            if self.lost:
                if isinstance(self._error, HandshakeFailed):  # in TLS 1.3 a refused client hears of it only now
                    raise self._error
                raise ConnectionResetError("the connection was closed before it was answered; is this a pipe?")
            self._greeting = asyncio.get_running_loop().create_future()
            await self._greeting
        reply = self._early.popleft()
        if isinstance(reply, hiredis.ReplyError):
            raise error_of(str(reply))
        return reply

    async def handshake_long(self, *request: bytes, heard: Callable[[], None]) -> Any:
        """The same, where the answer may be as long as all that we hold: `heard` is called whenever more of it came."""
        self._answers.bytes_max, self._heard = HELD_BYTES_MAX, heard
        try:
            return await self.handshake(*request)
        finally:
            self._answers.bytes_max, self._heard = MESSAGE_BYTES_MAX, None

    def go_live(self, answered: Callable[[Any], bool], gone: Callable[[], None]) -> None:
        """The handshake is over."""
        self._answered, self._gone = answered, gone
        if self.lost:
            gone()

    def _wake(self) -> None:
        if self._greeting is not None and not self._greeting.done():
            self._greeting.set_result(None)
