"""A network in memory and in jumping time: what `create_connection` dials are protocols of this process.

Each direction of a connection is a queue of bytes with a delay of its own, so answers and pushes cross as they do on a
real one; a side that does not read fills its peer's buffer. All chance comes from one seed.
"""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import Callable
from typing import Any

from truba.testing.jump import JumpClock, JumpLoop

WINDOW_BYTES = 64 << 10
"""What is under way to a side that does not read, beyond what its peer keeps: as in the kernel's buffers."""

DELAY_S = 0.002

Make = Callable[[], asyncio.Protocol]


class Net:
    """Who listens where. `dials` and `up` are counted by address; `peak` is the most that were up at once."""

    def __init__(self, seed: int) -> None:
        self.dice = random.Random(seed)
        self.places: dict[tuple[str, int], Make | None] = {}  # None: packets are lost on the way there
        self.dials: Counter[tuple[str, int]] = Counter()
        self.up: Counter[tuple[str, int]] = Counter()
        self.peak: Counter[tuple[str, int]] = Counter()
        self.ends: set[End] = set()

    def piece(self, size: int) -> int:
        """How much of so many bytes comes at once."""
        return size if self.dice.random() < 0.5 else self.dice.randrange(1, size + 1)

    def cut(self) -> None:
        """Every connection breaks."""
        for end in list(self.ends):
            end.abort()


class NetLoop(JumpLoop):
    """A loop in jumping time whose connections go through a Net."""

    def __init__(self, clock: JumpClock, net: Net) -> None:
        super().__init__(clock)
        self.net = net

    async def create_connection(  # type: ignore[override] # the one form that is used here
        self, make: Make, host: str, port: int, **options: object
    ) -> tuple[asyncio.Transport, asyncio.Protocol]:
        place = (host, port)
        self.net.dials[place] += 1
        await asyncio.sleep(DELAY_S)
        if place not in self.net.places:
            raise ConnectionRefusedError(111, "Connection refused")
        serve = self.net.places[place]
        if serve is None:
            await asyncio.sleep(1e6)
            raise TimeoutError
        near, far = End(self, place, 1), End(self, place, 2)
        near.peer, far.peer = far, near
        self.net.up[place] += 1
        self.net.peak[place] = max(self.net.peak[place], self.net.up[place])
        protocol = make()
        near.begin(protocol)
        self.call_soon(far.begin, serve())
        return near, protocol


class End(asyncio.Transport):
    """One side of a connection."""

    peer: End

    def __init__(self, loop: NetLoop, place: tuple[str, int], side: int) -> None:
        super().__init__()
        self._loop = loop
        self._net = loop.net
        self._place = place
        self.side = side
        self._protocol: Any = None
        self._out = bytearray()  # written and not read by the other side
        self._high = 64 << 10
        self._paused = False  # our writer was told to wait
        self._reading = True
        self._closing = False
        self._gone = False
        self._pumping = False
        self._net.ends.add(self)

    def begin(self, protocol: asyncio.Protocol) -> None:
        self._protocol = protocol
        if not self._gone:
            protocol.connection_made(self)
            self.peer.pump()

    # -- as a transport

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        if name in ("sockname", "peername"):
            return ("net", self.side if name == "sockname" else 3 - self.side)
        return default

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        self._high = 64 << 10 if high is None else high

    def get_write_buffer_size(self) -> int:
        return max(0, len(self._out) - WINDOW_BYTES)

    def write(self, data: bytes | bytearray | memoryview) -> None:
        if self._closing or self._gone or not data:
            return
        self._out += data
        if not self._paused and self.get_write_buffer_size() > self._high:
            self._paused = True
            self._protocol.pause_writing()
        self.pump()

    def pause_reading(self) -> None:
        self._reading = False

    def resume_reading(self) -> None:
        self._reading = True
        self.peer.pump()

    def is_reading(self) -> bool:
        return self._reading

    def is_closing(self) -> bool:
        return self._closing or self._gone

    def close(self) -> None:
        """Once all has been read."""
        self._closing = True
        self.pump()

    def abort(self) -> None:
        self._end(None)
        self._loop.call_later(DELAY_S, self.peer._end, ConnectionResetError(104, "Connection reset by peer"))  # noqa: SLF001

    # -- what goes to the other side

    def pump(self) -> None:
        if not self._pumping and not self._gone:
            self._pumping = True
            self._loop.call_later(self._net.dice.random() * DELAY_S, self._move)

    def _move(self) -> None:
        self._pumping = False
        peer = self.peer
        if self._gone or peer._gone or not peer._reading or peer._protocol is None:  # noqa: SLF001
            return
        if self._out:
            size = self._net.piece(min(len(self._out), WINDOW_BYTES))
            piece = bytes(self._out[:size])
            del self._out[:size]
            if self._paused and self.get_write_buffer_size() * 2 <= self._high:
                self._paused = False
                self._protocol.resume_writing()
            peer._protocol.data_received(piece)  # noqa: SLF001
            self.pump()
        elif self._closing:
            self._end(None)
            peer._closed()  # noqa: SLF001

    def _closed(self) -> None:
        """The other side has closed, and all that it said was read."""
        if not self._gone and not self._protocol.eof_received():
            self._end(None)

    def _end(self, error: Exception | None) -> None:
        if self._gone:
            return
        self._gone = True
        self._out.clear()
        self._net.ends.discard(self)
        if self.side == 1:
            self._net.up[self._place] -= 1
        if self._protocol is not None:
            self._loop.call_soon(self._protocol.connection_lost, error)
