"""`python -m truba.backup.child`: makes one backup in a process of its own, beside the pipe that asked for it.

A process and not a thread: reading back every session is Python's work, and would take the pipe's turns. Gets an
`Order` as JSON on one line of stdin, tells JSON lines on stdout: {"stage", "done", "of"}, and last {"made": manifest}
or {"failed": what}. Runs at a lower priority than the pipe.
"""

from __future__ import annotations

import os
import sys
from typing import Any

import msgspec

from truba.backup.make import Order, Stage, make
from truba.errors import TrubaError

NICE = 10
TELL_BYTES = 8 << 20
"""Of copying, between two lines."""


def say(value: Any) -> None:
    os.write(sys.stdout.fileno(), msgspec.json.encode(value) + b"\n")


def main() -> None:
    os.nice(NICE)
    order = msgspec.json.decode(sys.stdin.buffer.readline(), type=Order)
    told: tuple[str, int] = ("", 0)

    def tell(stage: Stage, done: int, of: int) -> None:
        nonlocal told
        if stage != told[0] or stage == "reading" or done - told[1] >= TELL_BYTES:
            told = (stage, done)
            say({"stage": stage, "done": done, "of": of})

    try:
        manifest = make(order, tell)
    except TrubaError as error:
        say({"failed": str(error)})
        sys.exit(1)
    say({"made": manifest})


if __name__ == "__main__":
    main()
