"""The frontend of a node that does not lead: it passes whole connections on to the one that does.

    asked for LEADER        answered here: the leader's client address, or UNAVAILABLE
    asked anything else     from this request on the connection is two streams of bytes to and from the leader

    client  ->  peeking  ->  joining (dial, ask whether it leads)  ->  joined        one client, one leader's connection
                   \\-> refused: nobody leads <-/

What is relayed is never looked into, changed or repeated, and no answer is ever made up for it: when either side ends,
so does the other. The leader is asked for LEADER before the first byte is passed, so two nodes that take each other for
the leader do not relay in a circle.
"""

from __future__ import annotations

import asyncio
from typing import Literal, cast

from truba.address import Address, is_own_echo
from truba.frontends.listening import Listening, Reception
from truba.protocols import replies
from truba.protocols.resp import FramingLost, StrictParser
from truba.tls import Contexts, connect
from truba.wire.patience import FAREWELL_S, keep_alive

LEADER = b"*1\r\n$6\r\nLEADER\r\n"
LEADS = b"$-1\r\n"
"""The answer of a node that leads."""

PEEKED_AT_ONCE = 256
"""Requests of a client that are looked at in one turn of the loop, empty lines too: about half a millisecond."""

HEAD_BYTES_MAX = 64
"""Of a request that is not all there: longer than this it is not LEADER, and goes to the leader as it comes."""

JOIN_S_MAX = 3.0
"""Until the leader has said that it leads. Less than a client waits for its first answer, so that it hears of it."""

BUFFER_BYTES_MAX = 256 << 10
"""Of one direction of one connection, unsent, before its source is not read any more: about what one read brings."""

LINGER_S = 1.0
"""How long a refused client may go on sending. Closed at once, it could lose the refusal."""


class RelayFrontend:
    """Relays until it is stopped; may be started again. `follow` says where to, as often as that changes."""

    def __init__(self, listening: Listening, *, guarded: bool = False, tls: Contexts | None = None) -> None:
        """`guarded`: who is not passed on within the time that strangers have is cut; whether who is passed on may
        stay is the leader's to say. `tls`: how the other nodes are dialled, if they speak it."""
        self.leader: Address | None = None
        self.tls = tls
        self._reception = Reception(listening, self._connection, guarded=guarded)

    async def start(self, leader: Address | None) -> None:
        """Begin to take clients. `leader`: its client address; None: nobody leads, as far as is known."""
        self.leader = leader
        await self._reception.open()

    def follow(self, leader: Address | None) -> None:
        """From here on this one leads. Clients of another one are hung up: they come back, and are relayed to it."""
        if leader == self.leader:
            return
        self.leader = leader
        for guest in self._reception.guests:
            if isinstance(guest, _Near):
                guest.leave_leader()

    async def stop(self) -> None:
        """Take no more clients, and hang up on those who are here: whatever this node is next, they come back to it."""
        await self._reception.close()

    def _connection(self) -> _Near:
        return _Near(self, self._reception)


class _Near(asyncio.Protocol):
    """The client's side."""

    def __init__(self, relay: RelayFrontend, reception: Reception) -> None:
        self.transport: asyncio.Transport | None = None
        self._relay = relay
        self._reception = reception
        self._state: Literal["peeking", "joining", "joined", "refused", "closing"] = "peeking"
        self._head = b""  # of the first request that is not answered here
        self._peeks_later = False  # at what is left of the head, in another turn
        self._unread = False  # it does not read our answers
        self._at_end = False  # the client has said all that it will say
        self._joining: asyncio.Task[None] | None = None
        self.far: _Far | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = stream = cast(asyncio.Transport, transport)  # uvloop's is no subclass of it
        stream.set_write_buffer_limits(high=BUFFER_BYTES_MAX)
        keep_alive(stream.get_extra_info("socket"))

    def data_received(self, data: bytes) -> None:
        match self._state:
            case "joined":
                assert self.far is not None
                if not self.far.transport.is_closing():
                    self.far.transport.write(data)
            case "peeking":
                self._head += data
                self._peek()
            case "joining":
                self._head += data  # read before the pause
            case "refused" | "closing":
                pass

    def eof_received(self) -> bool:
        self._at_end = True
        match self._state:
            case "joined":
                assert self.far is not None
                if not self.far.transport.is_closing():
                    self.far.transport.write_eof()
            case "peeking":
                if not self._peeks_later:
                    self._peek()
            case "refused":
                self.close()
            case "joining" | "closing":
                pass
        return True

    def connection_lost(self, error: Exception | None) -> None:
        self._state = "closing"
        self.transport = None
        if self._joining is not None:
            self._joining.cancel()
        if self.far is not None:
            self.far.close()
        self._reception.left(self)

    def pause_writing(self) -> None:
        """The client reads slowly: the leader's answers are not read meanwhile, nor more questions that we answer."""
        if self.far is not None:
            self.far.transport.pause_reading()
        elif self._state == "peeking" and self.transport is not None:
            self._unread = True
            self.transport.pause_reading()

    def resume_writing(self) -> None:
        if self.far is not None:
            self.far.transport.resume_reading()
        elif self._state == "peeking":
            self._unread = False
            self._peek_on()

    # -- peeking ---------------------------------------------------------------------------------------------

    def _peek(self) -> None:
        """Answer LEADER as often as it is asked; the first request that is anything else makes this a relay."""
        head, at = self._head, 0
        answers: list[bytes] = []
        asked_more, peeked = False, 0
        while at < len(head) and not asked_more and peeked < PEEKED_AT_ONCE:
            peeked += 1
            parser = StrictParser()
            requests: list[list[bytes]] = []
            try:
                end = parser.take(head, at, requests)
            except FramingLost:
                asked_more = True  # the leader says what is wrong with it
                break
            if requests:
                asked_more = len(requests[0]) != 1 or requests[0][0].upper() != b"LEADER"
                if not asked_more:
                    answers.append(self._who_leads())
            elif not parser.idle:
                asked_more = len(head) - at > HEAD_BYTES_MAX
                break
            if not asked_more:
                at = end
        self._head = head[at:]
        if answers and self.transport is not None:
            self.transport.write(b"".join(answers))
        self._peeks_later = False
        if asked_more:
            self._join()
        elif self._head and peeked == PEEKED_AT_ONCE and self.transport is not None:
            self._peeks_later = True
            self.transport.pause_reading()
            asyncio.get_running_loop().call_soon(self._peek_on)
        elif self._at_end and self._head:
            self._join()  # what there is of a request is the leader's to judge
        elif self._at_end:
            self.close()

    def _peek_on(self) -> None:
        """In another turn of the loop, or when our answers are read again."""
        if self._state != "peeking" or self._unread or self.transport is None:
            return
        if self._peeks_later:
            self._peek()
        if self._state == "peeking" and not self._peeks_later and not self._unread:
            self.transport.resume_reading()

    def _who_leads(self) -> bytes:
        leader = self._relay.leader
        return _nobody_leads() if leader is None else replies.bulk(str(leader).encode())

    # -- joining ---------------------------------------------------------------------------------------------

    def _join(self) -> None:
        leader = self._relay.leader
        if leader is None:
            self._refuse(_nobody_leads())
            return
        assert self.transport is not None  # it has just said something
        self._state = "joining"
        self.transport.pause_reading()
        self._joining = asyncio.get_running_loop().create_task(self._reach(leader), name=f"relay to {leader}")

    async def _reach(self, leader: Address) -> None:
        far: _Far | None = None
        try:
            async with asyncio.timeout(JOIN_S_MAX):
                far = await _dial(self, leader, self._relay.tls)
                await far.admitted
        except (OSError, ValueError, TimeoutError) as error:  # ValueError: a host that is no name
            if far is not None:
                far.transport.abort()
            if self._state == "joining":
                why = str(error) or f"no answer within {JOIN_S_MAX:g} s"
                self._reception.rejections.add("leader unreachable", leader=str(leader), error=why)
                self._refuse(_unavailable(f"the node that leads, {leader}, cannot be reached from here: {why}"))
            return
        except asyncio.CancelledError:
            if far is not None:
                far.transport.abort()
            raise
        finally:
            self._joining = None
        self._joined(far)

    def _joined(self, far: _Far) -> None:
        near = self.transport
        if near is None or near.is_closing() or self._state != "joining":
            far.transport.abort()
            return
        if far.transport.is_closing():
            self._refuse(_unavailable("the node that leads closed the connection"))
            return
        self._state = "joined"
        self._reception.known(self)
        self.far = far
        head, self._head = self._head, b""
        far.transport.write(head)
        if self._at_end:
            far.transport.write_eof()
        if near.get_write_buffer_size() > BUFFER_BYTES_MAX:
            far.transport.pause_reading()  # answers to LEADER that it has not read
        if far.writable:
            near.resume_reading()

    # -- endings ---------------------------------------------------------------------------------------------

    def leave_leader(self) -> None:
        """Another node leads, or none: nothing more goes to the one before, and it answers nothing more."""
        if self._state == "joining":
            if self._joining is not None:
                self._joining.cancel()
            self._refuse(_unavailable("the node that leads has just changed"))
        elif self._state == "joined":
            assert self.far is not None
            self.far.transport.abort()
            self.close()

    def _refuse(self, answer: bytes) -> None:
        """The one answer that is ours to a request that is not."""
        self._head = b""
        if self.transport is None or self.transport.is_closing():
            return
        self._state = "refused"
        self.transport.write(answer)
        if self._at_end:
            self.close()
            return
        self.transport.write_eof()
        self.transport.resume_reading()  # and what comes is dropped, until the client has read the answer and closes
        asyncio.get_running_loop().call_later(LINGER_S, self.close)

    def close(self) -> None:
        """End it once what the leader has answered so far has been read; no answer is added."""
        if self.transport is None or self._state == "closing":
            return
        self._state = "closing"
        if self._joining is not None:
            self._joining.cancel()
        if self.far is not None:
            self.far.close()
        self.transport.close()
        asyncio.get_running_loop().call_later(FAREWELL_S, self.transport.abort)  # a client that does not read


class _Far(asyncio.Protocol):
    """The leader's side. `admitted`: done once it has said that it leads; ConnectionError when it does not."""

    def __init__(self, near: _Near) -> None:
        self.transport: asyncio.Transport
        self.admitted: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.writable = True
        self._near = near
        self._said = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = stream = cast(asyncio.Transport, transport)
        stream.set_write_buffer_limits(high=BUFFER_BYTES_MAX)
        keep_alive(stream.get_extra_info("socket"))
        stream.write(LEADER)

    def data_received(self, data: bytes) -> None:
        if self._near.far is self:
            near = self._near.transport
            if near is not None and not near.is_closing():
                near.write(data)
            return
        self._said += data  # one line: it is asked nothing else before it is admitted
        if self._said == LEADS:
            self._decide(None)
        elif not LEADS.startswith(self._said):
            self._decide(ConnectionError(f"it does not lead: {self._said[:64].decode('ascii', 'replace').strip()}"))

    def eof_received(self) -> bool:
        """A pipe that has said all that it will say has ended the connection, and reads nothing more."""
        return False

    def connection_lost(self, error: Exception | None) -> None:
        self._decide(ConnectionResetError("it closed the connection"))
        if self._near.far is self:
            self._near.close()

    def pause_writing(self) -> None:
        self.writable = False
        if self._near.transport is not None:
            self._near.transport.pause_reading()

    def resume_writing(self) -> None:
        self.writable = True
        if self._near.transport is not None:
            self._near.transport.resume_reading()

    def close(self) -> None:
        """The client is gone: what it sent still goes, unless the leader does not take it in time."""
        if not self.transport.is_closing():
            self.transport.close()
            asyncio.get_running_loop().call_later(FAREWELL_S, self.transport.abort)

    def _decide(self, error: ConnectionError | None) -> None:
        if self.admitted.done():
            return
        if error is None:
            self.admitted.set_result(None)
        else:
            self.admitted.set_exception(error)
            self.admitted.exception()  # retrieved: whoever waited for it may be gone


async def _dial(near: _Near, leader: Address, tls: Contexts | None) -> _Far:
    transport, far = await connect(lambda: _Far(near), *leader, tls)
    if is_own_echo(transport):
        transport.abort()
        raise ConnectionRefusedError("nobody listens there")
    return far


def _nobody_leads() -> bytes:
    return _unavailable("no node of the cluster leads now, as far as this one knows")


def _unavailable(what: str) -> bytes:
    return replies.error("UNAVAILABLE", f"{what}; nothing was stored; try again, or another node")
