"""One number for the whole state: equal states have equal digests, on every node and after every replay.

What depends on when checkpoints ran (chunks) is left out; everything that a client or an operator could see is in.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable

import msgspec

from truba.machine.machine import Machine
from truba.ports.store import Head

PAGE = 1000

_CHUNKS = Head.__struct_fields__.index("chunks")
_encode = msgspec.msgpack.Encoder().encode


class StateDigest:
    """sha256 over the last Index and every session with its records, in order of number. Reads all records, `read` by
    `read`: the state must be the same at each of them."""

    def __init__(self, machine: Machine) -> None:
        self.sessions = 0
        self._machine = machine
        self._after: int | None = 0
        self._sha = hashlib.sha256(_encode((machine.term, machine.seq)))
        if machine.paused:
            self._sha.update(_encode(sorted(machine.paused)))

    def read(self, steps_max: int) -> bool:
        """So many sessions more, or somewhat fewer; False: that was all."""
        if self._after is not None:
            heads, self._after = self._machine.page(self._after, steps_max)
            self.sessions += len(heads)
            for head in heads:
                fields = msgspec.structs.astuple(head)
                records = self._machine.records(head.number)
                self._sha.update(_encode((fields[:_CHUNKS], fields[_CHUNKS + 1 :], records)))
        return self._after is not None

    def hex(self) -> str:
        return self._sha.hexdigest()


def state_digest(machine: Machine, progress: Callable[[int], object] = lambda sessions: None) -> str:
    """All of it at once. `progress` hears now and then how many sessions have been read."""
    digest = StateDigest(machine)
    while digest.read(PAGE):
        progress(digest.sessions)
    return digest.hex()
