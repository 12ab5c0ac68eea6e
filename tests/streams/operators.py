"""A nats-server with an operator, accounts and users that are JWTs, signed with keys made here.

A key in text is base32 of a prefix, which says whose it is, the key, and a CRC. The seed of one has two prefixes.
"""

from __future__ import annotations

import asyncio
import json
from base64 import b32encode, urlsafe_b64encode
from binascii import crc_hqx
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from truba.ports.stream import StreamDown
from truba.streams.jetstream import JetStream
from truba.streams.settings import JetStreamSettings
from truba.testing.nats import NatsConfig
from truba.testing.nats.config import needed_permissions
from truba.testing.nats.server import Server, find_server

SEED, OPERATOR, ACCOUNT, USER = 18 << 3, 14 << 3, 0, 20 << 3
UNLIMITED = -1


def checked(data: bytes) -> str:
    return b32encode(data + crc_hqx(data, 0).to_bytes(2, "little")).decode().rstrip("=")


class Key:
    """Of an operator, an account or a user."""

    def __init__(self, whose: int) -> None:
        self.private = Ed25519PrivateKey.generate()
        self.public = checked(bytes([whose]) + self.private.public_key().public_bytes_raw())
        prefix = bytes([SEED | whose >> 5, (whose & 31) << 3])
        self.seed = checked(prefix + self.private.private_bytes_raw())

    def jwt(self, subject: str, name: str, claims: dict[str, Any], expires: int = 0) -> str:
        """What this key says of `subject`."""
        body = {"iat": 1_700_000_000, "iss": self.public, "jti": name, "name": name, "sub": subject, "exp": expires}
        parts = [{"typ": "JWT", "alg": "ed25519-nkey"}, body | {"nats": {"version": 2, **claims}}]
        said = ".".join(_base64(json.dumps(part).encode()) for part in parts)
        return f"{said}.{_base64(self.private.sign(said.encode()))}"


def _base64(data: bytes) -> str:
    return urlsafe_b64encode(data).decode().rstrip("=")


def credentials(account: Key, name: str, permissions: dict[str, Any] | None = None, expires: int = 0) -> str:
    """The content of a file: a new user of that account. `expires`: seconds since 1970; 0: never."""
    user = Key(USER)
    limits = {"subs": UNLIMITED, "data": UNLIMITED, "payload": UNLIMITED}
    allowed = {} if permissions is None else {"pub": permissions["publish"], "sub": permissions["subscribe"]}
    jwt = account.jwt(user.public, name, {"type": "user", **limits, **allowed}, expires)
    return file_of(jwt, user.seed)


def file_of(jwt: str, seed: str) -> str:
    return (
        f"-----BEGIN NATS USER JWT-----\n{jwt}\n------END NATS USER JWT------\n\n"
        "************************* IMPORTANT *************************\nNKEY Seed printed below can be used to sign "
        f"and prove identity.\n\n-----BEGIN USER NKEY SEED-----\n{seed}\n------END USER NKEY SEED------\n"
    )


class OperatorServer:
    """One nats-server. Its operator trusts two accounts: truba's, with JetStream, and that of the system."""

    names = ("n1",)

    def __init__(self, directory: Path) -> None:
        self.config = NatsConfig()
        self.directory = directory
        self.process = Server("n1", directory, None, clustered=False)
        operator, self.account, self.system = Key(OPERATOR), Key(ACCOUNT), Key(ACCOUNT)
        limits = dict.fromkeys(("subs", "data", "payload", "imports", "exports", "conn", "leaf"), UNLIMITED)
        storage = dict.fromkeys(("mem_storage", "disk_storage", "streams", "consumer"), UNLIMITED)
        accounts = {
            self.account.public: {"type": "account", "limits": {**limits, "wildcards": True, **storage}},
            self.system.public: {"type": "account", "limits": {**limits, "wildcards": True}},
        }
        preload = "".join(
            f"  {public}: {operator.jwt(public, public[:4], claims)}\n" for public, claims in accounts.items()
        )
        top = {"type": "operator", "system_account": self.system.public}
        directory.mkdir(parents=True)
        self.process.configuration.write_text(
            f'server_name: n1\nlisten: "{self.process.clients}"\nmax_payload: 64MB\n'
            f'jetstream {{ store_dir: "{directory}", max_file_store: 4GB, sync_interval: always }}\n'
            f"operator: {operator.jwt(operator.public, 'O', top)}\nsystem_account: {self.system.public}\n"
            f"resolver: MEMORY\nresolver_preload {{\n{preload}}}\n"
        )

    @property
    def urls(self) -> tuple[str, ...]:
        return (self.process.url,)

    def write(self, name: str, content: str) -> Path:
        path = self.directory / name
        path.write_text(content)
        return path

    def truba(self) -> Path:
        """A file of a user who may do what a node needs, and no more."""
        return self.write("truba.creds", credentials(self.account, "truba", needed_permissions("truba")))

    def sys(self) -> Path:
        return self.write("sys.creds", credentials(self.system, "sys"))

    def settings(self, file: Path, **more: Any) -> JetStreamSettings:
        values = {"servers": self.urls, "replicas": 1, "connect_timeout_s": 600.0, "credentials_file": file, **more}
        return JetStreamSettings(**values)

    def start(self) -> None:
        self.process.start(find_server())

    async def ready(self) -> None:
        """Once it lets in whom it should."""
        settings = self.settings(self.truba(), connect_timeout_s=5.0)
        async with asyncio.timeout(60):
            while True:
                try:
                    await (await JetStream.connect(settings)).close()
                except StreamDown:
                    assert self.process.process is not None
                    assert self.process.process.poll() is None, self.process.last_words()
                else:
                    return


@asynccontextmanager
async def operated(directory: Path) -> AsyncIterator[OperatorServer]:
    server = OperatorServer(directory)
    server.start()
    try:
        await server.ready()
        yield server
    finally:
        server.process.end()
