"""A plain client on a blocking socket, for what a polite library would never send, and a handler service like it."""

from __future__ import annotations

import contextlib
import socket
import time
from collections.abc import Iterable
from types import TracebackType
from typing import Any

import hiredis

from tests.service.process import PATIENCE_S

Word = bytes | str | int


def request(*words: Word) -> bytes:
    """One request as bytes."""
    plain = [word if isinstance(word, bytes) else str(word).encode() for word in words]
    return b"*%d\r\n" % len(plain) + b"".join([b"$%d\r\n%b\r\n" % (len(word), word) for word in plain])


class Refused(Exception):
    """An error answer; `code` is its first word."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.code = text.partition(" ")[0]


class Wire:
    """One connection."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self.sock.settimeout(PATIENCE_S)
        self._reader = hiredis.Reader()
        self.pushed: list[list[Any]] = []

    @classmethod
    def dial(cls, address: tuple[str, int] | str) -> Wire:
        if isinstance(address, tuple):
            return cls(socket.create_connection(address, PATIENCE_S))
        sock = socket.socket(socket.AF_UNIX)
        sock.settimeout(PATIENCE_S)
        sock.connect(address)
        return cls(sock)

    def __enter__(self) -> Wire:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        self.sock.close()

    def send(self, data: bytes) -> None:
        self.sock.sendall(data)

    def ask(self, *words: Word) -> Any:
        """Send one request; its answer. Refused for an error."""
        self.send(request(*words))
        return self.answer()

    def answered(self, data: bytes) -> Any:
        """Send one request as bytes; its answer, an error as a Refused value."""
        self.send(data)
        return self.outcome()

    def asked(self, requests: Iterable[bytes]) -> list[Any]:
        """Send requests in one write; their answers, errors as Refused values."""
        sent = list(requests)
        self.send(b"".join(sent))
        return [self.outcome() for _ in sent]

    def answer(self) -> Any:
        outcome = self.outcome()
        if isinstance(outcome, Refused):
            raise outcome
        return outcome

    def outcome(self) -> Any:
        """The next answer, an error as a Refused value. Pushes that come first are put aside."""
        while True:
            found = self.next()
            if isinstance(found, list) and found and found[0] in (b"hello", b"repeat", b"lost"):
                self.pushed.append(found)
                continue
            return found

    def push(self) -> list[Any]:
        """The next push; answers that come first must be none."""
        if self.pushed:
            return self.pushed.pop(0)
        found = self.next()
        assert isinstance(found, list), found
        return found

    def next(self) -> Any:
        """The next answer or push. ConnectionError at the end of the stream, TimeoutError."""
        while (found := self._reader.gets()) is False:
            data = self.sock.recv(1 << 16)
            if not data:
                raise ConnectionError("the stream has ended")
            self._reader.feed(data)
        return Refused(str(found)) if isinstance(found, hiredis.ReplyError) else found

    def quiet(self, for_s: float) -> bool:
        """Nothing is said for so long."""
        self.sock.settimeout(for_s)
        try:
            self.pushed.append(self.next())
        except TimeoutError:
            return True
        finally:
            self.sock.settimeout(PATIENCE_S)
        return False

    def ended(self) -> bool:
        """Read to the end of the stream: True once it is there."""
        with contextlib.suppress(ConnectionResetError):
            while self.sock.recv(1 << 16):
                pass
        return True


class Listener:
    """A handler service's port. `accept` gives the pipe's next connection, its hello already read."""

    def __init__(self, port: int = 0) -> None:
        self.sock = socket.create_server(("127.0.0.1", port))
        self.sock.settimeout(PATIENCE_S)
        self.port = self.sock.getsockname()[1]
        self.url = f"truba://127.0.0.1:{self.port}"
        self.taken: list[Wire] = []

    def accept(self) -> Wire:
        """A connection of the pipe's, before anything is read."""
        sock, _ = self.sock.accept()
        self.taken.append(Wire(sock))
        return self.taken[-1]

    def serve(self, *kinds: int, credit: int = 64) -> Wire:
        """A connection that has said KINDS and heard OK."""
        wire = self.accept()
        assert wire.push()[:3] == [b"hello", b"truba", b"1"]
        assert wire.ask("KINDS", *kinds, "CREDIT", credit) == b"OK"
        return wire

    def close(self) -> None:
        self.sock.close()
        for wire in self.taken:
            wire.close()

    def __enter__(self) -> Listener:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()


def fields(flat: Any) -> dict[str, Any]:
    """A session of LS or SHOW as a dictionary."""
    words = [word.decode() if isinstance(word, bytes) else word for word in flat[::2]]
    return dict(zip(words, flat[1::2], strict=True))


def until(asks: Any, wanted: Any, patience_s: float = PATIENCE_S) -> Any:
    """Ask until the predicate likes the answer; only for what another process does in its own time."""
    end_s = time.monotonic() + patience_s
    while not wanted(found := asks()):
        assert time.monotonic() < end_s, f"still {found!r}"
        time.sleep(0.01)
    return found
