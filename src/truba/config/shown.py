"""A configuration for people to read: as it was understood, with every default, and without secrets."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from truba.address import Address
from truba.config.admin import AdminToken
from truba.config.model import Config, Frontend
from truba.config.security import User

HIDDEN = "(hidden)"
_USER_IN_URL = re.compile(r"(\w+://)[^/@\s]*@")


def shown(config: Config) -> dict[str, Any]:
    """Plain values for JSON. Names of files of secrets are shown, nothing that was in them is; nor hashes of tokens,
    nor what a frontend of the user's own was given, since only that knows what is secret in it."""
    return _table(config)


def _table(table: BaseModel) -> dict[str, Any]:
    plain = {field.alias or name: _plain(getattr(table, name)) for name, field in type(table).model_fields.items()}
    match table:
        case AdminToken():
            plain["sha256"] = HIDDEN
        case User() if table.password_hash is not None:
            plain["password_hash"] = HIDDEN
        case Frontend():
            plain["options"] = dict.fromkeys(table.options, HIDDEN)
    return plain


def _plain(value: Any) -> Any:
    match value:
        case BaseModel():
            return _table(value)
        case dict():
            return {key: _plain(inner) for key, inner in value.items()}
        case Address() | Path():
            return str(value)
        case list() | tuple():
            return [_plain(inner) for inner in value]
        case str():
            return _USER_IN_URL.sub(rf"\1{HIDDEN}@", value)
        case _:
            return value
