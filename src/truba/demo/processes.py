"""Child processes of the demo: started, read line by line, killed by their own id, never outliving the demo.

Each runs in a session of its own, so Ctrl-C at the terminal reaches only the demo, and under `truba.demo.child`, so
the kernel kills it should the demo die without a word.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
from asyncio.subprocess import DEVNULL, PIPE, Process
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Literal

from truba.errors import TrubaError

LINE_BYTES_MAX = 1 << 20


class DemoFailed(TrubaError):
    """Something happened that no kill explains."""


class Child:
    """A running child. `lines()` is what it says on the stream that was asked for; all else goes to its log file."""

    def __init__(self, name: str, process: Process, tells: Literal["stdout", "stderr"]) -> None:
        self.name = name
        self._process = process
        # A descriptor of the process: a signal through it can never reach a stranger that was given the same id.
        self._pidfd = os.pidfd_open(process.pid)
        self._stream = process.stdout if tells == "stdout" else process.stderr

    @classmethod
    async def start(
        cls, name: str, module: str, *args: str, log: Path, tells: Literal["stdout", "stderr"] = "stdout"
    ) -> Child:
        with log.open("ab") as log_file:
            process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "truba.demo.child", str(os.getpid()), module, *args),
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

    async def ended(self, *, stopping: bool, kills: int, log: Path) -> bool:
        """Wait for the end of one that dies once: True when it was asked to stop, False when it was killed.

        DemoFailed: neither was done to it, or it did not stop cleanly.
        """
        code = await self.wait()
        if code == 0 and stopping:
            return True
        if code != -signal.SIGKILL or kills != 1:
            raise DemoFailed(f"the {self.name} ended with {code}; see {log}")
        return False

    async def kill(self) -> None:
        """SIGKILL, and wait for its end. A stopped process dies too."""
        self.signal(signal.SIGKILL)
        await self.wait()
