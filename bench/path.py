"""What one operation costs in Python, kernel and network left out.

    python -m bench.path [--clients 64] [--operations 200000] [--rounds 5] [--profile]

Real connections (parser, verbs, owners, machine, sequencer, codec) on transports that only take bytes, and the log in
memory. CLIENTS connections each send one request in every turn, so that a batch has that many operations; a session
is NEW, two APPENDs and DELETE. Said: microseconds for each operation; of the turns of one kind the median counts, so
that a turn in which the machine did something else does not.
"""

from __future__ import annotations

import argparse
import asyncio
import cProfile
import gc
import pstats
import statistics
import time

import uvloop

from truba.kinds import Kind
from truba.log.memory import MemoryLog, Shelf
from truba.node.node import Node
from truba.store.memory import MemoryStore
from truba.wire.connection import Connection, WireSettings
from truba.wire.verbs import VERBS


class _Sink(asyncio.Transport):
    """A transport that keeps the last bytes written to it."""

    def __init__(self) -> None:
        super().__init__()
        self.last = b""

    def write(self, data: bytes | bytearray | memoryview) -> None:
        self.last = bytes(data) if type(data) is not bytes else data

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        pass


async def _handler(repeat: object) -> None:
    raise AssertionError("nothing is unfinished here")


async def _round(clients: int, operations: int) -> float:
    node = Node(MemoryLog(Shelf()), MemoryStore(), [Kind(7, "job", handler=_handler)], {})
    await node.start()
    sinks = [_Sink() for _ in range(clients)]
    connections = [Connection(node, VERBS, WireSettings(), lambda _connection: None) for _ in sinks]
    for connection, sink in zip(connections, sinks, strict=True):
        connection.connection_made(sink)
    record = b"$100\r\n" + b"r" * 100 + b"\r\n"
    opened = b"*3\r\n$3\r\nNEW\r\n$1\r\n7\r\n" + record
    sessions = max(operations // 4 // clients, 1)
    ids = [b""] * clients
    receives = [connection.data_received for connection in connections]
    gc.collect()
    spent_s: list[list[float]] = [[], [], [], []]
    for _ in range(sessions):
        for step in range(4):
            if step == 0:
                requests = [opened] * clients
            elif step < 3:
                requests = [b"*3\r\n$6\r\nAPPEND\r\n$%d\r\n%b\r\n%b" % (len(name), name, record) for name in ids]
            else:
                requests = [b"*2\r\n$6\r\nDELETE\r\n$%d\r\n%b\r\n" % (len(name), name) for name in ids]
            started_s = time.perf_counter()
            for receive, request in zip(receives, requests, strict=True):
                receive(request)
            await asyncio.sleep(0)
            spent_s[step].append(time.perf_counter() - started_s)
            if step == 0:
                ids = [sink.last.split(b"\r\n")[1] for sink in sinks]
            assert all(sink.last[:1] in b"+$" for sink in sinks), sinks[0].last
        node.log.trim(node.log.tail.seq)
    await node.stop()
    return statistics.mean(map(statistics.median, spent_s)) / clients * 1e6


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clients", type=int, default=64)
    parser.add_argument("--operations", type=int, default=200_000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--profile", action="store_true", help="where the time goes, of one round")
    options = parser.parse_args()
    uvloop.install()
    if options.profile:
        profile = cProfile.Profile()
        profile.runcall(asyncio.run, _round(options.clients, options.operations))
        pstats.Stats(profile).sort_stats("tottime").print_stats(25)
        return
    rounds = [asyncio.run(_round(options.clients, options.operations)) for _ in range(options.rounds)]
    best, usual = min(rounds), statistics.median(rounds)
    print(f"{usual:.2f} us an operation, {options.clients} clients; {best:.2f} at best")  # noqa: T201


if __name__ == "__main__":
    main()
