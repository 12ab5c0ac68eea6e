"""`on_parked = ["/path/to/command", "argument"]`: a program that is told of a parked session on its standard input.

One line of JSON: session, kind, name, cause, detail, attempts. No shell is between, so nothing of it is ever read as a
command. Exit status 0 means that somebody was told. The program runs in a session of its own; when it takes too long,
it and what it has started are killed.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
from asyncio.subprocess import DEVNULL, PIPE, Process
from collections.abc import Sequence

from truba.ports.parked import ParkedSession

SAID_BYTES_MAX = 400
"""Of what the command says on standard error: kept for the log."""


class CommandFailed(Exception):
    """It did not start, or ended otherwise than with exit status 0."""


class CommandHook:
    """See the module. `argv[0]` is the path of the program."""

    def __init__(self, argv: Sequence[str]) -> None:
        self._argv = tuple(argv)

    def __repr__(self) -> str:
        return f"command {self._argv[0]}"

    async def __call__(self, parked: ParkedSession) -> None:
        try:
            process = await asyncio.create_subprocess_exec(
                *self._argv, stdin=PIPE, stdout=DEVNULL, stderr=PIPE, start_new_session=True
            )
        except (OSError, ValueError) as error:  # ValueError: a zero byte in an argument
            raise CommandFailed(
                f"{self._argv[0]} cannot be run: {getattr(error, 'strerror', None) or error}"
            ) from error
        try:
            said = await converse(process, json.dumps(parked.fields()).encode() + b"\n")
            code = await process.wait()
        except BaseException:
            await _kill(process)
            raise
        if code:
            how = f"exit status {code}" if code > 0 else f"killed by {signal.Signals(-code).name}"
            raise CommandFailed(f"{self._argv[0]}: {how}{': ' * bool(said)}{said}")


async def converse(process: Process, line: bytes) -> str:
    """Tell it, and hear it out; the beginning of what it says on standard error."""
    assert process.stdin is not None
    assert process.stderr is not None
    # It need not read what it is told. RuntimeError: what uvloop says of one that has closed its end already.
    with contextlib.suppress(BrokenPipeError, ConnectionResetError, RuntimeError):
        process.stdin.write(line)
        await process.stdin.drain()
    process.stdin.close()
    said = b""
    while more := await process.stderr.read(4096):
        said = (said + more)[:SAID_BYTES_MAX]
    return said.decode("utf-8", "replace").strip()


async def _kill(process: Process) -> None:
    """It and its children; by then nobody else can have its id, for it has not been waited for."""
    if process.returncode is None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        await process.wait()
