"""Authentication: who is this, and what may they do?

Shipped: one shared password (`truba.auth`), and users with rights (`truba.users`).
"""

from __future__ import annotations

from collections.abc import Awaitable
from typing import Protocol, runtime_checkable


class Principal(Protocol):
    """Somebody who has been authenticated."""

    @property
    def name(self) -> str: ...

    def allows(self, verb: str, kind: int | None) -> bool:
        """May they use this verb (upper case, as on the wire) on this kind? None: on the pipe as a whole."""


class Authenticator(Protocol):
    def authenticate(self, user: str, password: str, peer: str) -> Principal | Awaitable[Principal | None] | None:
        """None refuses. `user` is "default" when the client named none. `peer` is the address, for logs.

        May raise an OperationError instead: Busy, say, which is answered as it is.
        """


@runtime_checkable
class CertificateAuthenticator(Authenticator, Protocol):
    """An Authenticator may have this too: then a client's certificate can say who it is, and AUTH is not needed."""

    def by_certificate(self, names: frozenset[str], peer: str) -> Principal | None:
        """`names`: common name and alternative names of a certificate that an authority of ours has signed.

        None: it says nothing, AUTH may still. Answers at once: nothing else is served meanwhile.
        """
