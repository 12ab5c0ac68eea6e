"""Codecs: what a session's records are for those who write and read them.

The pipe keeps bytes, and no operation asks a codec; the views of operators ask what may be shown. Shipped:
`truba.records` (bytes, JSON, msgspec structs, pydantic models).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, Protocol, TypeVar

from truba.errors import BadRecord

R = TypeVar("R")

SHOWN_BYTES_MAX = 1 << 20
"""A larger record is not given to a codec to be shown: decoding it would hold up whatever else this process does."""

SHOWN_CHARS_MAX = 4096
"""Of one record: a codec may allow a field of any length."""


class Codec(Protocol[R]):
    """Turns records into bytes and back. `decode(encode(record)) == record`, or `encode` refuses the record."""

    def encode(self, record: R, /) -> bytes:
        """BadRecord: this could not be read again; nothing was stored."""

    def decode(self, data: bytes, /) -> R:
        """BadRecord: these bytes are no record of this codec."""

    def shown(self, data: bytes, /) -> str:
        """What may be shown of a record where people look: in a `repr`, in a log, to an operator. Says nothing of the
        contents unless whoever made the codec has allowed it. BadRecord: these bytes are no record of this codec. May
        be called in any thread; who looks, looks through `Shown`."""


class Shown:
    """What may be shown of some records; worked out when somebody looks.

    Whatever a codec does, there is a text for each record, of SHOWN_CHARS_MAX characters and a few: what it cannot read
    or fails to show is told by its size. No error's own text is shown, since it may quote the record; `failed` is
    called with what the codec raised, but not with BadRecord.
    """

    __slots__ = ("_codec", "_failed", "_records")

    def __init__(
        self,
        codec: Codec[Any],
        records: Sequence[bytes],
        failed: Callable[[BaseException], object] | None = None,
    ) -> None:
        self._codec = codec
        self._records = records
        self._failed = failed

    def __iter__(self) -> Iterator[str]:
        return map(self._text, self._records)

    def __repr__(self) -> str:
        return f"[{', '.join(self)}]"

    def _text(self, data: bytes) -> str:
        if len(data) > SHOWN_BYTES_MAX:
            return f"{len(data)} bytes, too many to be shown by the codec"
        try:
            text = self._codec.shown(data)
            if not isinstance(text, str):
                raise TypeError(f"shown() gives a text, not {type(text).__name__}")
        except BadRecord:
            return f"{len(data)} bytes, not readable by the codec"
        except (Exception, SystemExit) as error:  # whatever the user's own code raises: those who look are told
            if self._failed is not None:
                self._failed(error)
            return f"{len(data)} bytes, the codec failed to show them: {type(error).__name__}"
        left = len(text) - SHOWN_CHARS_MAX
        whole = text if left <= 0 else f"{text[:SHOWN_CHARS_MAX]} ... {left} characters more"
        return whole.encode(errors="replace").decode()  # half a surrogate pair is no text to send anybody


def is_codec(found: object) -> bool:
    """As far as can be told without a record. A class is none: it makes them."""
    needed = ("encode", "decode", "shown")
    return not isinstance(found, type) and all(callable(getattr(found, name, None)) for name in needed)
