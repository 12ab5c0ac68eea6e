"""What a configuration holds in place of a password: `scrypt$ln=15,r=8,p=3$SALT$HASH`, or `sha256$SALT$HASH`.

scrypt (RFC 7914) makes each guess cost 32 MiB and some 0.2 s: for what people choose. sha256 costs nothing, and is for
tokens of 256 random bits, which nobody guesses at any price; see docs/decisions/0023-passwords.md. SALT and HASH are
base64 without padding. Pure but for the dice of a new salt, which are handed in.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import re
from dataclasses import dataclass

LOG_N, R, P = 15, 8, 3
SALT_BYTES = 16
HASH_BYTES = 32
TOKEN_BYTES = 32
PASSWORD_BYTES_MAX = 1024
MEMORY_BYTES_MAX = 64 << 20
"""Of one check: what a hand-written hash may ask for."""

_SCRYPT = re.compile(r"scrypt\$ln=(\d{1,2}),r=(\d{1,2}),p=(\d{1,2})\$([\w+/-]+)\$([\w+/-]+)", re.ASCII)
_SHA256 = re.compile(r"sha256\$([\w+/-]+)\$([\w+/-]+)", re.ASCII)


@dataclass(frozen=True, slots=True, repr=False)
class PasswordHash:
    """Made by `parse` or `make`. Never shown but by `str`, on purpose."""

    slow: tuple[int, int, int] | None
    """scrypt's log2 of N, r and p; None: sha256."""
    salt: bytes
    digest: bytes

    def __str__(self) -> str:
        name = "sha256" if self.slow is None else "scrypt$ln={},r={},p={}".format(*self.slow)
        return f"{name}${_text(self.salt)}${_text(self.digest)}"

    def matches(self, password: bytes) -> bool:
        """Slow ones take their time and memory here: not on the loop."""
        return hmac.compare_digest(_digest(self.slow, self.salt, password), self.digest)


def make(password: bytes, salt: bytes, *, slow: bool = True) -> PasswordHash:
    cost = (LOG_N, R, P) if slow else None
    return PasswordHash(cost, salt, _digest(cost, salt, password))


def parse(text: str) -> PasswordHash:
    """ValueError, which does not show the text: it may be the password itself."""
    if found := _SCRYPT.fullmatch(text):
        log_n, r, p = map(int, found.groups()[:3])
        if not (log_n and r and 1 <= p <= 16) or 128 * r << log_n > MEMORY_BYTES_MAX:
            raise ValueError("a scrypt that takes more than 64 MiB, or nothing")
        return PasswordHash((log_n, r, p), _bytes(found[4]), _bytes(found[5]))
    if found := _SHA256.fullmatch(text):
        return PasswordHash(None, _bytes(found[1]), _bytes(found[2]))
    raise ValueError("no hash of a password")


def _digest(slow: tuple[int, int, int] | None, salt: bytes, password: bytes) -> bytes:
    if slow is None:
        return hmac.digest(salt, password, "sha256")
    log_n, r, p = slow
    return hashlib.scrypt(password, salt=salt, n=1 << log_n, r=r, p=p, maxmem=2 * MEMORY_BYTES_MAX, dklen=HASH_BYTES)


def _text(data: bytes) -> str:
    return base64.b64encode(data).decode().rstrip("=")


def _bytes(text: str) -> bytes:
    try:
        return base64.b64decode(text + "=" * (-len(text) % 4), validate=True)
    except binascii.Error:
        raise ValueError("no base64") from None
