"""What a hundred thousand sessions due at once for a bad handler cost the kind beside it.

    python -m bench.hell [--sessions 100000] [--seconds 10] [--rate 200] [--rounds 3] [WAY ...]

A real pipe, with two kinds. The healthy one has a handler service in a process of its own and, all the time, RATE
sessions a second that are due at once. Measured: how long from before a session's only Append and its Store until the
handler has it, by the clock that all processes of the machine share. The other kind's handler is bad in one WAY (see
`tests/hell/handlers.py`, or Nobody: nothing listens); its sessions all come due when the measuring begins.

Each round is a pipe without those sessions, then one with them, both otherwise the same. Said: medians over the rounds
of the healthy kind's p50 and p99, the ratio of the two p99 (at most 2 is wanted; exit status 1 when it is more), how
much the pipe's memory has grown for each session of the bad kind, how often its handler was dialled, and how many
hand-overs reached it. Clients, bad handlers and the pipe share this machine's cores.
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import sys
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import NamedTuple

import truba
from tests.hell.handlers import BAD, Service
from tests.hell.real import Guest, Place, place
from tests.service.process import NOBODY, Server, Servers, kind
from truba.bench.latency import percentiles
from truba.client.admin import Admin
from truba.client.remote import RemotePipe
from truba.types import Phase

WELL, ILL = 1, 2
WAYS: dict[str, type[Service] | None] = {"Nobody": None} | {one.__name__: one for one in BAD}
RECORD = b"x" * 256
LEAD_S = 2.0
"""From the last Store of the bad kind to the moment at which all of them are due."""

SETTINGS: dict[str, object] = {"max_attempts": 0, "handler_timeout": "2s"}


class Turn(NamedTuple):
    p50_us: int
    p99_us: int
    rss_bytes: int  # grown since the pipe was empty, at most
    dials: int
    handed_over: int


async def handle_well() -> None:
    """The healthy handler service: says its address, then one line for each session: microseconds from its stamp."""

    async def handle(repeat: truba.RepeatData) -> None:
        late_ns = time.monotonic_ns() - int(repeat.records[0])
        sys.stdout.write(f"{late_ns // 1_000}\n")

    async with truba.serve_handlers({WELL: handle}, "127.0.0.1:0") as server:
        sys.stdout.write(f"{server.address}\n")
        sys.stdout.flush()
        await asyncio.to_thread(sys.stdin.read)
        sys.stdout.flush()


@asynccontextmanager
async def healthy() -> AsyncIterator[asyncio.subprocess.Process]:
    pipe = asyncio.subprocess.PIPE
    process = await asyncio.create_subprocess_exec(
        sys.executable, __file__, "--handle-well", stdin=pipe, stdout=pipe, limit=1 << 20
    )
    try:
        yield process
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


async def load(pipe: RemotePipe, rate: float, seconds: float) -> int:
    """Sessions at an even pace, whatever becomes of the earlier ones."""
    began_s, tasks = time.monotonic(), set[asyncio.Task[None]]()

    async def one() -> None:
        session = await pipe.new(WELL)
        await session.append(b"%d" % time.monotonic_ns())
        await session.store(0)

    count = round(rate * seconds)
    for at in range(count):
        await asyncio.sleep(max(0.0, began_s + at / rate - time.monotonic()))
        tasks.add(asyncio.create_task(one()))
    await asyncio.gather(*tasks)
    return count


async def owe(pipe: RemotePipe, sessions: int) -> None:
    """So many sessions of the bad kind, all due at one moment, LEAD_S after the last of them."""
    step = 1_000
    made = [session for _ in range(0, sessions, step) for session in await _opened(pipe, min(step, sessions))]
    due_s = time.monotonic() + LEAD_S + sessions / 20_000
    for at in range(0, len(made), step):
        delay_s = max(0.0, due_s - time.monotonic())
        await asyncio.gather(*(session.store(delay_s) for session in made[at : at + step]))
    await asyncio.sleep(max(0.0, due_s - time.monotonic()))


async def _opened(pipe: RemotePipe, count: int) -> list[truba.client.remote.RemoteSession]:
    return await asyncio.gather(*(pipe.new(ILL, RECORD) for _ in range(count)))


async def turn(servers: Servers, way: str, sessions: int, options: argparse.Namespace, name: str) -> Turn:
    async with AsyncExitStack() as stack:
        handler = await stack.enter_async_context(healthy())
        assert handler.stdout is not None
        assert handler.stdin is not None
        address = (await handler.stdout.readline()).decode().strip()
        bad = WAYS[way]
        there: Place | None = None
        if bad is not None:
            there = await stack.enter_async_context(place(Guest(ILL), bad))
        text = kind(WELL, "well", f"truba://{address}") + kind(ILL, "ill", there.url if there else NOBODY, **SETTINGS)
        server = await asyncio.to_thread(servers.start, text, node=f'data = "{name}"\n')
        stack.callback(server.kill)
        pipe = await stack.enter_async_context(truba.connect(server.url))
        await load(pipe, options.rate, 1.0)  # warm
        empty_bytes = server.rss_bytes()
        if sessions:
            await owe(pipe, sessions)
        memory = asyncio.create_task(_peak(server))
        count = await load(pipe, options.rate, options.seconds)
        await _all_done(server)
        memory.cancel()
        handler.stdin.close()
        lines = (await handler.stdout.read()).split()
        warm = round(options.rate)
        assert len(lines) == warm + count, f"{len(lines)} of {warm + count} sessions of the healthy kind came"
        late_us = [int(line) for line in lines[warm:]]
        p50_us, p99_us = percentiles({us: late_us.count(us) for us in set(late_us)}, (50, 99))
        handed_over = len(there.record.handed_over) if there else 0
        peak_bytes = await memory
        return Turn(p50_us, p99_us, peak_bytes - empty_bytes, there.dials if there else 0, handed_over)


async def _peak(server: Server) -> int:
    """The most memory that the pipe had, looked at now and then until cancelled."""
    peak_bytes = 0
    try:
        while True:
            peak_bytes = max(peak_bytes, server.rss_bytes())
            await asyncio.sleep(0.1)
    except asyncio.CancelledError:
        return peak_bytes


async def _all_done(server: Server) -> None:
    async with Admin.over(server.url) as admin, asyncio.timeout(60):
        while True:
            phases = (await admin.kinds())[WELL].sessions
            if not phases[Phase.STORED] and not phases[Phase.REPEATING]:
                return
            await asyncio.sleep(0.05)


async def measure(options: argparse.Namespace) -> int:
    worst = 0.0
    print(f"{options.sessions:,} sessions due at once for the bad handler; the healthy kind: {options.rate}/s")  # noqa: T201
    print("way          p50 alone  p50 beside   p99 alone  p99 beside  ratio  bytes/session  dials  handed over")  # noqa: T201
    for way in options.ways or WAYS:
        with tempfile.TemporaryDirectory() as room:
            servers = Servers(Path(room))
            try:
                turns = []
                for number in range(options.rounds):
                    alone = await turn(servers, way, 0, options, f"alone-{number}")
                    beside = await turn(servers, way, options.sessions, options, f"beside-{number}")
                    turns.append((alone, beside))
            finally:
                servers.stop()
        ratio = statistics.median(beside.p99_us / alone.p99_us for alone, beside in turns)
        worst = max(worst, ratio)
        told = [statistics.median(one[side][at] for one in turns) for at in (0, 1) for side in (0, 1)]
        beside = turns[-1][1]
        grown = max(beside.rss_bytes for _, beside in turns) / max(options.sessions, 1)
        told_ms = "  ".join(f"{us / 1000:7.2f} ms" for us in told)
        counts = f"{grown:13,.0f}  {beside.dials:5}  {beside.handed_over:11,}"
        print(f"{way:10}  {told_ms}  {ratio:5.2f}  {counts}", flush=True)  # noqa: T201
    print(f"largest ratio of the p99: {worst:.2f}")  # noqa: T201
    return 0 if worst <= 2 else 1


def main() -> int:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("ways", nargs="*", choices=[[], *WAYS], metavar="WAY", help=", ".join(WAYS))
    options.add_argument("--sessions", type=int, default=100_000)
    options.add_argument("--seconds", type=float, default=10.0)
    options.add_argument("--rate", type=float, default=200.0)
    options.add_argument("--rounds", type=int, default=3)
    options.add_argument("--handle-well", action="store_true", help=argparse.SUPPRESS)
    chosen = options.parse_args()
    if chosen.handle_well:
        asyncio.run(handle_well())
        return 0
    return asyncio.run(measure(chosen))


if __name__ == "__main__":
    sys.exit(main())
