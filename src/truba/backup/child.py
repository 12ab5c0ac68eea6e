"""`python -m truba.backup.child`: makes one backup in a process of its own, beside the pipe that asked for it.

A process and not a thread: reading back every session is Python's work, and would take the pipe's turns. Gets an
`Order` as JSON on one line of stdin, tells JSON lines on stdout: {"stage", "done", "of"}, and last {"made": what the
manifest says} or {"failed": why} (`Said`). Runs at a lower priority than the pipe.
"""

from __future__ import annotations

import os
import sys

import msgspec

from truba.backup.make import Order, Stage, make
from truba.errors import TrubaError
from truba.ports.backup import Made

NICE = 10
TELL_BYTES = 8 << 20
"""Of copying, between two lines."""


class Said(msgspec.Struct, frozen=True, omit_defaults=True):
    """A line."""

    stage: str = ""
    done: int = 0
    of: int = 0
    failed: str = ""
    made: Made | None = None


def say(said: Said) -> None:
    os.write(sys.stdout.fileno(), msgspec.json.encode(said) + b"\n")


def main() -> None:
    os.nice(NICE)
    order = msgspec.json.decode(sys.stdin.buffer.readline(), type=Order)
    told: tuple[str, int] = ("", 0)

    def tell(stage: Stage, done: int, of: int) -> None:
        nonlocal told
        if stage != told[0] or stage == "reading" or done - told[1] >= TELL_BYTES:
            told = (stage, done)
            say(Said(stage, done, of))

    try:
        manifest = make(order, tell)
    except TrubaError as error:
        say(Said(failed=str(error)))
        sys.exit(1)
    at = manifest.at
    say(Said(made=Made(at.term, at.seq, manifest.sessions, manifest.bytes, manifest.made_ms)))


if __name__ == "__main__":
    main()
