"""One number for the whole state: equal states have equal digests, on every node and after every replay.

What depends on when checkpoints ran (chunks) is left out; everything that a client or an operator could see is in.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable

import msgspec

from truba.machine.machine import Machine
from truba.ports.store import Head

TELL_SESSIONS = 1000

_CHUNKS = Head.__struct_fields__.index("chunks")
_encode = msgspec.msgpack.Encoder().encode


def state_digest(machine: Machine, progress: Callable[[int], object] = lambda sessions: None) -> str:
    """sha256, in hex, over the last Index and every session with its records, in order of number. Reads all records.

    `progress` hears now and then how many sessions have been read.
    """
    sha = hashlib.sha256(_encode((machine.term, machine.seq)))
    if machine.paused:
        sha.update(_encode(sorted(machine.paused)))
    for count, head in enumerate(machine.scan(), 1):
        fields = msgspec.structs.astuple(head)
        sha.update(_encode((fields[:_CHUNKS], fields[_CHUNKS + 1 :], machine.records(head.number))))
        if count % TELL_SESSIONS == 0:
            progress(count)
    return sha.hexdigest()
