"""JSON values, and msgspec structs as JSON: readable in any language, and by people in `truba show`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Generic, TypeVar, Union

import msgspec

from truba.errors import BadRecord, ConfigError
from truba.records.plain import Checked, Show

S = TypeVar("S", bound=msgspec.Struct)


class Json(Checked[Any]):
    """What JSON knows: dict with texts as keys, list, str, int, float, bool, None. A tuple is refused: it would come
    back as a list. `show` with names is about the keys of a dict."""

    def __init__(self, *, show: Show[Any] | None = None) -> None:
        super().__init__(msgspec.json.encode, msgspec.json.decode, show)

    def __repr__(self) -> str:
        return "Json()"

    def _fields(self, record: Any) -> Mapping[str, Any] | None:
        return record if isinstance(record, dict) else None


class Structs(Checked[S], Generic[S]):
    """Structs of these types. Several types need tags: `class Debited(msgspec.Struct, tag=True)`.

    Fields that a later version adds need defaults, so that it can read what earlier ones wrote.
    """

    def __init__(self, *types: type[S], show: Show[S] | None = None) -> None:
        if not types:
            raise ConfigError("Structs needs at least one type: Structs(Debited, Credited)")
        try:
            decoder: msgspec.json.Decoder[S] = msgspec.json.Decoder(Union[types])  # noqa: UP007 - of a tuple
        except TypeError as error:
            raise ConfigError(f"these types cannot be told apart: {error}; give each tag=True") from error
        self._types = types
        known = dict.fromkeys(name for one in types for name in one.__struct_fields__)
        super().__init__(msgspec.json.encode, decoder.decode, show, known)

    def __repr__(self) -> str:
        return f"Structs({', '.join(one.__name__ for one in self._types)})"

    def _check(self, record: Any) -> None:
        if type(record) not in self._types:
            raise BadRecord(f"{type(record).__name__} is none of {self!r}; nothing was stored")

    def _fields(self, record: S) -> Mapping[str, Any]:
        return {name: getattr(record, name) for name in record.__struct_fields__}
