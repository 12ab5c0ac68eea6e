"""`on_parked = ["/path/to/command", "argument"]`: a program that is told of a parked session on its standard input.

One line of JSON: session, kind, name, cause, detail, attempts. No shell is between, so nothing of it is ever read as a
command. Exit status 0 means that somebody was told. The program runs in a session of its own; when it takes too long,
it and what it has started are killed. What it leaves behind when it ends by itself is neither waited for nor killed.

Python's `subprocess` starts it in a millisecond, whatever the size of this process; uvloop's own way would copy the
page tables first, 27 ms of standing still at 400 MB. asyncio's streams would end with whoever holds its pipes last.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import subprocess
import threading
from collections.abc import Sequence

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
        try:
            run = _Run(self._argv, json.dumps(parked.fields()).encode() + b"\n")
        except (OSError, ValueError) as error:  # ValueError: a zero byte in an argument
            raise CommandFailed(
                f"{self._argv[0]} cannot be run: {getattr(error, 'strerror', None) or error}"
            ) from error
        try:
            code = await run.ended()
        except BaseException:
            await run.kill()
            raise
        if code:
            said = run.said.decode("utf-8", "replace").strip()
            how = f"exit status {code}" if code > 0 else f"killed by {signal.Signals(-code).name}"
            raise CommandFailed(f"{self._argv[0]}: {how}{': ' * bool(said)}{said}")


class _Run:
    """One run of the program, which has begun when this is made. OSError, ValueError: it has not."""

    def __init__(self, argv: Sequence[str], line: bytes) -> None:
        self.said = bytearray()
        self._loop = asyncio.get_running_loop()
        self._exited = asyncio.Event()
        self._silent = asyncio.Event()
        # A file, no pipe: it need not read what it is told, and we never wait until it does. In memory: the disk may be
        # full when there is most to be told.
        with os.fdopen(os.memfd_create("told"), "w+b") as told:
            told.write(line)
            told.seek(0)
            self._process = subprocess.Popen(
                argv, stdin=told, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, start_new_session=True
            )
        assert self._process.stderr is not None
        self._stderr = self._process.stderr
        os.set_blocking(self._stderr.fileno(), False)
        self._loop.add_reader(self._stderr.fileno(), self._hear)
        try:
            threading.Thread(target=self._wait, name=f"waiting for {argv[0]}", daemon=True).start()
        except RuntimeError:  # the system gives no more of them
            os.killpg(self._process.pid, signal.SIGKILL)
            self._exit()
            self._hush()
            raise

    async def ended(self) -> int:
        """Its exit status; negative: the signal that ended it."""
        await self._exited.wait()
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._silent.wait(), LAST_WORDS_S)
        self._hush()
        return self._process.returncode

    async def kill(self) -> None:
        """It and what it has started, for as long as it runs itself."""
        if not self._exited.is_set():
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)
        try:
            await self._exited.wait()
        finally:
            self._hush()

    def _wait(self) -> None:
        """On a thread. Its id stays its own, for nobody else to be killed by mistake, until the loop has heard."""
        with contextlib.suppress(ChildProcessError):  # a program of the user's own that ignores SIGCHLD: it is gone
            os.waitid(os.P_PID, self._process.pid, os.WEXITED | os.WNOWAIT)
        with contextlib.suppress(RuntimeError):  # the loop is closed: nobody wants to know any more
            self._loop.call_soon_threadsafe(self._exit)

    def _exit(self) -> None:
        self._process.wait()
        self._exited.set()

    def _hear(self) -> None:
        with contextlib.suppress(BlockingIOError):
            if more := os.read(self._stderr.fileno(), 4096):
                self.said += more[: SAID_BYTES_MAX - len(self.said)]
            else:
                self._hush()

    def _hush(self) -> None:
        if not self._silent.is_set():
            self._silent.set()
            self._loop.remove_reader(self._stderr.fileno())
            self._stderr.close()
