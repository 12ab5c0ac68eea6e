"""pydantic models as JSON. In a module of its own, so that nobody else pays for pydantic."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Generic, TypeVar, Union

from pydantic import BaseModel, TypeAdapter, ValidationError

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

        def read(data: bytes) -> M:
            try:
                return adapter.validate_json(data)
            except ValidationError as error:
                raise ValueError(_without_input(error)) from None  # its own text quotes the record

        self._types = types
        super().__init__(
            lambda record: record.model_dump_json(warnings="error", by_alias=True).encode(),
            read,
            show,
            dict.fromkeys(name for one in types for name in one.model_fields),
        )

    def __repr__(self) -> str:
        return f"Models({', '.join(one.__name__ for one in self._types)})"

    def _check(self, record: Any) -> None:
        if type(record) not in self._types:
            raise BadRecord(f"{type(record).__name__} is none of {self!r}; nothing was stored")

    def _fields(self, record: M) -> Mapping[str, Any]:
        return {name: getattr(record, name) for name in type(record).model_fields} | (record.model_extra or {})


def _without_input(error: ValidationError) -> str:
    found = error.errors(include_url=False, include_context=False, include_input=False)
    return "; ".join(f"{'.'.join(map(str, one['loc']))}: {one['msg']}".removeprefix(": ") for one in found)
