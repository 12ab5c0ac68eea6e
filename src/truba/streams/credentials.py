"""NATS credentials: a file with the JWT of a user and the seed of its key, as servers with operators want them.

    -----BEGIN NATS USER JWT-----
    eyJ0eXAi...                                  goes to the server as it is
    ------END NATS USER JWT------
    -----BEGIN USER NKEY SEED-----
    SUAN...                                      signs what the server asks, and is never told
    ------END USER NKEY SEED------

nats-py would read such a file itself: without an end if there is no JWT in it, and by a package that has no wheel, so
that each installation would build it with tools that no lock names.
"""

from __future__ import annotations

import logging
import re
from base64 import b32decode, b64encode
from binascii import crc_hqx
from dataclasses import dataclass, field
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from truba.errors import ConfigError

log = logging.getLogger(__name__)

BYTES_MAX = 1 << 20
"""Of a file; a JWT with many permissions has some thousand."""

# A seed is base32, without padding, of
#
#    0        2                34     36
#    | prefix | Ed25519's key  | crc  |        crc: CRC-16/XMODEM of all before it, little-endian
#
# The prefix is five bits each of 18 (S, a seed) and 20 (U, a user's), and six of zeros.
USER_SEED = b"\x95\x00"
KEY_AT, CRC_AT, SEED_BYTES = 2, 34, 36


@dataclass(frozen=True, slots=True)
class Credentials:
    """What one file says."""

    jwt: str = field(repr=False)  # of a bearer it is all that one needs
    key: Ed25519PrivateKey = field(repr=False)

    def sign(self, nonce: str) -> bytes:
        """64 bytes."""
        return self.key.sign(nonce.encode())


class CredentialsFile:
    """What nats-py asks for at each connection: first a signature, then the JWT.

    The file is read for each: JWTs expire, and are replaced while a node runs. While it cannot be used (half of it is
    written, for example), what it said before is.
    """

    def __init__(self, path: Path) -> None:
        """ConfigError: the file cannot be used."""
        self._path = path
        self._credentials = read(path)
        self._told = ""

    def sign(self, nonce: str) -> bytes:
        """In base64."""
        try:
            self._credentials, told = read(self._path), ""
        except ConfigError as error:
            told = str(error)
            if told != self._told:
                log.warning("%s; what it said before is used", told)
        self._told = told
        return b64encode(self._credentials.sign(nonce))

    def jwt(self) -> bytes:
        """The one that belongs to the last signature."""
        return self._credentials.jwt.encode()


def read(path: Path) -> Credentials:
    """ConfigError says what is wrong with the file; whether a server takes it, only the server knows."""
    try:
        with path.open("rb") as file:
            content = file.read(BYTES_MAX).decode("ascii", "replace")
    except OSError as error:
        raise ConfigError(f"NATS credentials {path}: {error.strerror}") from error
    try:
        return Credentials(_between("NATS USER JWT", content), _key(_between("USER NKEY SEED", content)))
    except ValueError as error:
        raise ConfigError(f"NATS credentials {path}: {error}; name a file that `nsc generate creds` made") from error


def _between(what: str, content: str) -> str:
    found = re.search(rf"-----BEGIN {what}-----\s+([\w.=-]+)\s+-+END {what}-", content)
    if found is None:
        raise ValueError(f"there is no {what} in it")
    return found[1]


def _key(seed: str) -> Ed25519PrivateKey:
    try:
        data = b32decode(seed + "=" * (-len(seed) % 8))
    except ValueError:
        data = b""
    crc = crc_hqx(data[:CRC_AT], 0).to_bytes(2, "little")
    if len(data) != SEED_BYTES or not data.startswith(USER_SEED) or data[CRC_AT:] != crc:
        raise ValueError("its USER NKEY SEED is not the seed of a user's key")
    return Ed25519PrivateKey.from_private_bytes(data[KEY_AT:CRC_AT])
