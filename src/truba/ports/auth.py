"""Authentication: who is this, and what may they do? Shipped: one shared password (`truba.auth`)."""

from __future__ import annotations

from collections.abc import Awaitable
from typing import Protocol


class Principal(Protocol):
    """Somebody who has been authenticated."""

    @property
    def name(self) -> str: ...

    def allows(self, verb: str, kind: int | None) -> bool:
        """May they use this verb (upper case, as on the wire) on this kind? None: on the pipe as a whole."""


class Authenticator(Protocol):
    def authenticate(self, user: str, password: str, peer: str) -> Principal | Awaitable[Principal | None] | None:
        """None refuses. `user` is "default" when the client named none. `peer` is the address, for logs."""
