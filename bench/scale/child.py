"""A part in a process of its own: `python -m bench.scale.child PART JSON`.

On stdout: `progress N` now and then, `result JSON` at the end. What it grew in memory is then its own.
"""

from __future__ import annotations

import asyncio
import importlib
import json
import sys
from asyncio.subprocess import Process
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec
import uvloop

from truba.errors import TrubaError
from truba.garbage import collected_rarely
from truba.processes.tether import tethered

ROOT = Path(__file__).parents[2]


def progressed(count: int) -> None:
    sys.stdout.write(f"progress {count}\n")
    sys.stdout.flush()


@asynccontextmanager
async def started(part: str, **values: object) -> AsyncIterator[Process]:
    """A part in another process; ended with the block, or with this process, whatever it does by then."""
    process = await asyncio.create_subprocess_exec(
        *tethered(sys.executable, "-m", "bench.scale.child", part, json.dumps(values, default=str)),
        cwd=ROOT,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        limit=64 << 20,
    )
    try:
        yield process
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


async def result_of(process: Process, on_progress: Callable[[int], None]) -> dict[str, Any]:
    """What it says in the end. TrubaError when it ends without."""
    assert process.stdout is not None
    async for line in process.stdout:
        word, _, rest = line.decode().partition(" ")
        if word == "progress":
            on_progress(int(rest))
        elif word == "result":
            found: dict[str, Any] = json.loads(rest)
            return found
    raise TrubaError(f"a part of the measurement ended with {await process.wait()} and without a result")


async def run(part: str, on_progress: Callable[[int], None], **values: object) -> dict[str, Any]:
    """Run a part in another process, to its end; its result."""
    async with started(part, **values) as process:
        found = await result_of(process, on_progress)
        await process.wait()
        return found


def say_result(value: object) -> None:
    sys.stdout.write(f"result {msgspec.json.encode(value).decode()}\n")
    sys.stdout.flush()


def main() -> None:
    part, values = sys.argv[1:]
    module = importlib.import_module(f"bench.scale.parts.{part}")
    with collected_rarely():  # as `truba serve` does
        uvloop.run(module.measure(**json.loads(values)))


if __name__ == "__main__":
    main()
