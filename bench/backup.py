"""How long a pipe stands still, and how much slower it is, while it is backed up.

    python bench/backup.py [--sessions 200000] [--clients 16] [--seconds 10] [--rounds 3]

A real pipe that holds so many stored sessions of 300 bytes, most of them in its store. A process with CLIENTS
connections opens, appends to and deletes sessions without a pause; this one says PING every millisecond and takes the
time to the answer: what the pipe's loop lets anybody wait. Measured for so many seconds without a backup, and over each
whole backup. All of it shares this machine's cores, the process that makes the backup included.
"""

from __future__ import annotations

import argparse
import asyncio
import socket
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

import truba
from tests.service.process import Server, Servers, kind
from tests.service.wire import Wire, fields, request

STEP_S = 0.001
RECORD = b"x" * 300


class Turn(NamedTuple):
    seconds: float
    operations_s: float
    p50_ms: float
    p999_ms: float
    worst_ms: float


async def work(url: str, clients: int) -> None:
    """Without a pause, until its stdin ends; says how many operations it has done when it is asked by a line."""
    done = 0

    async def client() -> None:
        nonlocal done
        async with truba.connect(url) as pipe:
            while True:
                session = await pipe.new(7, RECORD)
                await session.append(RECORD)
                await session.delete()
                done += 3

    tasks = [asyncio.create_task(client()) for _ in range(clients)]
    while await asyncio.to_thread(sys.stdin.readline):
        sys.stdout.write(f"{done}\n")
        sys.stdout.flush()
    for task in tasks:
        task.cancel()


def fill(server: Server, sessions: int) -> None:
    """Stored for a long time."""
    with Wire.dial(server.address) as wire:
        for at in range(0, sessions, 1000):
            ids = wire.asked(request("NEW", 7, RECORD) for _ in range(min(1000, sessions - at)))
            wire.asked(request("STORE", name, 10**6) for name in ids)


def watch(server: Server, until: float | None) -> Turn:
    """PINGs for so many seconds; None: until the backup is over. Operations are filled in by the caller."""
    waited_s: list[float] = []
    with Wire.dial(server.address) as wire:
        wire.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        began_s = look_s = time.perf_counter()
        while True:
            asked_s = time.perf_counter()
            wire.ask("PING")
            now_s = time.perf_counter()
            waited_s.append(now_s - asked_s)
            if until is not None and now_s - began_s > until:
                break
            if until is None and now_s - look_s > 0.05:
                look_s = now_s
                found = fields(wire.ask("BACKUP"))
                if found["state"] != b"running":
                    assert found["state"] == b"done", found
                    break
            time.sleep(max(0.0, STEP_S - (now_s - asked_s)))
    waited_s.sort()
    at = [waited_s[min(len(waited_s) - 1, int(len(waited_s) * part))] * 1000 for part in (0.5, 0.999, 1.0)]
    return Turn(time.perf_counter() - began_s, 0.0, *at)


async def measure(options: argparse.Namespace) -> None:
    with tempfile.TemporaryDirectory(dir=options.directory) as room:
        servers = Servers(Path(room))
        try:
            server = await asyncio.to_thread(servers.start, kind(), node='data = "data"\nbackups = "backups"\n')
            await asyncio.to_thread(fill, server, options.sessions)
            pipe = asyncio.subprocess.PIPE
            command = (sys.executable, __file__, "--work", server.url, "--clients", str(options.clients))
            worker = await asyncio.create_subprocess_exec(*command, stdin=pipe, stdout=pipe)
            assert worker.stdin is not None
            assert worker.stdout is not None

            async def done() -> int:
                assert worker.stdin is not None
                assert worker.stdout is not None
                worker.stdin.write(b"\n")
                return int(await worker.stdout.readline())

            await asyncio.sleep(1.0)
            print(f"{options.sessions:,} stored sessions, {options.clients} clients")  # noqa: T201
            print("            seconds  operations/s  p50 ms  p99.9 ms  longest ms")  # noqa: T201
            for number in range(options.rounds):
                for what in ("alone", "backing up"):
                    if what != "alone":
                        with Wire.dial(server.address) as wire:
                            wire.ask("BACKUP", f"{number}")
                    before = await done()
                    turn = await asyncio.to_thread(watch, server, options.seconds if what == "alone" else None)
                    rate = (await done() - before) / turn.seconds
                    print(  # noqa: T201
                        f"{what:10}  {turn.seconds:7.1f}  {rate:12,.0f}  {turn.p50_ms:6.2f}  {turn.p999_ms:8.2f}"
                        f"  {turn.worst_ms:10.2f}",
                        flush=True,
                    )
            worker.stdin.close()
            await worker.wait()
        finally:
            servers.stop()


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--sessions", type=int, default=200_000)
    options.add_argument("--clients", type=int, default=16)
    options.add_argument("--seconds", type=float, default=10.0)
    options.add_argument("--rounds", type=int, default=3)
    options.add_argument("--directory", help="where the disk is")
    options.add_argument("--work", help=argparse.SUPPRESS)
    chosen = options.parse_args()
    if chosen.work:
        asyncio.run(work(chosen.work, chosen.clients))
    else:
        asyncio.run(measure(chosen))


if __name__ == "__main__":
    main()
