"""`[admin]`: the address of operators. Values only; nothing here does I/O."""

from __future__ import annotations

import re
from typing import Annotated, Literal

from pydantic import Field, model_validator

from truba.address import Address, address, is_local
from truba.config.security import ServerTls
from truba.config.table import NAME, EnvName, FilePath, Table, reader, refusal


def _sha256(value: object) -> str:
    """What is written there may be the token itself: no error shows it."""
    if isinstance(value, str) and re.fullmatch("[0-9a-f]{64}", value):
        return value
    raise ValueError("this is no sha256", "that of the token, 64 hexadecimal digits, never the token itself")


class AdminToken(Table):
    sha256: Annotated[str, reader(_sha256)]
    may: Literal["read", "operate"] = "read"


class Admin(Table):
    listen: Annotated[Address, reader(address)] = Address("127.0.0.1", 7480)
    token_file: FilePath | None = None
    token_env: EnvName | None = None
    """The token of `operator`, who may do everything."""
    tls: ServerTls | None = None
    """None: plain HTTP."""
    tokens: dict[str, AdminToken] = Field(default={})
    """By name, which the audit log tells."""
    show_records: bool = False
    audit: FilePath | None = None
    """None: `audit.jsonl` in the data directory."""

    @property
    def guarded(self) -> bool:
        return self.secret("token") is not None or bool(self.tokens)

    @model_validator(mode="after")
    def _guarded_beyond_loopback(self) -> Admin:
        if not self.guarded and not is_local(self.listen.host):
            what = f"{self.listen} can be reached from other machines, and there is no token"
            raise refusal(what, 'write token_file = "admin.token", or listen on 127.0.0.1', "listen")
        return self

    @model_validator(mode="after")
    def _named(self) -> Admin:
        for name in self.tokens:
            if not NAME.fullmatch(name):
                raise refusal(f"{name!r} is no name for a token", 'use letters, digits, "-", "_" and "."', "tokens")
        if "operator" in self.tokens and self.secret("token") is not None:
            raise refusal("operator is who has the token_file", "give this one another name", "tokens")
        return self
