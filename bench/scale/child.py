"""A part in a process of its own: `python -m bench.scale.child PART JSON`.

On stdout: `progress N` now and then, `result JSON` at the end. What it grew in memory is then its own.
"""

from __future__ import annotations

import asyncio
import importlib
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import uvloop

from truba.errors import TrubaError
from truba.garbage import collected_rarely

PARTS = ("fill", "look", "deliver", "service", "owners", "active", "lost", "long", "large", "steady")


def progressed(count: int) -> None:
    sys.stdout.write(f"progress {count}\n")
    sys.stdout.flush()


async def run(part: str, on_progress: Callable[[int], None], **values: object) -> dict[str, Any]:
    """Run a part in another process; its result."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "bench.scale.child",
        part,
        msgspec.json.encode({name: str(value) if isinstance(value, Path) else value for name, value in values.items()}),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        limit=64 << 20,
    )
    assert process.stdout is not None
    try:
        async for line in process.stdout:
            word, _, rest = line.decode().rstrip("\n").partition(" ")
            if word == "progress":
                on_progress(int(rest))
            elif word == "result":
                found: dict[str, Any] = msgspec.json.decode(rest)
                await process.wait()
                return found
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    raise TrubaError(f"part {part!r} ended with {process.returncode} and without a result")


def say_result(value: object) -> None:
    sys.stdout.write(f"result {msgspec.json.encode(value).decode()}\n")
    sys.stdout.flush()


def main() -> None:
    part, values = sys.argv[1:]
    module = importlib.import_module(f"bench.scale.parts.{part}")
    with collected_rarely():  # as `truba serve` does
        uvloop.run(module.measure(**msgspec.json.decode(values)))


if __name__ == "__main__":
    main()
