"""`[node.tls]`, `[cluster.tls]`, `tls` of a kind, `[users.NAME]`: who is believed, and who may do what. Values only.

What needs the whole file (whether a kind of that name is there) is judged in `truba.config.load`, and so are the files.
"""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, model_validator

from truba import passwords
from truba.config.table import EnvName, FilePath, Table, reader, refusal, text
from truba.errors import ConfigError
from truba.rights import GROUPS, expand
from truba.tls import Tls

ALL_KINDS = "*"


class ServerTls(Table):
    """`[node.tls]`: what the port of clients shows, and whom it lets in."""

    certificate: FilePath
    key: FilePath | None = None
    client_ca: FilePath | None = None

    @property
    def files(self) -> Tls:
        return Tls(self.client_ca, self.certificate, self.key)


class RouteTls(Table):
    """`tls` of a kind: whom the pipe believes to be the handler, and what it shows to it."""

    ca: FilePath | None = None
    certificate: FilePath | None = None
    key: FilePath | None = None

    @property
    def files(self) -> Tls:
        return Tls(self.ca, self.certificate, self.key)

    @model_validator(mode="after")
    def _pair(self) -> RouteTls:
        if self.key is not None and self.certificate is None:
            raise refusal("there is no certificate beside it", "write certificate too, or remove key", "key")
        return self


class ClusterTls(Table):
    """`[cluster.tls]`: among the nodes each side shows a certificate of this authority."""

    ca: FilePath
    certificate: FilePath
    key: FilePath | None = None

    @property
    def files(self) -> Tls:
        return Tls(self.ca, self.certificate, self.key)


def _verb(value: object) -> str:
    try:
        if isinstance(value, str):
            expand([value])
            return value
    except KeyError:
        pass
    raise ValueError(f"{value!r} is no right", f'a group ({", ".join(GROUPS)}) or a verb such as "NEW"')


class Right(Table):
    """Verbs on kinds."""

    kinds: Annotated[list[str], Field(min_length=1)]
    verbs: Annotated[list[Annotated[str, reader(_verb)]], Field(min_length=1)]


def _hash(value: object) -> str:
    """What is written there may be the password itself: no error shows it."""
    try:
        if isinstance(value, str):
            return str(passwords.parse(value))
    except ValueError:
        pass
    raise ValueError("this is no hash of a password", "what `truba user hash` prints, never the password itself")


class User(Table):
    password_hash: Annotated[str | None, reader(_hash)] = Field(default=None, repr=False)
    password_hash_file: FilePath | None = None
    password_hash_env: EnvName | None = None
    certificate: Annotated[str | None, reader(text("a name in a certificate", r"\S{1,256}"))] = None
    rights: list[Right] = Field(default=[])

    @model_validator(mode="after")
    def _provable(self) -> User:
        if self.password_hash is not None and self.secret("password_hash") is not None:
            raise refusal("there is another place for it too", "keep one of the two", "password_hash")
        if self.password_hash is None and self.secret("password_hash") is None and self.certificate is None:
            raise refusal("nothing proves who that is", "write password_hash, or certificate")
        return self

    def read_hash(self) -> passwords.PasswordHash | None:
        """Of the configuration, a file or the environment; None: a certificate only. ConfigError."""
        if self.password_hash is not None:
            return passwords.parse(self.password_hash)
        secret = self.secret("password_hash")
        if secret is None:
            return None
        try:
            return passwords.parse(secret.text().strip())
        except ValueError as error:
            raise ConfigError(f"{secret} holds {error}; write what `truba user hash` prints") from error
