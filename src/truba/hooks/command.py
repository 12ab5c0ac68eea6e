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

LAST_WORDS_S = 1.0
"""After its end: what it has started may keep its standard error open for as long as it likes."""


class CommandFailed(Exception):
    """It did not start, or ended otherwise than with exit status 0."""


class CommandHook:
    """See the module. `argv[0]` is the path of the program."""

    def __init__(self, argv: Sequence[str]) -> None:
        self._argv = tuple(argv)

    def __repr__(self) -> str:
        return f"command {self._argv[0]}"

    async def __call__(self, parked: ParkedSession) -> None:
        # A pipe of our own: asyncio's keep `wait` waiting for whatever the command has left behind that holds them.
        theirs = asyncio.StreamReader()
        ours, end = os.pipe()
        try:
            hearing, _ = await asyncio.get_running_loop().connect_read_pipe(
                lambda: asyncio.StreamReaderProtocol(theirs), os.fdopen(ours, "rb", 0)
            )
            try:
                process = await asyncio.create_subprocess_exec(
                    *self._argv, stdin=PIPE, stdout=DEVNULL, stderr=end, start_new_session=True
                )
            except (OSError, ValueError) as error:  # ValueError: a zero byte in an argument
                hearing.close()
                raise CommandFailed(
                    f"{self._argv[0]} cannot be run: {getattr(error, 'strerror', None) or error}"
                ) from error
        finally:
            os.close(end)
        try:
            said = await converse(process, theirs, json.dumps(parked.fields()).encode() + b"\n")
            code = await process.wait()
        except BaseException:
            await _kill(process)
            raise
        finally:
            hearing.close()
        if code:
            how = f"exit status {code}" if code > 0 else f"killed by {signal.Signals(-code).name}"
            raise CommandFailed(f"{self._argv[0]}: {how}{': ' * bool(said)}{said}")


async def converse(process: Process, stderr: asyncio.StreamReader, line: bytes) -> str:
    """Tell it, and hear it out until it ends; the beginning of what it says on standard error."""
    assert process.stdin is not None
    # It need not read what it is told. RuntimeError: what uvloop says of one that has closed its end already.
    with contextlib.suppress(BrokenPipeError, ConnectionResetError, RuntimeError):
        process.stdin.write(line)
        await process.stdin.drain()
    process.stdin.close()
    said = bytearray()
    hearing = asyncio.create_task(_hear(stderr, said))
    try:
        await process.wait()
        await asyncio.wait([hearing], timeout=LAST_WORDS_S)
    finally:
        hearing.cancel()
    return said.decode("utf-8", "replace").strip()


async def _hear(stderr: asyncio.StreamReader, said: bytearray) -> None:
    while more := await stderr.read(4096):
        said += more[: SAID_BYTES_MAX - len(said)]


async def _kill(process: Process) -> None:
    """It and its children; by then nobody else can have its id, for it has not been waited for."""
    if process.returncode is None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        await process.wait()
