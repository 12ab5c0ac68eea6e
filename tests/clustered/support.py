"""What tests of real clusters share: truba as a process, sessions that were acknowledged, and a look at all of them."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Awaitable, Callable

import truba
from truba.cluster.words import Status
from truba.testing.nodes import Nodes

Known = dict[str, list[bytes]]
"""Records of sessions, by id."""


async def run_truba(*args: str) -> tuple[int, str, str]:
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "truba", *args, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
    )
    try:
        out, err = await asyncio.wait_for(process.communicate(), 60)
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    assert process.returncode is not None
    return process.returncode, out.decode(), err.decode()


async def records_of(nodes: Nodes) -> Known:
    """All sessions with their records, as the leader shows them."""
    found: Known = {}
    async with truba.connect(nodes.urls, connect_timeout_s=30, insecure=True) as pipe:
        _, sessions = await pipe.request(b"LS", read=True)
        for session in sessions:
            fields = dict(zip(session[::2], session[1::2], strict=True))
            shown = await pipe.request(b"SHOW", fields[b"id"], read=True)
            shown = dict(zip(shown[::2], shown[1::2], strict=True))
            found[fields[b"id"].decode()] = shown[b"records"]
    return found


async def write(nodes: Nodes, count: int, record: bytes = b"") -> Known:
    """So many sessions of kind 7, stored for an hour: what was acknowledged."""
    known: Known = {}
    async with truba.connect(nodes.urls, connect_timeout_s=30, insecure=True) as pipe:
        for n in range(count):
            records = [b"%d " % n + record, b"more"]
            session = await pipe.new(7, records[0])
            await session.append(records[1])
            await session.store(3600)
            known[str(session.id)] = records
    return known


async def told(nodes: Nodes, name: str, true: Callable[[Status], object], timeout_s: float = 90.0) -> Status:
    """The first status of that node of which `true` holds."""
    status: Status | None = None
    try:
        async with asyncio.timeout(timeout_s):
            while True:
                status = await nodes.status(name)
                if status is not None and true(status):
                    return status
                await asyncio.sleep(0.1)
    except TimeoutError:
        raise AssertionError(f"not within {timeout_s} s: {status}\n{nodes.last_words()}") from None


async def until(true: Callable[[], Awaitable[object]], timeout_s: float = 90.0) -> None:
    async with asyncio.timeout(timeout_s):
        while not await true():  # noqa: ASYNC110 what it waits for is another process's
            await asyncio.sleep(0.1)
