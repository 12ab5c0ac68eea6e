"""A child of a process that has a lot of memory and no time: started in a third of a millisecond, whatever its size.

asyncio's own way makes a copy of the page tables where uvloop is the loop: 27 ms of standing still at 400 MB. Python's
`subprocess` does without (vfork). Otherwise as `truba.processes.child`: on a tether, in a session of its own.
"""

from __future__ import annotations

import asyncio
import subprocess
from asyncio import StreamReader, StreamReaderProtocol
from collections.abc import AsyncIterator
from pathlib import Path

from truba.processes.tether import tethered

LINE_BYTES_MAX = 1 << 20


class LightChild:
    """A running child, which was given its work on stdin. `lines()` is what it says on stdout."""

    def __init__(self, process: subprocess.Popen[bytes], reader: StreamReader, transport: asyncio.BaseTransport):
        self._process = process
        self._reader = reader
        self._transport = transport

    @classmethod
    async def start(cls, *command: str, work: bytes, errors: Path) -> LightChild:
        """`work`: a line, far smaller than what a pipe holds. `errors`: the file that gets its stderr. On the loop."""
        process = _spawn(command, work, errors)
        reader = StreamReader(limit=LINE_BYTES_MAX)
        try:
            transport, _ = await asyncio.get_running_loop().connect_read_pipe(
                lambda: StreamReaderProtocol(reader), process.stdout
            )
        except BaseException:
            process.kill()
            process.wait()
            raise
        return cls(process, reader, transport)

    async def lines(self) -> AsyncIterator[bytes]:
        """Until the child closes the stream, which it does at the latest when it dies."""
        while line := await self._reader.readline():
            if line.endswith(b"\n"):  # what a dying child did not finish, it did not say
                yield line

    async def kill(self) -> None:
        """SIGKILL, and wait for its end. Nothing happens when it is dead; a stopped process dies too."""
        self._process.kill()
        self._transport.close()
        await asyncio.to_thread(self._process.wait)


def _spawn(command: tuple[str, ...], work: bytes, errors: Path) -> subprocess.Popen[bytes]:
    with errors.open("ab") as file:
        process = subprocess.Popen(
            tethered(*command), stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=file, start_new_session=True
        )
    assert process.stdin is not None
    try:
        process.stdin.write(work + b"\n")
        process.stdin.close()
    except BrokenPipeError:
        pass  # it is dead already, which the end of its lines says
    return process
