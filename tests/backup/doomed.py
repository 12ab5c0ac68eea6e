"""Makes or restores a backup, and is killed at its n-th step.

    python -m tests.backup.doomed make|restore N SOURCE TARGET

A step is anything done to a file at or below TARGET that Python tells of (open, mkdir, rename, remove), and each sync.
Prints how many there were when it is not killed.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path

from truba.backup.restore import restore
from truba.backup.stopped import back_up

TOLD = {"open", "os.mkdir", "os.rename", "os.remove", "os.rmdir", "os.chmod"}


def main() -> None:
    act, doom, source, target = sys.argv[1], int(sys.argv[2]), Path(sys.argv[3]), Path(sys.argv[4])
    steps = 0

    def step() -> None:
        nonlocal steps
        steps += 1
        if steps == doom:
            os.kill(os.getpid(), signal.SIGKILL)

    def audit(event: str, args: tuple[object, ...]) -> None:
        if event in TOLD and str(target) in str(args[0]):
            step()

    def counted(call: Callable[[int], None]) -> Callable[[int], None]:
        def counting(handle: int) -> None:
            step()
            call(handle)

        return counting

    os.fsync, os.fdatasync = counted(os.fsync), counted(os.fdatasync)
    sys.addaudithook(audit)
    if act == "make":
        back_up(source, target, lambda stage, done, of: None)
    else:
        restore(source, target)
    sys.stdout.write(f"{steps}\n")


if __name__ == "__main__":
    main()
