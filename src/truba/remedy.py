"""What to do about an error of the system that ended the pipe, or kept it from starting. Pure."""

from __future__ import annotations

import errno

_FILES = "Too many open files"  # EMFILE of this process, ENFILE of the system; RocksDB tells it as a text
_THREADS = "can't start new thread"  # a RuntimeError of Python, which keeps no errno


def want(error: BaseException | None) -> str:
    """What to do when the error, or what it came from, is for want of what the system gives each process so many of;
    empty: it is not."""
    seen = set[int]()
    while error is not None and id(error) not in seen:  # `raise error from error` is its own cause
        seen.add(id(error))
        text = str(error)
        if (isinstance(error, OSError) and error.errno in (errno.EMFILE, errno.ENFILE)) or _FILES in text:
            return (
                "no file descriptor was left, the disk is not to blame: allow this process more (LimitNOFILE= of"
                " systemd, ulimit -n), twice connections_max at the least"
            )
        if _THREADS in text:
            return (
                "the system gave no further thread, the disk is not to blame: allow this process more (TasksMax= of"
                " systemd, ulimit -u, pids of a container), or memory"
            )
        error = error.__cause__
    return ""


def remedy(error: BaseException) -> str:
    """Before the next start."""
    return want(error) or "mend the disk"
