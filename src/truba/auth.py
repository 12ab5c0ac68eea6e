"""The shipped authenticator: one shared password, compared in constant time; whoever has it may do everything."""

from __future__ import annotations

import hmac
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Everything:
    """A principal that may do everything."""

    name: str

    def allows(self, verb: str, kind: int | None) -> bool:
        return True


class SharedPassword:
    """Any user name, one password."""

    def __init__(self, password: str) -> None:
        self._password = password.encode()

    def authenticate(self, user: str, password: str, peer: str) -> Everything | None:
        return Everything(user) if hmac.compare_digest(password.encode(), self._password) else None
