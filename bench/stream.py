"""Messages a second and their latency on a stream of JetStream, by size and by how many are under way.

    PYTHONPATH=src python bench/stream.py [--servers 1|3] [--seconds S] [--nats-server PATH]

Starts real nats-servers on loopback (three by default, one stream of three replicas, every write synced) and publishes
through `truba.streams.jetstream` as a leader does: each message expects the number of the one before, and the next one
leaves when one of the window's is acknowledged. Every answer must be Stored with the number that was expected. Latency
runs from the call of publish to its `done`. Servers and this process share the machine, so this is a floor: on machines
of their own there is a network, but there are also disks and processors for each. `ours` is the processor time of this
process for a message: what does not depend on the servers.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import tempfile
import time
from pathlib import Path

import uvloop

from truba.ports.stream import Outcome, Stored
from truba.streams.jetstream import JetStream
from truba.testing.nats import NatsServers

SIZES = (300, 16 << 10, 64 << 10)
WINDOWS = (1, 4, 16, 64)


def say(line: str) -> None:
    print(line, flush=True)  # noqa: T201 - its output


async def measure(stream: JetStream, size: int, window: int, seconds: float) -> tuple[float, list[float], float]:
    """Messages a second, latencies in seconds (sorted), processor seconds of ours for one message."""
    data, last = os.urandom(size), (await stream.bounds()).last
    latencies: list[float] = []
    ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    started_s, cpu_s, under_way = time.perf_counter(), time.process_time(), 0

    def one() -> None:
        nonlocal last, under_way
        under_way += 1
        last += 1
        expected, sent_s = last, time.perf_counter()

        def done(outcome: Outcome) -> None:
            nonlocal under_way
            under_way -= 1
            if outcome != Stored(expected):
                if not ended.done():
                    ended.set_exception(RuntimeError(f"number {expected}: {outcome}"))
                return
            now_s = time.perf_counter()
            latencies.append(now_s - sent_s)
            if now_s - started_s < seconds:
                one()
            elif not under_way and not ended.done():
                ended.set_result(None)

        stream.publish(data, expected - 1, done)

    for _ in range(window):
        one()
    await ended
    took_s, cpu_s = time.perf_counter() - started_s, time.process_time() - cpu_s
    return len(latencies) / took_s, sorted(latencies), cpu_s / len(latencies)


async def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--servers", type=int, default=3, choices=(1, 3))
    parser.add_argument("--seconds", type=float, default=2.0, help="for each line")
    parser.add_argument("--nats-server", metavar="PATH")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as directory:
        async with await NatsServers.start(Path(directory), options.servers, binary=options.nats_server) as servers:
            stream = await JetStream.connect(servers.settings(publish_timeout_s=10.0))
            await stream.create(os.urandom(16))
            say(f"{options.servers} servers, synced always")
            say(f"{'bytes':>6} {'window':>6} {'msg/s':>7} {'MB/s':>6} {'p50 ms':>7} {'p99 ms':>7} {'ours us':>8}")
            for size in SIZES:
                for window in WINDOWS:
                    rate, latencies, ours_s = await measure(stream, size, window, options.seconds)
                    p50, p99 = (latencies[int(len(latencies) * part)] * 1e3 for part in (0.5, 0.99))
                    say(
                        f"{size:>6} {window:>6} {rate:>7.0f} {rate * size / 1e6:>6.1f} {p50:>7.2f} {p99:>7.2f} "
                        f"{ours_s * 1e6:>8.0f}"
                    )
                    await stream.trim((await stream.bounds()).last)
            await stream.close()


if __name__ == "__main__":
    uvloop.run(main())
