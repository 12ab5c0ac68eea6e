"""What the log adds to the bare write and sync of the same bytes, on the same disk, in the same run.

    PYTHONPATH=src python bench/log.py [directory] [--batches N]

Raw: `pwritev` + `fdatasync` of the frame's size into a file of zeros. Inline: `FileLog.append` on the event loop, done
before it returns. Thread: the same over the commit thread, one batch at a time, so both hops are in it. Python: an
append to a disk that answers at once. The ways take turns in small groups of batches, so that a disk in a bad mood is
in a bad mood for each of them. Medians and 99th percentiles, microseconds.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import statistics
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from truba.log.disk import OsDisk
from truba.log.file import FileLog
from truba.log.frame import frame_bytes
from truba.ports.log import LogBatch

SEGMENT_BYTES = 32 << 20
GROUP = 50


class InstantDisk(OsDisk):
    """Neither writes nor syncs frames: what is left is the log's own work."""

    def __init__(self) -> None:
        self.started = False

    def pwritev(self, fd: int, parts: Any, offset: int) -> int:  # type: ignore[override]
        return sum(map(len, parts)) if self.started else os.pwritev(fd, parts, offset)

    def fdatasync(self, fd: int) -> None:  # type: ignore[override]
        pass


def raw(directory: Path, body_bytes: int) -> Callable[[], Awaitable[float]]:
    fd = os.open(directory / "raw", os.O_RDWR | os.O_CREAT)
    for at in range(0, SEGMENT_BYTES, 1 << 20):
        os.pwrite(fd, bytes(1 << 20), at)
    os.fsync(fd)
    frame, at = os.urandom(frame_bytes(body_bytes)), 0

    async def one() -> float:
        nonlocal at
        started_s = time.perf_counter()
        os.pwritev(fd, [frame], at)
        os.fdatasync(fd)
        took_s = time.perf_counter() - started_s
        at = (at + len(frame)) % (SEGMENT_BYTES - len(frame)) // 512 * 512
        return took_s

    return one


def appending(log: FileLog, body_bytes: int) -> Callable[[], Awaitable[float]]:
    body = os.urandom(body_bytes)
    loop = asyncio.get_running_loop()

    async def one() -> float:
        done: asyncio.Future[None] = loop.create_future()

        def tell(error: BaseException | None) -> None:
            if error is None:
                done.set_result(None)
            else:
                done.set_exception(error)

        started_s = time.perf_counter()
        log.append(LogBatch(1, log.tail.seq + 1, 8, body), tell)
        if not done.done():
            await done
        took_s = time.perf_counter() - started_s
        if log.tail.seq % 8000 == 0:
            log.trim(log.tail.seq)
        return took_s

    return one


async def measure(directory: Path, body_bytes: int, batches: int) -> dict[str, list[float]]:
    instant = InstantDisk()
    logs = {
        "inline": FileLog.open(directory / "inline", commit="inline", segment_bytes=SEGMENT_BYTES),
        "thread": FileLog.open(directory / "thread", commit="thread", segment_bytes=SEGMENT_BYTES),
        "auto": FileLog.open(directory / "auto", commit="auto", segment_bytes=SEGMENT_BYTES),
        "python": FileLog.open(directory / "python", commit="inline", segment_bytes=SEGMENT_BYTES, disk=instant),
    }
    await asyncio.sleep(1)  # the segments ahead are being made
    instant.started = True
    ways = {"raw": raw(directory, body_bytes)} | {name: appending(log, body_bytes) for name, log in logs.items()}
    took: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(batches // GROUP):
        for name, one in ways.items():
            took[name] += [await one() * 1e6 for _ in range(GROUP)]
    instant.started = False
    for log in logs.values():
        log.close()
    return took


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("directory", nargs="?", type=Path, default=Path())
    arguments.add_argument("--batches", type=int, default=2_000)
    options = arguments.parse_args()
    print(f"{'body':>8} {'':>4}" + "".join(f"{name:>9}" for name in ("raw", "inline", "thread", "auto", "python")))  # noqa: T201
    for body_bytes in (300, 4_000, 16_000, 64_000, 300_000):
        with tempfile.TemporaryDirectory(dir=options.directory) as directory:
            batches = min(options.batches, (1 << 30) // 4 // body_bytes // GROUP * GROUP)
            took = asyncio.run(measure(Path(directory), body_bytes, max(GROUP, batches)))
        for label, pick in (
            ("p50", statistics.median),
            ("p99", lambda values: sorted(values)[len(values) * 99 // 100]),
        ):
            print(f"{body_bytes:>8} {label:>4}" + "".join(f"{pick(values):>9.1f}" for values in took.values()))  # noqa: T201


if __name__ == "__main__":
    main()
