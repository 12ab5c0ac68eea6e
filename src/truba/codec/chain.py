"""The chain hash: what a batch is, and all that it follows, in 16 bytes.

The first 16 bytes of sha256(log id, count, term, first seq, previous term, previous chain hash, body). It does not say
where the batch lies, so all copies of one log agree, whatever their segments are and whatever carried them.
"""

from __future__ import annotations

import struct
from hashlib import sha256

from truba.ports.log import LogBatch
from truba.types import Position

LINK = struct.Struct("<IQQQ16s")
"""Event count, term, first seq, previous term, previous chain hash; little-endian."""


class Chain:
    """The chain of the log with this id (16 bytes)."""

    __slots__ = ("_hash_seed", "log_id")

    def __init__(self, log_id: bytes) -> None:
        self.log_id = log_id
        self._hash_seed = sha256(log_id)

    def chain(self, after: Position, batch: LogBatch) -> bytes:
        """The chain hash through `batch` when it follows `after`."""
        digest = self._hash_seed.copy()
        digest.update(LINK.pack(batch.count, batch.term, batch.first_seq, after.term, after.chain))
        digest.update(batch.body)
        return digest.digest()[:16]
