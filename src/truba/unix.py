"""Unix sockets to listen on: a file that this user alone may open, and that nobody else listens on."""

from __future__ import annotations

import asyncio
import errno
import os
import socket
import stat
from pathlib import Path


async def bound(path: Path) -> socket.socket:
    """A socket with this file, not listening yet: nobody can connect before the file has its rights.

    A file that a dead process left is replaced. OSError, whose text says which: somebody listens there, or another file
    has that name.
    """
    await _remove_stale(path)
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        sock.bind(str(path))
        path.chmod(0o600)  # noqa: ASYNC240 - once, at the start
    except OSError as error:
        sock.close()
        plain = os.strerror(error.errno) if error.errno else str(error)
        raise OSError(error.errno, f"cannot listen on {path}: {plain}") from error
    return sock


async def _remove_stale(path: Path) -> None:
    """A socket file that nobody listens on any more is removed; one in use, or another file, is not."""
    try:
        mode = path.stat().st_mode  # noqa: ASYNC240 - once, at the start
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(mode):
        raise OSError(errno.EEXIST, f"cannot listen on {path}: there is a file of that name")
    try:
        _, writer = await asyncio.open_unix_connection(str(path))
    except ConnectionRefusedError:
        path.unlink()  # noqa: ASYNC240 - once, at the start
        return
    writer.close()
    raise OSError(errno.EADDRINUSE, f"cannot listen on {path}: another process listens there")
