"""Makes or restores a backup again and again, and is killed at its first step, its second, and so on.

    python -m tests.backup.doomed make|restore SOURCE DIRECTORY

The n-th try is a process of its own, on the target DIRECTORY/n, which it leaves as it is when it dies. A step is
anything done to a file at or below the target that Python tells of (open, mkdir, rename, remove), and each sync. Prints
the number of the try that nobody killed.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable
from itertools import count
from pathlib import Path

from truba.backup.restore import restore
from truba.backup.stopped import back_up

TOLD = {"open", "os.mkdir", "os.rename", "os.remove", "os.rmdir", "os.chmod"}


def doom(at: int, act: str, source: Path, target: Path) -> None:
    steps = 0

    def step() -> None:
        nonlocal steps
        steps += 1
        if steps == at:
            os.kill(os.getpid(), signal.SIGKILL)

    def audit(event: str, args: tuple[object, ...]) -> None:
        if event in TOLD and f"{args[0]}/".startswith(f"{target}/"):
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


def main() -> None:
    act, source, directory = sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3])
    for at in count(1):
        child = os.fork()  # nothing has started a thread yet
        if child == 0:
            doom(at, act, source, directory / str(at))
            os._exit(0)
        code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        if code == 0:
            sys.stdout.write(f"{at}\n")
            return
        assert code == -signal.SIGKILL, f"try {at} ended with {code}"


if __name__ == "__main__":
    main()
