"""A stranger at the other end: what it may ask, how much of it, and how it stops being one.

Where an authenticator is configured every peer is a stranger at first. Its requests are read one at a time, by limits
of their own: what comes behind an AUTH is for whoever the peer proves to be, and is read by that one's limits.
How long strangers may stay, and how many, is in `truba.strangers`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from typing import TYPE_CHECKING

from truba.errors import BadRequest, NoAuth, OperationError, Unavailable
from truba.ports.auth import Authenticator, CertificateAuthenticator, Principal
from truba.protocols.resp import FramingLost, Limits, StrictParser
from truba.tls import peer_names
from truba.wire.late import answer_later

if TYPE_CHECKING:
    from truba.wire.connection import Connection, Verb

BEFORE_AUTH = frozenset({b"AUTH", b"HELLO", b"LEADER", b"QUIT"})

STRANGER_LIMITS = Limits(args_max=16, request_bytes_max=16 << 10, inline_bytes_max=4 << 10)
"""Of a request before AUTH, and so of what a stranger can make us hold, besides one read."""

STRANGER_REQUESTS_MAX = 32
"""What a polite client asks before it says who it is are three or four."""


class Stranger:
    """What one stranger has sent. `known` once it has proved who it is: what it sent behind that is the `rest`."""

    __slots__ = ("_at", "_parser", "_requests", "_sent", "known")

    def __init__(self) -> None:
        self.known = False
        self._parser = StrictParser(STRANGER_LIMITS)
        self._requests = 0
        self._sent = b""
        self._at = 0  # so far it was read

    @property
    def idle(self) -> bool:
        """All that it sent was read."""
        return self._at == len(self._sent)

    def feed(self, data: bytes) -> None:
        self._sent = self.rest() + data

    def take(self) -> list[bytes] | None:
        """The next request; None until more comes. FramingLost, also when it has asked too much: nothing is left."""
        requests: list[list[bytes]] = []
        try:
            while not requests and not self.idle:
                self._at = self._parser.take(self._sent, self._at, requests)
                self._requests += self._parser.idle  # an empty one takes its time too
                if self._requests > STRANGER_REQUESTS_MAX:
                    raise FramingLost(NoAuth("authenticate first; nothing was stored, the connection is closed"), [])
        except FramingLost:
            self.rest()
            raise
        return requests[0] if requests else None

    def rest(self) -> bytes:
        """What was not read, and is not read here any more."""
        rest = self._sent[self._at :]
        self._sent, self._at = b"", 0
        return rest


def verbs_of_strangers(verbs: Mapping[bytes, Verb]) -> dict[bytes, Verb]:
    """The same requests: those that nobody may make before AUTH are refused, whatever their arguments."""
    return {name: verb if name in BEFORE_AUTH else _refuse for name, verb in verbs.items()}


def _refuse(connection: Connection, args: list[bytes]) -> bytes:
    raise NoAuth("authenticate first: AUTH [user] password; nothing was stored")


def certified(authenticator: Authenticator | None, stream: asyncio.Transport, peer: str) -> Principal | None:
    """Who the peer is by the certificate that it has shown, if that is enough."""
    if isinstance(authenticator, CertificateAuthenticator) and (names := peer_names(stream)):
        return authenticator.by_certificate(names, peer)
    return None


def authenticate(connection: Connection, user: bytes, password: bytes, welcome: Callable[[], bytes]) -> bytes | None:
    """Ask the authenticator; `welcome` gives the answer to whoever it admits, and is not called for anybody else. None:
    its verdict comes later, and the answer then."""
    authenticator = connection.settings.authenticator
    if authenticator is None:
        raise BadRequest("AUTH is of no use here: no authentication is configured")
    try:
        words = user.decode(), password.decode()
    except UnicodeDecodeError:
        raise NoAuth("user and password must be UTF-8 text") from None
    try:
        verdict = authenticator.authenticate(*words, connection.peer)
    except OperationError:
        raise
    except Exception as error:
        raise _failed(connection, error) from error
    if not isinstance(verdict, Awaitable):
        return _admit(connection, verdict, welcome)
    answer_later(connection, _judged(connection, verdict, welcome))
    return None


async def _judged(connection: Connection, verdict: Awaitable[Principal | None], welcome: Callable[[], bytes]) -> bytes:
    try:
        principal = await verdict
    except OperationError:
        raise
    except Exception as error:
        raise _failed(connection, error) from error
    return _admit(connection, principal, welcome)


def _failed(connection: Connection, error: Exception) -> Unavailable:
    """What the user's own authenticator raised, which only the log is told."""
    connection.reject("the authenticator failed", peer=connection.peer, error=repr(error))
    return Unavailable("the authentication service failed; nothing was stored; try again later")


def _admit(connection: Connection, principal: Principal | None, welcome: Callable[[], bytes]) -> bytes:
    if principal is None:
        connection.reject("wrong user or password", peer=connection.peer)
        raise NoAuth("wrong user or password")
    connection.admit(principal)
    return welcome()
