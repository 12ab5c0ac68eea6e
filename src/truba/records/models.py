"""pydantic models as JSON. In a module of its own, so that nobody else pays for pydantic."""

from __future__ import annotations

from typing import Any, Generic, TypeVar, Union

from pydantic import BaseModel, TypeAdapter

from truba.errors import BadRecord, ConfigError
from truba.records.plain import Checked, Show

M = TypeVar("M", bound=BaseModel)


class Models(Checked[M], Generic[M]):
    """Models of these types. Several need a field that tells them apart, such as `type: Literal["debited"]`: one that
    would be read as another type is refused when it is written.

    Fields that a later version adds need defaults, so that it can read what earlier ones wrote.
    """

    def __init__(self, *types: type[M], show: Show[M] | None = None) -> None:
        if not types:
            raise ConfigError("Models needs at least one type: Models(Debited, Credited)")
        union: Any = Union[types]  # noqa: UP007 - of a tuple
        adapter: TypeAdapter[M] = TypeAdapter(union)
        super().__init__(
            lambda record: record.model_dump_json(warnings="error", by_alias=True).encode(),
            adapter.validate_json,
            show,
        )
        self._types = types

    def __repr__(self) -> str:
        return f"Models({', '.join(one.__name__ for one in self._types)})"

    def _check(self, record: Any) -> None:
        if type(record) not in self._types:
            raise BadRecord(f"{type(record).__name__} is none of {self!r}; nothing was stored")
