"""The worker that loads a pipe over its wire protocol: connections on one epoll loop, one request under way on each.

It must not be what is measured, so it is as bare as Python allows: no event loop library, no parser, requests that
differ only where they must (about five microseconds for each operation). It still looks at every answer: anything but
the right one ends the measurement with its text.

Told a rate, it sends each operation when that is due, on whichever connection is idle, and takes the time from when it
was due: a pipe that stands still is charged for everybody who would have come meanwhile. It never sleeps then: on a
virtual machine that takes milliseconds now and again, which are not the pipe's. So it has a processor of its own.

A round never leaves a session behind: after the time is up each connection finishes the one it has.
"""

from __future__ import annotations

import gc
import select
import signal
import socket
import ssl
import sys
from collections import defaultdict, deque
from collections.abc import Callable, Generator
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from time import perf_counter
from typing import NamedTuple

import msgspec

from truba.bench.apart import apart
from truba.bench.latency import counting
from truba.bench.machine import Cpu, busy_s, cpu_of, own_cpu
from truba.bench.worker import Measure, Order, answer, receive, trouble
from truba.errors import OPERATION_ERRORS, BadRequest, TrubaError, Unavailable
from truba.tls import Contexts, HandshakeFailed, Tls, failure_of, shake_hands

APPENDS = 3
ANSWER_S = 30.0
"""A pipe that answers nobody for so long is not there."""
REPLY_BYTES = 4096
CRLF, OK = b"\r\n", b"+OK\r\n"

Script = Generator[bytes | None, bytes, None]
"""What one connection says: yields requests, is sent the answers. None: the answer is not whole yet."""


class TlsFiles(msgspec.Struct, frozen=True):
    """See `truba.tls.Tls`."""

    ca: str | None
    certificate: str | None
    key: str | None


class Setup(msgspec.Struct, frozen=True):
    host: str
    port: int
    path: str  # of a Unix socket, in place of host and port
    user: str | None
    password: str | None
    kind: int
    record_bytes: int
    pipe_pid: int | None  # whose processor time is measured; None: it is not on this machine, or not ours
    tls: TlsFiles | None = None  # None: plain text


def request(*args: bytes) -> bytes:
    return b"*%d\r\n" % len(args) + b"".join([b"$%d\r\n%b\r\n" % (len(arg), arg) for arg in args])


def sessions(new: bytes, append: bytes, delete: bytes) -> Script:
    """One session after the other. `append` and `delete` are templates with room for an id and its length."""
    while True:
        reply = yield new
        lines = reply.split(CRLF)
        while len(lines) != 3 or lines[0] != b"$%d" % len(lines[1]):
            _refuse_wrong(reply, b"$", "NEW")
            reply += yield None
            lines = reply.split(CRLF)
        session = lines[1]
        message = append % (len(session), session)
        for _ in range(APPENDS):
            reply = yield message
            while reply != OK:
                _refuse_wrong(reply, OK, "APPEND")
                reply += yield None
        reply = yield delete % (len(session), session)
        while reply != OK:
            _refuse_wrong(reply, OK, "DELETE")
            reply += yield None


def _refuse_wrong(reply: bytes, right: bytes, to: str) -> None:
    """Raises what `reply` says, unless it may be the beginning of a right one."""
    if reply[:1] == b"-":
        if not reply.endswith(CRLF):
            return
        raise refusal(reply)
    if right == b"$":
        head, *rest = reply.split(CRLF)
        length = head[1:]
        whole = len(head) + len(CRLF) + int(length) + len(CRLF) if rest and length.isdigit() else 24
        if reply[:1] == b"$" and len(reply) < whole and (length.isdigit() or not rest):
            return
    elif right.startswith(reply):
        return
    raise TrubaError(f"a wrong answer to {to}: {reply[:200]!r}; is it a pipe that listens there?")


def refusal(reply: bytes) -> TrubaError:
    code, _, text = reply[1:].decode("utf-8", "replace").strip().partition(" ")
    return OPERATION_ERRORS.get(code, BadRequest)(text or code)


class _Connection(NamedTuple):
    receive: Callable[[int], bytes | None]  # None: it was for TLS alone
    send: Callable[[bytes], int]
    advance: Callable[[bytes], bytes | None]
    socket: socket.socket


class Load:
    """Connections to one pipe, for one measurement. `stop` cuts it short, sessions are finished all the same."""

    def __init__(self, setup: Setup) -> None:
        self._setup = setup
        record = request(bytes(setup.record_bytes)).partition(CRLF)[2]
        self._new = request(b"NEW", b"%d" % setup.kind)
        self._append = b"*3\r\n$6\r\nAPPEND\r\n$%d\r\n%b\r\n" + record
        self._delete = b"*2\r\n$6\r\nDELETE\r\n$%d\r\n%b\r\n"
        tls = setup.tls
        self._tls = None if tls is None else Contexts(Tls(tls.ca, tls.certificate, tls.key), server_side=False)
        self._poll = select.epoll()
        self._connections: dict[int, _Connection] = {}
        self._began: dict[int, float] = {}  # when the request under way was sent, or due
        self._idle: deque[tuple[int, bytes]] = deque()  # connections without a request under way, and their next one
        self._counts: defaultdict[int, int] = counting()
        self._stopped = False

    def stop(self, *_: object) -> None:
        self._stopped = True

    def measure(self, order: Order) -> Measure:
        """TrubaError: the pipe refused, or is not there. HandshakeFailed: it is not reached in TLS."""
        pid = self._setup.pipe_pid
        turns: Callable[[float], float]
        where: AbstractContextManager[None]
        try:
            for _ in range(order.clients):
                self._connect()
            if order.rate_per_s is None:
                turns, where = self._turns, nullcontext()
                self._begin_idle()
            else:
                turns, where = partial(self._paced, 1 / order.rate_per_s), apart(pid)
            with where:
                turns(perf_counter() + order.warm_s)
                self._counts.clear()
                own, pipe, busy = own_cpu(), cpu_of(pid) if pid else Cpu(0, 0), busy_s()
                begun = perf_counter()
                seconds = turns(begun + order.measure_s) - begun
                used = own_cpu().since(own)
                pipe_used = cpu_of(pid).since(pipe) if pid else Cpu(0, 0)
                busy = busy_s() - busy - sum(used) - sum(pipe_used)
                counts = dict(self._counts)
            self._finish()
        except HandshakeFailed as error:
            raise HandshakeFailed(f"no TLS connection to {self._where}: {error}; nothing was stored") from error
        except (ConnectionError, ssl.SSLEOFError) as error:
            raise Unavailable(f"the pipe at {self._where} broke the connection: {error.strerror or error}") from error
        finally:
            for connection in self._connections.values():
                connection.socket.close()
            self._poll.close()
        operations = max(1, sum(counts.values()))
        return Measure(
            seconds,
            counts,
            sum(used) / seconds,
            pipe_used.user_s / operations * 1e6 if pid else None,
            pipe_used.system_s / operations * 1e6 if pid else None,
            max(0.0, busy) / seconds if pid else None,
        )

    @property
    def _where(self) -> str:
        return self._setup.path or f"{self._setup.host}:{self._setup.port}"

    def _connect(self) -> None:
        setup = self._setup
        try:
            if setup.path:
                sock = socket.socket(socket.AF_UNIX)
                sock.settimeout(ANSWER_S)
                sock.connect(setup.path)
            else:
                sock = socket.create_connection((setup.host, setup.port), timeout=ANSWER_S)
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                if self._tls is not None:
                    sock = shake_hands(sock, setup.host, self._tls)
        except HandshakeFailed:
            raise
        except OSError as error:
            raise Unavailable(f"no pipe at {self._where}: {error.strerror or error}; nothing was sent") from error
        receive, send = (sock.recv, sock.send) if self._tls is None else (_decrypted(sock), _encrypted(sock))
        if setup.password is not None:
            user = [] if setup.user is None else [setup.user.encode()]
            sock.sendall(request(b"AUTH", *user, setup.password.encode()))
            reply = receive(REPLY_BYTES) or b""
            if reply != OK:
                sock.close()
                raise refusal(reply) if reply[:1] == b"-" else TrubaError(f"a wrong answer to AUTH: {reply[:200]!r}")
        sock.setblocking(False)
        script = sessions(self._new, self._append, self._delete)
        self._connections[sock.fileno()] = _Connection(receive, send, script.send, sock)
        first = next(script)
        assert first is not None
        self._idle.append((sock.fileno(), first))
        self._poll.register(sock.fileno(), select.EPOLLIN)

    def _begin_idle(self) -> None:
        while self._idle:
            self._begin(*self._idle.popleft(), perf_counter())

    def _begin(self, fd: int, message: bytes, at: float) -> None:
        self._began[fd] = at
        _, send, _, sock = self._connections[fd]
        if (sent := send(message)) < len(message):
            _send_rest(sock, message[sent:])

    def _turns(self, until: float) -> float:
        """Keep all connections at work until that time; the time of the last answer."""
        poll, connections, began, counts, now = (
            self._poll.poll,
            self._connections,
            self._began,
            self._counts,
            perf_counter,
        )
        ended = now()
        while ended < until and not self._stopped:
            ready = poll(ANSWER_S)
            if not ready:
                raise Unavailable(f"the pipe at {self._where} answered nobody for {ANSWER_S:g} s")
            for fd, _ in ready:
                receive, send, advance, sock = connections[fd]
                reply = receive(REPLY_BYTES)
                if reply is None:
                    continue
                ended = now()
                message = advance(reply) if reply else self._hung_up()
                if message is None:
                    continue
                sent = send(message)
                counts[int((ended - began[fd]) * 1e6)] += 1
                began[fd] = ended
                if sent < len(message):
                    _send_rest(sock, message[sent:])
        return ended

    def _paced(self, every_s: float, until: float) -> float:
        """One operation each `every_s`, on whichever connection is idle by then; the time of the end."""
        connections, began, counts, idle = self._connections, self._began, self._counts, self._idle
        due = answered = now = perf_counter()
        while now < until and not self._stopped:
            while due <= now and idle:
                self._begin(*idle.popleft(), due)
                due += every_s
            ready = self._poll.poll(0)
            now = perf_counter()
            for fd, _ in ready:
                reply = connections[fd].receive(REPLY_BYTES)
                if reply is None:
                    continue
                message = connections[fd].advance(reply) if reply else self._hung_up()
                if message is not None:
                    answered = perf_counter()
                    counts[int((answered - began[fd]) * 1e6)] += 1
                    idle.append((fd, message))
            if len(idle) < len(connections) and now - answered > ANSWER_S:
                raise Unavailable(f"the pipe at {self._where} answered nobody for {ANSWER_S:g} s")
        return now

    def _finish(self) -> None:
        """Let each connection end its session: until it would begin another one."""
        left = set(self._connections) - {fd for fd, message in self._idle if message is self._new}
        self._idle = deque((fd, message) for fd, message in self._idle if fd in left)
        self._begin_idle()
        while left:
            ready = self._poll.poll(ANSWER_S)
            if not ready:
                raise Unavailable(f"the pipe at {self._where} answered nobody for {ANSWER_S:g} s")
            for fd, _ in ready:
                reply = self._connections[fd].receive(REPLY_BYTES)
                if reply is None:
                    continue
                message = self._connections[fd].advance(reply) if reply else self._hung_up()
                if message is self._new:
                    self._poll.unregister(fd)
                    left.discard(fd)
                elif message is not None:
                    self._begin(fd, message, perf_counter())

    def _hung_up(self) -> bytes:
        raise Unavailable(
            f"the pipe at {self._where} closed the connection; the outcome of what was under way is unknown"
        )


def _decrypted(sock: socket.socket) -> Callable[[int], bytes | None]:
    """An answer is one record of TLS, and shorter than what is read: nothing stays behind that epoll does not see."""

    def receive(size: int) -> bytes | None:
        try:
            return sock.recv(size)
        except ssl.SSLWantReadError:
            return None
        except ssl.SSLEOFError:
            raise
        except ssl.SSLError as error:
            raise failure_of(error) from error

    return receive


def _encrypted(sock: socket.socket) -> Callable[[bytes], int]:
    def send(message: bytes) -> int:
        try:
            return sock.send(message)
        except ssl.SSLWantWriteError:
            return 0

    return send


def _send_rest(sock: socket.socket, rest: bytes) -> None:
    """Of a request longer than the socket's buffer. The pipe reads on, so waiting here cannot hold it up."""
    sock.settimeout(ANSWER_S)
    sock.sendall(rest)
    sock.setblocking(False)


def main() -> int:
    setup = receive(Setup)
    if setup is None:
        return 0
    ending = False
    load: Load | None = None

    def stop(*_: object) -> None:
        nonlocal ending
        ending = True
        if load is None:
            sys.exit(0)
        load.stop()

    signal.signal(signal.SIGTERM, stop)
    gc.disable()  # nothing here makes cycles, and a collection would count as latency of the pipe
    try:
        while not ending and (order := receive(Order)) is not None:
            load = Load(setup)
            measured = load.measure(order)
            load = None
            answer(measured)
    except BrokenPipeError:
        return 0  # nobody wants the answer any more
    except (TrubaError, OSError) as error:
        answer(trouble(error))
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
