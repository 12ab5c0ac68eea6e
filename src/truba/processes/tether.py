"""Becomes another program that the kernel kills when its parent dies, however that dies.

python -I -S tether.py PARENT_PID PROGRAM [ARGUMENT ...]

Run by its path, not as a module: it imports nothing of truba, so it costs 20 ms. What the kernel calls the parent is
the thread that started the child: start it from one that lives as long as the child should.
"""

import ctypes
import os
import signal
import sys

PR_SET_PDEATHSIG = 1


def tethered(*command: str) -> list[str]:
    """The command that runs `command` as such a child of this process."""
    return [sys.executable, "-I", "-S", __file__, str(os.getpid()), *command]


def main() -> None:
    parent = int(sys.argv[1])
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL) != 0:  # it stays through exec
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_PDEATHSIG)")
    if os.getppid() != parent:
        sys.exit("the parent died before this process was ready to follow it")
    os.execvp(sys.argv[2], sys.argv[2:])


if __name__ == "__main__":
    main()
