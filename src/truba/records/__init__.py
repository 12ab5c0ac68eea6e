"""Codecs for a session's records: `Bytes` as they are, `Json`, `Structs` of msgspec, `Models` of pydantic.

Each keeps `truba.ports.records.Codec`. What `encode` takes is read back before anything is stored, so a record that no
handler could read is refused when it is written, not found when it is needed. pydantic is imported by `Models` only.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from truba.records.plain import Bytes
from truba.records.structs import Json, Structs

if TYPE_CHECKING:
    from truba.records.models import Models

__all__ = ["Bytes", "Json", "Models", "Structs"]


def __getattr__(name: str) -> Any:
    if name == "Models":
        from truba.records.models import Models

        return Models
    raise AttributeError(f"module 'truba.records' has no attribute {name!r}")
