"""The shipped authenticator for several users: each has a password or a certificate, and rights on kinds.

A password that was right once is recognized by a keyed digest, so a client that comes back costs nothing. Others cost
scrypt's time and memory, on one thread, and few may wait for it: whoever floods the door with guesses gets BUSY, and
takes nothing from those who are inside.
"""

from __future__ import annotations

import asyncio
import hmac
import os
from collections import OrderedDict
from collections.abc import Awaitable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor

from truba.errors import Busy
from truba.passwords import PASSWORD_BYTES_MAX, PasswordHash
from truba.rights import OF_NO_KIND

REMEMBERED_MAX = 4_096
WAITING_MAX = 32
"""Passwords that wait for the one thread: with 0.2 s each, the last one is answered before a stranger is cut."""


class User:
    """A principal. `rights`: verb (upper case) -> numbers of kinds, None for all of them, also those of later."""

    def __init__(
        self,
        name: str,
        rights: Mapping[str, Iterable[int] | None],
        *,
        password_hash: PasswordHash | None = None,
        certificate: str | None = None,
    ) -> None:
        self.name = name
        self.password_hash = password_hash
        self.certificate = certificate
        self.everywhere = frozenset(verb for verb, kinds in rights.items() if kinds is None)
        on_kinds: set[tuple[str, int | None]] = {
            (verb, kind) for verb, kinds in rights.items() if kinds is not None for kind in kinds
        }
        self.there = frozenset(on_kinds | {(verb, None) for verb, _ in on_kinds if verb in OF_NO_KIND})

    def become(self, other: User | None) -> None:
        """Whoever is in as this user is judged by the other's rights from now on; None: there is no such user any more,
        and nothing is allowed."""
        nobody = User(self.name, {})
        self.password_hash = (other or nobody).password_hash
        self.certificate = (other or nobody).certificate
        self.everywhere = (other or nobody).everywhere
        self.there = (other or nobody).there

    def __repr__(self) -> str:
        return f"<user {self.name}>"

    def allows(self, verb: str, kind: int | None) -> bool:
        """`kind` None is all kinds together, but for verbs that are about none."""
        return verb in self.everywhere or (verb, kind) in self.there


class Users:
    """See `truba.ports.auth`. Its thread ends with the process."""

    def __init__(self, users: Sequence[User]) -> None:
        self._users: dict[str, User] = {}
        self._key = os.urandom(32)
        self._remembered: OrderedDict[bytes, User] = OrderedDict()
        self._thread = ThreadPoolExecutor(1, "truba passwords")
        self._waiting = 0
        self.replace(users)

    def replace(self, users: Sequence[User]) -> None:
        """Other users, from now on. Who is in stays in, with the rights of the new user of that name, or none."""
        before, self._users = self._users, {}
        for user in users:
            known = before.pop(user.name, user)
            if known is not user:
                known.become(user)
            self._users[user.name] = known
        for gone in before.values():
            gone.become(None)
        everybody = self._users.values()
        self._by_certificate = {user.certificate: user for user in everybody if user.certificate is not None}
        slow = [user.password_hash for user in everybody if user.password_hash is not None and user.password_hash.slow]
        self._decoy = slow[0] if slow else None  # unknown users take as long as known ones
        self._remembered.clear()

    def by_certificate(self, names: frozenset[str], peer: str) -> User | None:
        found = [self._by_certificate[name] for name in sorted(names) if name in self._by_certificate]
        return found[0] if len(found) == 1 else None  # a certificate of two users' names is nobody's

    def authenticate(self, user: str, password: str, peer: str) -> User | Awaitable[User | None] | None:
        """Busy when too many wait."""
        known, secret = self._users.get(user), password.encode()
        if len(secret) > PASSWORD_BYTES_MAX:
            return None
        proof = hmac.digest(self._key, b"%d %b %b" % (len(user.encode()), user.encode(), secret), "sha256")
        if proof in self._remembered:
            self._remembered.move_to_end(proof)
            return self._remembered[proof]
        stored = known.password_hash if known is not None else None
        if stored is not None and stored.slow is None:
            return known if stored.matches(secret) else None
        if stored is None and self._decoy is None:
            return None
        if self._waiting >= WAITING_MAX:
            raise Busy(f"{WAITING_MAX} passwords are being checked, the limit; nothing was stored; try again later")
        self._waiting += 1
        return self._slowly(known if stored is not None else None, stored or self._decoy, secret, proof)

    async def _slowly(self, user: User | None, stored: PasswordHash | None, secret: bytes, proof: bytes) -> User | None:
        try:
            assert stored is not None  # the user's, or the decoy
            loop = asyncio.get_running_loop()
            matches = await loop.run_in_executor(self._thread, stored.matches, secret)
        finally:
            self._waiting -= 1
        if user is None or not matches or user.password_hash != stored:
            return None  # the last: it was changed meanwhile, not only read again
        self._remembered[proof] = user
        if len(self._remembered) > REMEMBERED_MAX:
            self._remembered.popitem(last=False)
        return user
