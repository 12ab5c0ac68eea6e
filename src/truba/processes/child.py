"""A child process: started, read line by line, signalled by its own descriptor, never outliving us.

It runs in a session of its own, so Ctrl-C at the terminal reaches only us, and on a tether, so the kernel kills it
should we die without a word.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from asyncio.subprocess import DEVNULL, PIPE, Process
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Literal

from truba.processes.tether import tethered

LINE_BYTES_MAX = 1 << 20


class Child:
    """A running child. `lines()` is what it says on the stream that was asked for; all else goes to its log file."""

    def __init__(self, name: str, process: Process, tells: Literal["stdout", "stderr"]) -> None:
        self.name = name
        self._process = process
        # A descriptor of the process: a signal through it can never reach a stranger that was given the same id.
        # -1: it is dead already, and its id perhaps somebody else's.
        self._pidfd = -1
        if process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                self._pidfd = os.pidfd_open(process.pid)
        self._stream = process.stdout if tells == "stdout" else process.stderr

    @classmethod
    async def start(cls, name: str, *command: str, log: Path, tells: Literal["stdout", "stderr"] = "stdout") -> Child:
        with log.open("ab") as log_file:
            process = await asyncio.create_subprocess_exec(
                *tethered(*command),
                stdin=PIPE,
                stdout=PIPE if tells == "stdout" else DEVNULL,
                stderr=PIPE if tells == "stderr" else log_file,
                limit=LINE_BYTES_MAX,
                start_new_session=True,
            )
        return cls(name, process, tells)

    async def lines(self) -> AsyncIterator[str]:
        """Until the child closes the stream, which it does at the latest when it dies."""
        assert self._stream is not None
        while line := await self._stream.readline():
            if line.endswith(b"\n"):  # what a dying child did not finish, it did not say
                yield line.decode().rstrip("\n")

    def tell(self, line: str) -> None:
        """A line on its stdin; nothing happens when it is dead, which its end of lines says."""
        assert self._process.stdin is not None
        if not self._process.stdin.is_closing():
            self._process.stdin.write(line.encode() + b"\n")

    def hang_up(self) -> None:
        """Close its stdin."""
        assert self._process.stdin is not None
        self._process.stdin.close()

    def signal(self, signum: signal.Signals) -> None:
        """Nothing happens when it is dead."""
        if self._pidfd >= 0:
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(self._pidfd, signum)

    async def wait(self) -> int:
        """Its exit code; negative: the signal that ended it."""
        code = await self._process.wait()
        if self._pidfd >= 0:
            os.close(self._pidfd)
            self._pidfd = -1
        return code

    async def kill(self) -> None:
        """SIGKILL, and wait for its end. A stopped process dies too."""
        self.signal(signal.SIGKILL)
        await self.wait()
