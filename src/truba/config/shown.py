"""A configuration for people to read: as it was understood, with every default, and without secrets."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from truba.address import Address
from truba.config.admin import AdminToken
from truba.config.model import Config, Frontend
from truba.config.security import User

HIDDEN = "(hidden)"
_USER_IN_URL = re.compile(r"(\w+://)[^/@\s]*@")


def shown(config: Config, hide: Callable[[Any], Any] = lambda secret: HIDDEN) -> dict[str, Any]:
    """Plain values for JSON. Names of files of secrets are shown, nothing that was in them is; nor hashes of tokens,
    nor what a frontend of the user's own was given, since only that knows what is secret in it: in their stead stands
    what `hide` makes of them."""
    return _table(config, hide)


def _table(table: BaseModel, hide: Callable[[Any], Any]) -> dict[str, Any]:
    fields = type(table).model_fields
    plain = {field.alias or name: _plain(getattr(table, name), hide) for name, field in fields.items()}
    match table:
        case AdminToken():
            plain["sha256"] = hide(table.sha256)
        case User() if table.password_hash is not None:
            plain["password_hash"] = hide(table.password_hash)
        case Frontend():
            plain["options"] = {key: hide(value) for key, value in table.options.items()}
    return plain


def _plain(value: Any, hide: Callable[[Any], Any]) -> Any:
    match value:
        case BaseModel():
            return _table(value, hide)
        case dict():
            return {key: _plain(inner, hide) for key, inner in value.items()}
        case Address() | Path():
            return str(value)
        case list() | tuple():
            return [_plain(inner, hide) for inner in value]
        case str():
            return _USER_IN_URL.sub(rf"\1{HIDDEN}@", value)
        case _:
            return value
