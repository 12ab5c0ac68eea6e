"""What every table of the configuration is made of: strict frozen models, values as people write them, refusals.

Nothing here names a key, and nothing does I/O.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, Self

from pydantic import BaseModel, ConfigDict, Field, PlainValidator, model_validator
from pydantic_core import PydanticCustomError

from truba.address import without_user
from truba.config.secret import Secret
from truba.config.units import rate_per_s, seconds, size_bytes, size_text, time_text

LOG_BYTES_MIN = 64 * 1024
SECTOR_BYTES = 512
"""Frames of the log fill whole ones, and so do its files."""
NAME = re.compile(r"[\w.-]+")
"""Of a node."""
MODULE_OBJECT = re.compile(r"[A-Za-z_][\w.]*:[A-Za-z_][\w.]*")


def refusal(what: str, instead: str, key: str = "") -> PydanticCustomError:
    """What pydantic collects as an error of a value, or with `key` of that key of a table."""
    return PydanticCustomError("truba", "{what}", {"what": what, "instead": instead, "key": key})


def shown(value: object) -> str:
    """A value in an error: a password in a url is not shown."""
    return repr(without_user(value) if isinstance(value, str) else value)


def reader(
    read: Callable[[object], Any], least: float = 0, show: Callable[[Any], str] = str, most: float | None = None
) -> PlainValidator:
    def check(value: object) -> Any:
        try:
            result = read(value)
        except ValueError as bad:
            what, wanted = bad.args
            raise refusal(what, f"write {wanted}") from bad
        if least and result < least:
            raise refusal(f"{value!r} is too small", f'write "{show(least)}" or more')
        if most is not None and result > most:
            raise refusal(f"{value!r} is too large", f'write "{show(most)}" or less')
        return result

    return PlainValidator(check)


def text(what: str, pattern: str) -> Callable[[object], str]:
    def read(value: object) -> str:
        if isinstance(value, str) and re.fullmatch(pattern, value):
            return value
        raise ValueError(f"{shown(value)} will not do", what)

    return read


def _path(value: object) -> Path:
    if isinstance(value, str) and value and "\0" not in value:
        return Path(value)
    raise ValueError(f"{value!r} is not a path", 'a path in quotes, such as "data"')


def _whole_sectors(value: object) -> int:
    size = size_bytes(value)
    if size % SECTOR_BYTES and size >= LOG_BYTES_MIN:
        more = size + -size % SECTOR_BYTES
        raise ValueError(f"{value!r} is no whole number of sectors of {SECTOR_BYTES} bytes", f'"{size_text(more)}"')
    return size


def _variable(value: object) -> str:
    """What is written there by mistake may be the secret itself: no error shows it."""
    if isinstance(value, str) and re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", value):
        return value
    raise ValueError(
        "this is no name of a variable", 'the name of a variable of the environment, such as "TRUBA_SECRET"'
    )


Size = Annotated[int, reader(size_bytes, 1, size_text)]
BufferSize = Annotated[int, reader(size_bytes, LOG_BYTES_MIN, size_text, 2**30)]
"""The event loop counts what a connection buffers in 32 bits."""
LogSize = Annotated[int, reader(size_bytes, LOG_BYTES_MIN, size_text)]
SegmentSize = Annotated[int, reader(_whole_sectors, LOG_BYTES_MIN, size_text)]
Time = Annotated[float, reader(seconds)]
TimeAboveZero = Annotated[float, reader(seconds, 0.001, time_text)]
Rate = Annotated[float, reader(rate_per_s)]
FilePath = Annotated[Path, reader(_path)]
Count = Annotated[int, Field(ge=1)]
NodeName = Annotated[str, reader(text('a name of letters, digits, "-", "_" and "."', NAME.pattern))]
ObjectPath = Annotated[str, reader(text('"package.module:object"', MODULE_OBJECT.pattern))]


EnvName = Annotated[str, reader(_variable)]


class Table(BaseModel):
    """A secret NAME is never written into a table: it has `NAME_file`, or `NAME_env`."""

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True)

    def secret(self, name: str) -> Secret | None:
        """Where that secret is; None: the table names none."""
        file, env = getattr(self, f"{name}_file"), getattr(self, f"{name}_env")
        return None if file is None and env is None else Secret(file, env)

    @model_validator(mode="after")
    def _one_place(self) -> Self:
        for key in type(self).model_fields:
            if key.endswith("_env") and getattr(self, key) is not None:
                other = f"{key.removesuffix('_env')}_file"
                if getattr(self, other) is not None:
                    raise refusal(f"there is a {other} too", "keep one of the two", key)
        return self
