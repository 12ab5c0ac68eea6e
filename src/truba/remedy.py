"""What to do about an error of the system that ended the pipe, or kept it from starting. Pure."""

from __future__ import annotations

import errno

_FILES = "Too many open files"  # EMFILE of this process, ENFILE of the system; RocksDB tells it as a text


def out_of_files(error: BaseException | None) -> bool:
    """Was it, or what it came from, for want of a file descriptor?"""
    seen = set[int]()
    while error is not None and id(error) not in seen:  # `raise error from error` is its own cause
        seen.add(id(error))
        if (isinstance(error, OSError) and error.errno in (errno.EMFILE, errno.ENFILE)) or _FILES in str(error):
            return True
        error = error.__cause__
    return False


def remedy(error: BaseException) -> str:
    """Before the next start."""
    if out_of_files(error):
        return (
            "no file descriptor was left, the disk is not to blame: allow this process more (LimitNOFILE= of systemd,"
            " ulimit -n), twice connections_max at the least"
        )
    return "mend the disk"
