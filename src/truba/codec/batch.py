"""A batch's events as one MessagePack array, and back.

The log carries these bytes and never looks inside. Source: https://jcristharif.com/msgspec/structs.html (array_like).
"""

from __future__ import annotations

import msgspec

from truba.errors import DataDamaged
from truba.machine.events import Event

_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(list[Event])

encode_batch = _encoder.encode
"""`list[Event] -> bytes`."""


def decode_batch(body: bytes) -> list[Event]:
    """Events of a batch. DataDamaged when the bytes are none: the frame's hash was right, so a writer went wrong."""
    try:
        return _decoder.decode(body)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:  # the latter: it lets through what a text raises
        raise DataDamaged(f"a batch of the log does not decode: {error}") from error
