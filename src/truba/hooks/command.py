"""`on_parked = ["/path/to/command", "argument"]`: a program that is told of a parked session on its standard input.

One line of JSON: session, kind, name, cause, detail, attempts. No shell is between, so nothing of it is ever read as a
command. Exit status 0 means that somebody was told. The program runs in a session of its own; when it takes too long,
it and what it has started are killed. What it leaves behind when it ends by itself is neither waited for nor killed.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
from asyncio.subprocess import DEVNULL, PIPE
from collections.abc import Sequence
from typing import cast

from truba.ports.parked import ParkedSession

SAID_BYTES_MAX = 400
"""Of what the command says on standard error: kept for the log."""

LAST_WORDS_S = 1.0
"""After its end, what it said is on its way for a moment; a pipe that somebody whom it started holds never ends."""


class CommandFailed(Exception):
    """It did not start, or ended otherwise than with exit status 0."""


class CommandHook:
    """See the module. `argv[0]` is the path of the program."""

    def __init__(self, argv: Sequence[str]) -> None:
        self._argv = tuple(argv)

    def __repr__(self) -> str:
        return f"command {self._argv[0]}"

    async def __call__(self, parked: ParkedSession) -> None:
        start = asyncio.ensure_future(
            asyncio.get_running_loop().subprocess_exec(
                Run, *self._argv, stdin=PIPE, stdout=DEVNULL, stderr=PIPE, start_new_session=True
            )
        )
        try:
            # A start that is cancelled half-way would end the program alone, and not what that has started by then.
            _, run = await asyncio.shield(start)
        except (OSError, ValueError) as error:  # ValueError: a zero byte in an argument
            raise CommandFailed(
                f"{self._argv[0]} cannot be run: {getattr(error, 'strerror', None) or error}"
            ) from error
        except asyncio.CancelledError:
            with contextlib.suppress(OSError, ValueError):
                _, run = await start
                await run.kill()
            raise
        try:
            run.tell(json.dumps(parked.fields()).encode() + b"\n")
            code = await run.ended()
        except BaseException:
            await run.kill()
            raise
        if code:
            said = run.said.decode("utf-8", "replace").strip()
            how = f"exit status {code}" if code > 0 else f"killed by {signal.Signals(-code).name}"
            raise CommandFailed(f"{self._argv[0]}: {how}{': ' * bool(said)}{said}")


class Run(asyncio.SubprocessProtocol):
    """One run of the program. Streams of asyncio would have it end when the last one who holds its pipes does."""

    def __init__(self) -> None:
        self.said = bytearray()
        self._exited = asyncio.Event()
        self._silent = asyncio.Event()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.SubprocessTransport", transport)  # uvloop's is of no such class

    def pipe_data_received(self, fd: int, data: bytes) -> None:
        self.said += data[: SAID_BYTES_MAX - len(self.said)]

    def pipe_connection_lost(self, fd: int, exc: Exception | None) -> None:
        if fd == 2:
            self._silent.set()

    def process_exited(self) -> None:
        self._exited.set()

    def tell(self, line: bytes) -> None:
        """It need not read it."""
        stdin = cast("asyncio.WriteTransport", self._transport.get_pipe_transport(0))
        with contextlib.suppress(RuntimeError):  # what uvloop says of one that has closed its end already
            stdin.write(line)
        stdin.close()

    async def ended(self) -> int:
        """Its exit status; negative: the signal that ended it."""
        await self._exited.wait()
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._silent.wait(), LAST_WORDS_S)
        return self._close()

    async def kill(self) -> None:
        """It and its children; while it runs nobody else can have its id."""
        if self._transport.get_returncode() is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._transport.get_pid(), signal.SIGKILL)
        await self._exited.wait()
        self._close()

    def _close(self) -> int:
        code = self._transport.get_returncode()
        assert code is not None
        self._transport.close()
        return code
